//! The command `give-back` on a tree of files, with a process that holds a device.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_holder_is_told_once_and_then_waited_for() {
    let root = tempfile::tempdir().expect("a folder");
    let at = |path: &str| root.path().join(path);
    let device = at("sys/bus/pci/devices/0000:03:00.0");
    for folder in ["sys/bus/pci/drivers/vfio-pci", "sys/kernel/iommu_groups/7/devices", "dev/vfio"] {
        fs::create_dir_all(at(folder)).expect("a folder");
    }
    fs::create_dir_all(&device).expect("a folder");
    let attributes =
        [("vendor", "0x1eff"), ("device", "0x1250"), ("class", "0x120000"), ("driver_override", "vfio-pci")];
    for (name, text) in attributes {
        fs::write(device.join(name), text).expect("a file");
    }
    symlink(at("sys/bus/pci/drivers/vfio-pci"), device.join("driver")).expect("a link");
    symlink(at("sys/kernel/iommu_groups/7"), device.join("iommu_group")).expect("a link");
    fs::write(at("sys/bus/pci/drivers/vfio-pci/unbind"), "").expect("a file");
    fs::write(at("dev/vfio/7"), "").expect("a node");
    let node = File::open(at("dev/vfio/7")).expect("a node");
    let mut holder = Command::new("sleep").arg("60").stdin(node).spawn().expect("a process");

    let give_back = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rebellions-vfio-manager"));
        command.arg("--sysfs").arg(at("sys")).arg("--dev").arg(at("dev")).arg("--state-dir").arg(at("run"));
        command.args(["give-back", "--wait-in-use=60"]).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    };
    let first = give_back().output().expect("a command");
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    let last_line = said.lines().last().unwrap_or_default();
    assert_eq!(first.status.code(), Some(3), "{said}");
    assert!(last_line.contains(&format!("process {} (sleep) holds /dev/vfio/7", holder.id())), "{said}");

    let mut second = give_back().spawn().expect("a command");
    std::thread::sleep(Duration::from_secs(2));
    assert!(second.try_wait().expect("a process").is_none(), "it waits for a holder that was told");
    holder.kill().and_then(|()| holder.wait()).expect("a process");
    // This tree is no kernel and lets go of nothing: what counts is that it goes on.
    let output = second.wait_with_output().expect("a command");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Failed (NotReleased)"), "{said}");
}
