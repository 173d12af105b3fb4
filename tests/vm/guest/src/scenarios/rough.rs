//! What other people, and other programs, leave behind or take away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount_remount};

use super::{all_bound, bound, free, give_to_native, native, npus, ours, pair};
use crate::agent::{Agent, Machine, Said, command, document};
use crate::checks::{check, equal, eventually};

pub fn run() -> anyhow::Result<()> {
    let all = npus();
    let (first, second) = (all[0].clone(), all[1].clone());
    without_vfio_pci(&all)?;
    read_only(&all)?;

    // Left over by somebody who died half-way.
    fs::write(format!("/sys/bus/pci/devices/{first}/driver_override"), "vfio-pci")?;
    give_to_native(&["1250"])?;
    equal(
        "a left-over reservation keeps the native driver away",
        [bound(&first), bound(&second)],
        [pair("none", "vfio-pci"), native()],
    );
    let said = command(&["give-back"]);
    equal("give-back takes it away", (said.code, bound(&first)), (0, native()));
    hidden_user(&first, &second);

    let mut agent = Agent::start();
    eventually("both are bound", document, |seen| *seen == all_bound(&all));
    fs::write("/sys/bus/pci/drivers/vfio-pci/unbind", &second)?;
    eventually(
        "a device that somebody takes away is bound again",
        || (bound(&second), document()),
        |seen| *seen == (ours(), all_bound(&all)),
    );
    fight(&second);
    limbo(&mut agent, &second)?;

    equal("all go back in the end", command(&["give-back"]).code, 0);
    equal("to the driver that they had", [bound(&first), bound(&second)], [native(), native()]);
    Ok(())
}

/// The module's file is gone, as on a host that lacks it.
fn without_vfio_pci(all: &[String]) -> anyhow::Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let folder = Path::new("/lib/modules").join(release).join("kernel/drivers/vfio/pci");
    let file: PathBuf = fs::read_dir(&folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vfio-pci.ko")))
        .expect("the module");
    fs::rename(&file, "/hidden")?;
    let mut agent = Agent::start();
    let blocked: Vec<_> = all.iter().map(|one| format!("{one} Blocked/VfioPciMissing on none")).collect();
    eventually("without vfio-pci nothing is touched", document, |seen| *seen == blocked);
    let said = agent.probe();
    check("the probe says what to do", said.code == 3 && said.out.contains("modprobe vfio_pci"), said);
    equal("no reservation is left", bound(&all[0]), free());
    fs::rename("/hidden", &file)?;
    eventually("it is loaded when it is there", document, |seen| *seen == all_bound(all));
    agent.stop();
    equal("given back", command(&["give-back"]).code, 0);
    Ok(())
}

fn read_only(all: &[String]) -> anyhow::Result<()> {
    mount_remount("/sys", MountFlags::BIND | MountFlags::RDONLY, c"")?;
    let said = command(&["bind"]);
    mount_remount("/sys", MountFlags::BIND, c"")?;
    check("a /sys that cannot be written is named", said.code == 3 && said.out.contains("SysfsReadOnly"), said.out);
    equal("nothing is half-done", bound(&all[0]), free());
    Ok(())
}

/// The users of one NPU must not hide one of another who has no descriptor of it.
fn hidden_user(first: &str, second: &str) {
    let node = |address: &str| {
        let folder = Path::new("/sys/bus/pci/devices").join(address).join("uio");
        let entry = fs::read_dir(folder).expect("a device node").flatten().next().expect("one");
        format!("/dev/{}", entry.file_name().to_string_lossy())
    };
    let bind = |expected: &str| {
        let said = command(&["bind", &format!("--include={second}")]);
        let line = fs::read_to_string(crate::agent::DOCUMENT).unwrap_or_default();
        (said.code, bound(second), line.contains(expected))
    };
    let kept = (3, native(), true);
    let family = Machine::fork(&node(first));
    let hidden = Machine::hide(&node(second));
    equal("so that an NPU with a hidden user is left alone", bind("\"UseUnknown\""), kept.clone());
    drop(family);
    eventually("it is in use for sure when the others have ended", || bind("\"InUse\""), |seen| *seen == kept);
    drop(hidden);
    equal("and bound when nobody has it", bind("\"Verified\""), (0, ours(), true));
    equal("it goes back", (command(&["give-back"]).code, bound(second)), (0, native()));
}

/// Somebody takes a device away whenever it is bound. Neither the processor nor the log is theirs.
fn fight(address: &str) {
    let (begun, mut taken) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(5) {
        if bound(address).0 == "vfio-pci" && fs::write("/sys/bus/pci/drivers/vfio-pci/unbind", address).is_ok() {
            taken += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    check("a device that somebody takes again and again is bound less and less often", (2..=5).contains(&taken), taken);
    eventually("and is bound when they have left", || bound(address), |seen| *seen == ours());
}

/// Somebody else takes a device from a virtual machine that has not let go. Their call does not return until it has; ours
/// must not end up like that.
fn limbo(agent: &mut Agent, address: &str) -> anyhow::Result<()> {
    let machine = Machine::start(address).expect("a device for a virtual machine");
    let mut other =
        Command::new("/proc/self/exe").args(["write", "/sys/bus/pci/drivers/vfio-pci/unbind", address]).spawn()?;
    eventually("the device is in limbo", || bound(address).0, |driver| driver == "none");
    let line = format!("{address} Busy/InUse on none");
    eventually("it is told as in use", document, |seen| seen.contains(&line));
    check(
        "its holder is named",
        fs::read_to_string(crate::agent::DOCUMENT)?.contains(&format!("process {}", machine.pid())),
        (),
    );
    for (name, look) in [("the probe", &(|| agent.probe()) as &dyn Fn() -> Said), ("status", &|| command(&["status"]))]
    {
        let begun = Instant::now();
        let said = look();
        let is_prompt = begun.elapsed() < Duration::from_secs(3);
        check(&format!("{name} returns and says so"), is_prompt && said.out.contains("InUse"), said);
    }
    let (code, took) = agent.stop();
    equal("SIGTERM ends the agent well", code, Some(0));
    check("SIGTERM ends it within a second", took < Duration::from_millis(1500), took);
    *agent = Agent::start();
    eventually("the next agent says the same", document, |seen| seen.contains(&line));
    equal("the other call has not come back", other.try_wait()?, None);
    drop(machine);
    other.wait()?;
    eventually("the device is bound again when it is free", || bound(address), |seen| *seen == ours());
    agent.stop();
    Ok(())
}
