//! Makes a node's root and moves into it. Only ever run in a mount namespace of its own.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::config::FOLDER;
use super::spec::Spec;

/// Character devices that every machine has, with their numbers. Source: Linux, `Documentation/admin-guide/devices.txt`.
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("kmsg", 1, 11),
    ("tty", 5, 0),
];

/// What the kubelet would set for the whole machine. It finds them set, and leaves the machine's alone.
const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Names of the settings that a node hides from the kubelet.
#[must_use]
pub fn hidden_sysctls() -> [&'static str; 6] {
    SYSCTLS.map(|(name, _)| name)
}

/// Makes the root and moves into it.
pub fn enter(spec: &Spec) -> anyhow::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = spec.at("root");
    for name in ["root", "disk", "work", "containerd", "kubelet"] {
        fs::create_dir_all(spec.at(name))?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        spec.root.display(),
        spec.at("disk").display(),
        spec.at("work").display()
    );
    mount("overlay", &root, "overlay", MountFlags::empty(), CString::new(layers)?.as_c_str())
        .context("could not mount the node's root")?;
    make_files(&spec.name, spec.number, &root)?;
    mount("proc", root.join("proc"), "proc", MountFlags::empty(), None)?;
    mount_bind_recursive("/sys", root.join("sys"))?;
    for (name, mode) in [("dev", c"mode=755"), ("run", c"mode=755"), ("tmp", c"mode=1777")] {
        mount("tmpfs", root.join(name), "tmpfs", MountFlags::empty(), mode)?;
    }
    make_devices(&root.join("dev"))?;
    complete_devices(&root.join("dev"))?;
    for (from, to) in [
        (spec.programs.clone(), "opt/node/programs"),
        (spec.at("images"), "opt/node/images"),
        (spec.at("etc"), FOLDER.trim_start_matches('/')),
        // containerd's own overlays cannot lie on an overlay.
        (spec.at("containerd"), "var/lib/containerd"),
        (spec.at("kubelet"), "var/lib/kubelet"),
    ] {
        mount_bind(&from, root.join(to)).with_context(|| format!("could not mount {}", from.display()))?;
    }
    hide_sysctls(spec, &root)?;
    let old = root.join("run/old");
    fs::create_dir_all(&old)?;
    chdir(&root)?;
    pivot_root(".", "run/old")?;
    chdir("/")?;
    unmount("/run/old", UnmountFlags::DETACH)?;
    fs::remove_dir("/run/old")?;
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

/// What an installer would have made beside the packages' files.
pub fn make_files(name: &str, number: u8, root: &Path) -> anyhow::Result<()> {
    for folder in [
        "opt/node/programs",
        "opt/node/images",
        FOLDER.trim_start_matches('/'),
        "etc/containerd/certs.d",
        "usr/lib/modules",
        "var/lib/containerd",
        "var/lib/kubelet",
        "var/log",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (file, content) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        // No name server: a pull of an image that nobody has fails at once.
        ("etc/resolv.conf", ""),
        ("etc/hostname", name),
        ("etc/machine-id", &format!("{number:032x}\n")),
    ] {
        if !root.join(file).exists() {
            fs::write(root.join(file), content)?;
        }
    }
    // A package ships it as a folder; on an installed system it is a link.
    let run = root.join("var/run");
    if run.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        fs::remove_dir_all(&run)?;
    }
    for (link, target) in [("usr/bin/sh", "bash"), ("var/run", "../run"), ("usr/bin/awk", "mawk")] {
        if root.join(link).symlink_metadata().is_err() {
            symlink(target, root.join(link))?;
        }
    }
    Ok(())
}

/// Devices of its own: what a pod leaves here is not there on the next node.
fn make_devices(dev: &Path) -> anyhow::Result<()> {
    for (name, major, minor) in DEVICES {
        let permissions = Mode::from_raw_mode(if name == "kmsg" { 0o600 } else { 0o666 });
        let umask = rustix::process::umask(Mode::empty());
        let made = mknodat(CWD, dev.join(name), FileType::CharacterDevice, permissions, makedev(major, minor));
        rustix::process::umask(umask);
        made.with_context(|| format!("could not make the device {name}"))?;
    }
    Ok(())
}

/// Adds to devices what is none: links and file systems.
pub fn complete_devices(dev: &Path) -> anyhow::Result<()> {
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")]
    {
        if dev.join(link).symlink_metadata().is_err() {
            symlink(target, dev.join(link))?;
        }
    }
    for (name, kind, options) in
        [("pts", "devpts", c"newinstance,ptmxmode=0666"), ("shm", "tmpfs", c"mode=1777"), ("mqueue", "mqueue", c"")]
    {
        fs::create_dir_all(dev.join(name))?;
        mount(kind, dev.join(name), kind, MountFlags::empty(), options)
            .with_context(|| format!("could not mount {name}"))?;
    }
    Ok(())
}

/// Puts files with the values that the kubelet wants over the machine's settings, and the node's own boot id.
fn hide_sysctls(spec: &Spec, root: &Path) -> anyhow::Result<()> {
    let boot_id = ("kernel/random/boot_id", spec.boot_id.as_str());
    for (name, value) in SYSCTLS.into_iter().chain([boot_id]) {
        let (file, setting) = (root.join("run/sysctl").join(name), root.join("proc/sys").join(name));
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, format!("{value}\n"))?;
        mount_bind(&file, &setting).with_context(|| format!("could not hide {name}"))?;
    }
    Ok(())
}
