//! A control group that goes when we do.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::tell_reaper;

/// How long the kernel may take to let go of a group whose processes were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control group in one hierarchy. Dropping it removes it with all groups below, once no process is left in them.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes one of this name in every hierarchy of this machine.
    pub fn in_every_hierarchy(name: &str) -> anyhow::Result<Vec<Self>> {
        hierarchies()?.iter().map(|hierarchy| Self::create(hierarchy, name)).collect()
    }

    fn create(hierarchy: &Path, name: &str) -> anyhow::Result<Self> {
        let path = hierarchy.join(name);
        // What a killed run left is removed by its reaper, which may still be at it.
        remove(&path);
        fs::create_dir(&path).with_context(|| format!("could not make the control group {}", path.display()))?;
        tell_reaper(&format!("={}", path.display()))?;
        let group = Self(path);
        // Version 1 of the cpuset controller begins with nothing, and nothing can run there.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (above, own) = (hierarchy.join(file), group.0.join(file));
            if above.exists() && own.exists() {
                fs::write(own, fs::read(above)?)?;
            }
        }
        Ok(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Where the hierarchies of control groups are mounted: one for version 2, several for version 1.
pub fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|fields| matches!(fields[2], "cgroup" | "cgroup2")).map(|fields| fields[1].into()).collect())
}

/// Removes a group and all below. Its files go with it and cannot be removed themselves.
pub(crate) fn remove(group: &Path) {
    let begun = Instant::now();
    while group.exists() && begun.elapsed() < PATIENCE {
        remove_below(group);
        if group.exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn remove_below(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
