//! A container runtime in small: an empty root with exactly what the manifest mounts, namespaces of its own, the manifest's
//! environment and arguments. As for every privileged container, capabilities and devices are not limited.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change, mount_move, mount_remount,
};
use rustix::process::{chdir, chroot};
use serde::Deserialize;

use crate::network;

/// Where a container's root is made.
const ROOT: &str = "/container";
/// The image: one program.
const PROGRAM: &str = "program";

/// What the host took from the manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    args: Vec<String>,
    env: Vec<(String, String)>,
    mounts: Vec<Mount>,
    privileged: bool,
    /// The readiness probe's command.
    pub probe: Vec<String>,
    host_network: bool,
    #[serde(rename = "hostPID")]
    host_pid: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host: PathBuf,
    container: PathBuf,
    read_only: bool,
}

/// The manifest in short.
pub fn manifest() -> anyhow::Result<Manifest> {
    let manifest: Manifest = serde_json::from_str(&fs::read_to_string("/manifest.json")?)?;
    if !manifest.privileged || manifest.host_network || manifest.host_pid {
        bail!("this runtime makes privileged containers with a network and processes of their own, and no others");
    }
    Ok(manifest)
}

/// Runs the manifest's container until it ends, its output in `log`.
pub fn start(log: &str, environment: &[&str]) -> anyhow::Result<()> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    unshare(flags | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    let out = File::options().create(true).append(true).open(log)?;
    // The first process of the new PID namespace.
    let status =
        Command::new("/proc/self/exe").arg("inside").args(environment).stdout(out.try_clone()?).stderr(out).status()?;
    std::process::exit(status.code().unwrap_or(128));
}

/// In the new namespaces: makes the root and becomes the program.
pub fn inside(environment: &[&str]) -> anyhow::Result<()> {
    let manifest = manifest()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    network::bring_up_loopback()?;
    fs::create_dir_all(ROOT)?;
    mount("tmpfs", ROOT, "tmpfs", MountFlags::empty(), None)?;
    fs::copy("/program", Path::new(ROOT).join(PROGRAM))?;
    let inside = |path: &Path| Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path));
    for (kind, at, flags) in [("proc", "/proc", MountFlags::empty()), ("tmpfs", "/dev", MountFlags::NOSUID)] {
        let at = inside(Path::new(at));
        fs::create_dir_all(&at)?;
        mount(kind, &at, kind, flags, None)?;
    }
    for node in ["null", "random", "urandom"] {
        let at = inside(&Path::new("/dev").join(node));
        File::create(&at)?;
        mount_bind_recursive(Path::new("/dev").join(node), &at)?;
    }
    for Mount { host, container, read_only } in &manifest.mounts {
        let at = inside(container);
        fs::create_dir_all(host).and_then(|()| fs::create_dir_all(&at))?;
        mount_bind_recursive(host, &at).with_context(|| format!("could not mount {}", host.display()))?;
        if *read_only {
            mount_remount(&at, MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
    }
    chdir(ROOT)?;
    mount_move(ROOT, "/")?;
    chroot(".")?;
    chdir("/")?;
    // Nothing of ours writes outside its mounts.
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"")?;
    let mut program = Command::new(Path::new("/").join(PROGRAM));
    program.args(&manifest.args).env_clear().envs(manifest.env).envs(pairs(environment));
    Err(program.exec().into())
}

/// Runs a command in the container whose first process is `pid`, as a probe is run.
pub fn exec(pid: u32, environment: &[&str], command: &[&str]) -> anyhow::Result<()> {
    let manifest = manifest()?;
    let spaces =
        [("pid", CloneFlags::CLONE_NEWPID), ("net", CloneFlags::CLONE_NEWNET), ("mnt", CloneFlags::CLONE_NEWNS)];
    let files: Vec<_> = spaces
        .iter()
        .map(|(name, kind)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, *kind)))
        .collect::<std::io::Result<_>>()?;
    for (file, kind) in files {
        setns(file, kind)?;
    }
    let (program, arguments) = command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(manifest.env)
        .envs(pairs(environment))
        .stdin(Stdio::null())
        .status()?;
    std::process::exit(status.code().unwrap_or(128));
}

/// `NAME=VALUE` each.
fn pairs<'a>(environment: &[&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    environment.iter().filter_map(|one| one.split_once('='))
}
