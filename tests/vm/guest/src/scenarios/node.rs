//! A node in the life of its agent: bound, used, restarted, killed, replaced, given back.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rebellions_vfio_manager::pci::VENDOR;

use super::{all_bound, bound, free, give_to_native, native, npus, ours};
use crate::agent::{Agent, Machine, command, document, status};
use crate::checks::{check, equal, eventually};
use crate::machine::load;

/// A second, and what an emulated processor adds.
const SOON: Duration = Duration::from_millis(1500);

/// The device of another vendor that looks like an NPU otherwise.
pub fn foreign() -> String {
    let entries = fs::read_dir("/sys/bus/pci/devices").expect("sysfs").flatten();
    let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_foreign = |name: &String| {
        super::attribute(name, "class").starts_with("0x12")
            && super::attribute(name, "vendor") != format!("0x{VENDOR:04x}")
    };
    names.find(is_foreign).expect("a device of another vendor")
}

pub fn run() -> anyhow::Result<()> {
    load(&["virtio_pci", "virtio_blk"])?;
    give_to_native(&["2130"])?;
    let (all, other) = (npus(), foreign());
    let [first, second, third] = [0, 1, 2].map(|number| all[number].clone());
    equal(
        "one NPU has a driver, two have none",
        [&first, &second, &third].map(|one| bound(one)),
        [free(), free(), native()],
    );
    let theirs = bound(&other);
    equal("the other vendor's device has its driver", theirs.0.as_str(), "virtio-pci");
    let said = command(&["check"]);
    equal("check fails before", said.code, 3);

    let mut agent = Agent::start();
    eventually("every NPU is bound and verified", document, |seen| *seen == all_bound(&all));
    equal("as the kernel sees it", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![ours(); 3]);
    equal("the other vendor's device is untouched", bound(&other), theirs.clone());
    equal("the readiness probe succeeds", agent.probe().code, 0);
    check("/readyz", agent.get("/readyz").contains("200 OK"), agent.get("/readyz"));
    check("/livez", agent.get("/livez").contains("200 OK"), ());
    let metrics = agent.get("/metrics");
    let metric = format!("rebellions_vfio_manager_device_state{{address=\"{first}\"");
    check(
        "/metrics tells each device's state",
        metrics.contains(&metric) && metrics.contains("state=\"Bound\""),
        metrics.len(),
    );
    equal("the log says how many there are", agent.said().matches("Found NPUs").count(), 1);
    equal("one line for each transition", agent.said().matches("Device stands").count(), 3);
    check("and one for each write", agent.said().matches("Changing device").count() >= 3, agent.said());
    println!("@@FIGURE agent RSS {}", memory(agent.pid()));
    orphans(&agent)?;

    let machine = Machine::start(&first).expect("a device for a virtual machine");
    let (code, took) = agent.stop();
    equal("SIGTERM ends it well", code, Some(0));
    check("SIGTERM ends it within a second, a virtual machine running", took < SOON, took);
    equal("devices stay as they are", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![ours(); 3]);

    let mut agent = Agent::start();
    eventually("the next one adopts what it finds", document, |seen| *seen == all_bound(&all));
    equal("as it says itself", agent.said().matches("Device stands").count(), 3);
    equal("without a write", agent.said().matches("Changing device").count(), 0);
    agent.kill();
    equal(
        "killed, it leaves everything as it is",
        all.iter().map(|one| bound(one)).collect::<Vec<_>>(),
        vec![ours(); 3],
    );
    let mut agent = Agent::start();
    eventually("so does the one after a kill", document, |seen| *seen == all_bound(&all));
    equal("and its probe succeeds", agent.probe().code, 0);
    equal("without a write again", agent.said().matches("Changing device").count(), 0);

    let mut waiting = Agent::start_beside();
    eventually("a second agent waits", || waiting.said().contains("Another agent is at work"), |waits| *waits);
    check("it is not ready", waiting.get("/readyz").contains("503"), waiting.get("/readyz"));
    let said = waiting.probe();
    check("and its probe says why", said.code == 3 && said.out.contains("at work"), said);
    equal("nor may a command work beside it", command(&["give-back"]).code, 5);
    agent.stop();
    eventually("it takes over when the first has ended", || waiting.get("/readyz").contains("200 OK"), |ready| *ready);
    waiting.stop();

    give_back(&all, machine, &other, theirs);
    Ok(())
}

/// The end of the assignment, as an init container of the next component sees it.
fn give_back(all: &[String], machine: Machine, other: &str, theirs: (String, String)) {
    let [first, second, third] = [0, 1, 2].map(|number| all[number].as_str());
    let said = command(&["give-back", "--dry-run"]);
    check(
        "a dry run tells what would be done",
        said.out.contains(&format!("{second}: would unbind it from vfio-pci")),
        said,
    );
    equal("and does nothing", bound(second), ours());
    let said = command(&["give-back"]);
    equal("with one device held it is not complete", said.code, 3);
    let holder = format!("process {} (exe) holds /dev/vfio/", machine.pid());
    check("the holder is named", said.out.contains(&holder), said.out);
    equal("what is free is given back", [bound(second), bound(third)], [free(), native()]);
    equal("what is held stays", bound(first), ours());
    let expected = [
        format!("{first} Busy/InUse on vfio-pci"),
        format!("{second} Native/NoNativeDriver on none"),
        format!("{third} Native/OnNativeDriver on uio_pci_generic"),
    ];
    equal("the document says so", document(), expected.to_vec());
    wait_for(machine);
    equal("given back when it is free", command(&["give-back"]).code, 0);
    equal("nothing is left behind", bound(first), free());
    equal("once more is no error", command(&["give-back"]).code, 0);
    equal("the other vendor's device was never touched", bound(other), theirs);
    check("no unbind ever waited", !kernel_log().contains("blocked until released"), ());
    check("status tells what could be bound", status().iter().all(|line| line.contains("Unbound/NotBound")), status());
    equal("bind does once what the agent does for ever", command(&["bind"]).code, 0);
    equal("check agrees", command(&["check"]).code, 0);
    let json = command(&["give-back", "--json"]);
    check("and gives it back", json.code == 0 && json.out.contains("\"ready\": true"), json);
}

/// The holder is told once; the next time the command waits for its end, which does not take the kubelet's pauses.
fn wait_for(machine: Machine) {
    let wait = || command(&["give-back", "--wait-in-use=60"]);
    let said = wait();
    let holder = format!("process {} (exe) holds /dev/vfio/", machine.pid());
    let last_line = said.out.lines().last().unwrap_or_default();
    check("a holder is told at once, on the last line", said.code == 3 && last_line.contains(&holder), &said.out);
    let begun = Instant::now();
    let waiting = std::thread::spawn(wait);
    std::thread::sleep(Duration::from_secs(3));
    check("the next run waits for it", !waiting.is_finished(), ());
    drop(machine);
    let said = waiting.join().expect("a command");
    equal("and succeeds when it has ended", said.code, 0);
    check("within seconds", begun.elapsed() < Duration::from_secs(20), begun.elapsed());
    check("what was told is forgotten", !Path::new("/run/rebellions/vfio-manager/told").exists(), ());
}

/// The first process of a container inherits children of those that end before them.
fn orphans(agent: &Agent) -> anyhow::Result<()> {
    fs::copy("/init", "/run/rebellions/orphan")?;
    let said = agent.exec(&["/run/rebellions/orphan", "orphan"]);
    equal("a process leaves a child behind in the container", said.code, 0);
    let children = || {
        let pid = agent.pid();
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default()
    };
    eventually("the agent lets it go when it has ended", children, |children| children.trim().is_empty());
    fs::remove_file("/run/rebellions/orphan")?;
    Ok(())
}

fn memory(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or_default().trim().to_owned()
}

/// What the kernel has said so far.
pub fn kernel_log() -> String {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let Ok(mut log) = fs::File::options().read(true).custom_flags(nonblocking).open("/dev/kmsg") else {
        return String::new();
    };
    let (mut text, mut record) = (String::new(), [0; 8192]);
    while let Ok(read) = log.read(&mut record) {
        text += &String::from_utf8_lossy(&record[..read]);
    }
    text
}
