//! Runs a command in a node that lives in namespaces of this machine.

use std::fs::File;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use super::init::PATH;

/// Enters the namespaces of process `pid` and runs a command there; ends as it ends.
pub fn run(pid: &str, command: &[String]) -> anyhow::Result<()> {
    let kinds = [
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        // Last: with it the files of the others are out of sight.
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let files: Vec<_> = kinds
        .iter()
        .map(|(name, kind)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, *kind)))
        .collect::<std::io::Result<_>>()?;
    for (file, kind) in files {
        setns(file, kind)?;
    }
    let mut inside = Command::new("/usr/bin/env");
    inside.env_clear().env("PATH", PATH).env("HOME", "/root").current_dir("/").args(command);
    std::process::exit(inside.status()?.code().unwrap_or(128));
}
