//! Processes in a folder that looks like `/proc`.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::fake::{FakeKernel, npu};

/// One NPU without a driver's nodes, and a folder for processes.
fn processes() -> (std::sync::Arc<FakeKernel>, Npu, Processes) {
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", npu(7));
    let npu = fake.worker().see(address).expect("an NPU");
    let folder = fake.sys().with_file_name("processes");
    (fake, npu, Processes { folder, must_be_the_hosts: false })
}

fn opens(processes: &Processes, pid: u32, descriptor: u32, node: &Path, info: &str) {
    let folder = processes.folder.join(pid.to_string());
    for folder in ["fd", "fdinfo"] {
        fs::create_dir_all(processes.folder.join(format!("{pid}/{folder}"))).expect("a folder");
    }
    fs::write(folder.join("comm"), "python3\n").expect("a file");
    symlink(node, folder.join(format!("fd/{descriptor}"))).expect("a link");
    fs::write(folder.join(format!("fdinfo/{descriptor}")), info).expect("a file");
}

const INFO: &str = "pos:\t0\nflags:\t0100002\nmnt_id:\t31\nino:\t400\n";

#[test]
fn a_holder_is_named_once_however_many_descriptors_it_has() {
    let (fake, npu, processes) = processes();
    let node = fake.dev().join("rbln0");
    opens(&processes, 71, 3, &node, INFO);
    opens(&processes, 71, 4, &node, INFO);
    opens(&processes, 72, 3, &node, INFO);
    let Usage::Held(holders) = processes.usage(&fake.worker().tree, &npu) else { panic!("in use") };
    let named: Vec<_> = holders.iter().map(ToString::to_string).collect();
    assert_eq!(named, ["process 71 (python3) holds /dev/rbln0", "process 72 (python3) holds /dev/rbln0"]);
}

/// The users of another NPU of the same driver: the driver counts them, and this NPU is free.
#[test]
fn openings_that_differ_are_told_apart_and_those_that_do_not_hide_nobody() {
    let read_only = INFO.replace("0100002", "0100000");
    let other_pod = INFO.replace("31", "32");
    let close_on_exec = INFO.replace("0100002", "02100002");
    let elsewhere_in_it = INFO.replace("pos:\t0", "pos:\t512");
    // What the second process has, beside what the first has; whether both are users of their own for sure.
    for (info, differs) in [
        (INFO, false),
        (close_on_exec.as_str(), false),
        (elsewhere_in_it.as_str(), false),
        (read_only.as_str(), true),
        (other_pod.as_str(), true),
    ] {
        let (fake, npu, processes) = processes();
        let other = fake.plug("0000:04:00.0", crate::fake::npu(8));
        assert_eq!(fake.driver(other), fake.driver(npu.address));
        opens(&processes, 71, 3, &fake.dev().join("rbln1"), INFO);
        opens(&processes, 72, 3, &fake.dev().join("rbln1"), info);
        for (count, is_free) in [(1, true), (2, differs), (3, false)] {
            fake.set_hidden_users(count);
            let usage = processes.usage(&fake.worker().tree, &npu);
            assert_eq!(usage == Usage::Free, is_free, "{info:?} {count}: {usage:?}");
            assert_eq!(matches!(usage, Usage::Held(_)), count == 3, "{info:?} {count}: {usage:?}");
        }
    }
}

#[test]
fn a_device_node_is_called_what_the_kernel_calls_it() {
    let (fake, npu, processes) = processes();
    let class = fake.sys().join("bus/pci/devices/0000:03:00.0/vfio-dev/vfio0");
    fs::create_dir_all(&class).expect("a folder");
    // Its number is that of a device which is there wherever this runs.
    fs::write(class.join("dev"), "1:3\n").expect("a file");
    fs::write(class.join("uevent"), "MAJOR=1\nMINOR=3\nDEVNAME=vfio/devices/vfio0\n").expect("a file");
    opens(&processes, 71, 3, Path::new("/dev/null"), INFO);
    let Usage::Held(holders) = processes.usage(&fake.worker().tree, &npu) else { panic!("in use") };
    assert_eq!(holders[0].what, "/dev/vfio/devices/vfio0");
}
