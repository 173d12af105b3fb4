//! What of this machine a node could change, to compare before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use testbed::control_group::hierarchies;
use testbed::debian::Unpacked;

use crate::node::root::hidden_sysctls;

/// Folders of runs that are under way begin with this.
const FOLDERS: &str = "accelerator-testbed-";

/// Traces, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Everything as it is now: processes that nodes consist of, mounts, links, routes, control groups, folders, settings.
    pub fn take(tools: &Unpacked) -> anyhow::Result<Self> {
        let mut lines = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        lines.extend(mounts.lines().map(|line| format!("mount {line}")));
        for (what, arguments) in
            [("link", &["-oneline", "link"][..]), ("address", &["-oneline", "address"]), ("route", &["route"])]
        {
            let output = tools.run("usr/bin/ip", arguments)?;
            lines.extend(output.lines().map(|line| format!("{what} {}", without_numbers(line))));
        }
        for hierarchy in hierarchies()? {
            add_folders(&hierarchy, &mut lines);
        }
        let temporary = std::env::temp_dir();
        for entry in fs::read_dir(&temporary)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(FOLDERS) {
                lines.insert(format!("folder {}", temporary.join(name).display()));
            }
        }
        for name in hidden_sysctls() {
            let value = fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
            lines.insert(format!("sysctl {name} = {}", value.trim()));
        }
        lines.extend(processes()?);
        Ok(Self(lines))
    }

    /// What was not there before, and what is not there any more.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let more = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        // What ended meanwhile may be another run's; what this machine itself consists of may not go.
        let may_end =
            |line: &&String| ["process ", "folder ", "control group "].iter().any(|kind| line.starts_with(kind));
        let less = before.0.difference(&self.0).filter(|line| !may_end(line)).map(|line| format!("- {line}"));
        more.chain(less).collect()
    }
}

/// Programs that a cluster of ours consists of, by name and number.
fn processes() -> anyhow::Result<Vec<String>> {
    let ours = [
        "etcd",
        "kube-apiserver",
        "kube-controller",
        "kube-scheduler",
        "kwok",
        "kubelet",
        "kube-proxy",
        "containerd",
        "containerd-shim",
        "node-process",
        "pause",
        "program",
        // The emulator, which is started by its own.
        "ld-linux",
    ];
    let mut found = vec![];
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if ours.iter().any(|one| name.trim().starts_with(one)) {
            found.push(format!("process {} {}", path.display(), name.trim()));
        }
    }
    Ok(found)
}

fn add_folders(folder: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            lines.insert(format!("control group {}", entry.path().display()));
            add_folders(&entry.path(), lines);
        }
    }
}

/// Index numbers of links and lifetimes change by themselves.
fn without_numbers(line: &str) -> String {
    line.split_whitespace()
        .filter(|word| !word.ends_with("sec") && word.trim_end_matches(':').parse::<u32>().is_err())
        .collect::<Vec<_>>()
        .join(" ")
}
