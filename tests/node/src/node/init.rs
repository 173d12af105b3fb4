//! The first process of a node: what an init system does for a kubelet.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};
use testbed::HOST;

use super::config::FOLDER;
use super::root;
use super::spec::Spec;

/// Where a node's programs are.
pub const PATH: &str = "/opt/node/programs:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where OCI archives are that it imports at its start.
pub const IMAGES: &str = "/opt/node/images";

/// How long a program may take to answer for the first time.
const PATIENCE: Duration = Duration::from_mins(1);

/// Takes this process out of this machine's namespaces and starts the node's first process in them. Ends with it.
pub fn launch(spec: &Path) -> anyhow::Result<()> {
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    unshare(namespaces | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    let status = Command::new("/proc/self/exe").arg("init").arg(spec).status()?;
    bail!("the node's first process ended: {status}");
}

/// The first process.
#[expect(clippy::print_stdout, reason = "its log")]
pub fn run(spec: &Path) -> anyhow::Result<()> {
    // Whoever launched us may be killed; the kernel then ends us, and with us everything in our PID namespace.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let spec = Spec::read(spec)?;
    root::enter(&spec)?;
    rustix::system::sethostname(spec.name.as_bytes())?;
    bring_up_network(&spec)?;
    let mut programs = vec![start_containerd()?];
    for image in images()? {
        import(&image)?;
    }
    if spec.proxy {
        let config = format!("--config={FOLDER}/kube-proxy.yaml");
        programs.push(daemon("kube-proxy", &[&config, &format!("--hostname-override={}", spec.name)])?);
    }
    programs.push(start_kubelet(&spec.name, &spec.address())?);
    println!("Started");
    reap(&programs)
}

/// Starts containerd and waits until it answers.
pub fn start_containerd() -> anyhow::Result<Child> {
    let containerd = daemon("containerd", &["--config", &format!("{FOLDER}/containerd.toml")])?;
    retry("containerd", || call("ctr", &["version"]))?;
    Ok(containerd)
}

/// OCI archives that the node was given.
pub fn images() -> anyhow::Result<Vec<PathBuf>> {
    Ok(std::fs::read_dir(IMAGES)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// Imports an OCI archive into containerd.
pub fn import(image: &Path) -> anyhow::Result<()> {
    call("ctr", &["--namespace", "k8s.io", "images", "import", &image.display().to_string()])
}

/// Starts the kubelet.
pub fn start_kubelet(name: &str, address: &str) -> anyhow::Result<Child> {
    daemon(
        "kubelet",
        &[
            &format!("--config={FOLDER}/kubelet.yaml"),
            &format!("--kubeconfig={FOLDER}/kubelet.kubeconfig"),
            &format!("--hostname-override={name}"),
            &format!("--node-ip={address}"),
        ],
    )
}

/// The other end of the link comes from outside.
fn bring_up_network(spec: &Spec) -> anyhow::Result<()> {
    retry("eth0", || call("ip", &["link", "set", "eth0", "up"]))?;
    call("ip", &["link", "set", "lo", "up"])?;
    call("ip", &["address", "add", &spec.address(), "peer", HOST, "dev", "eth0"])?;
    call("ip", &["route", "add", "default", "via", HOST])?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

/// Starts a program that stays; its log is in `/var/log`.
fn daemon(name: &str, arguments: &[&str]) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(format!("/var/log/{name}.log"))?;
    let mut command = command(name, arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("could not start {name}"))
}

/// Runs a program of the node to its end.
pub fn call(name: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = command(name, arguments).stdin(Stdio::null()).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {}: {}", arguments.join(" "), errors.trim());
    Ok(())
}

/// A program of the node, found and run as on a machine of its own.
#[must_use]
pub fn command(name: &str, arguments: &[&str]) -> Command {
    // By way of env, so that it is looked for in the node's PATH and not in ours.
    let mut command = Command::new("/usr/bin/env");
    command.env_clear().env("PATH", PATH).env("HOME", "/root").current_dir("/").arg(name).args(arguments);
    command
}

/// Tries until it works, for a minute.
pub fn retry(what: &str, attempt: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while let Err(error) = attempt() {
        ensure!(begun.elapsed() < PATIENCE, "{what} is not there after {} s: {error:#}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Every orphan of the node is our child. The end of a program of ours is an error, but not the end of the node: its pods
/// go on, as on a machine.
#[expect(clippy::print_stdout, reason = "its log")]
pub fn reap(programs: &[Child]) -> anyhow::Result<()> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty())? else { continue };
        if programs.iter().any(|program| i32::try_from(program.id()).ok() == Some(pid.as_raw_nonzero().get())) {
            println!("A program of the node ended: process {pid:?}, {status:?}");
        }
    }
}
