//! The first process: mounts, one scenario, off.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use rebellions_vfio_manager::modules::Modules;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::{checks, network, scenarios};

/// Runs the scenario that the kernel's command line names and switches the machine off. The last line is the verdict: that
/// of the machine emulator says nothing.
pub fn run() -> anyhow::Result<()> {
    let outcome = prepare().and_then(|()| scenario());
    if let Err(error) = &outcome {
        checks::check("the scenario came to its end", false, format!("{error:#}"));
    }
    let (done, failed) = checks::count();
    println!("@@DONE {done} checks, {failed} failed");
    std::io::stdout().flush()?;
    reboot(RebootCommand::PowerOff)?;
    Ok(())
}

fn prepare() -> anyhow::Result<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        fs::create_dir_all(at)?;
        mount(kind, at, kind, MountFlags::empty(), None).with_context(|| format!("could not mount {at}"))?;
    }
    network::bring_up_loopback()
}

fn scenario() -> anyhow::Result<()> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let name = line.split_whitespace().find_map(|word| word.strip_prefix("scenario=")).context("no scenario")?;
    println!("@@SCENARIO {name} on Linux {}", rustix::system::uname().release().to_string_lossy());
    scenarios::run(name)
}

/// Loads kernel modules as the agent does.
pub fn load(names: &[&str]) -> anyhow::Result<()> {
    let modules = Modules::of_this_kernel(Path::new("/lib/modules"), Path::new("/sys"), "");
    names.iter().try_for_each(|name| modules.load_module(name, ""))
}

/// Leaves a process behind that ends after its parent.
pub fn leave_an_orphan() -> anyhow::Result<()> {
    std::process::Command::new("/proc/self/exe").arg("sleep").spawn()?;
    Ok(())
}
