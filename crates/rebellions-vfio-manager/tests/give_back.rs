//! The command `give-back` on a tree of files: a process holds a device, an agent is at work, the kernel does not answer.

#![allow(clippy::expect_used, reason = "this is how a test fails")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rebellions_vfio_manager::records::Records;
use rustix::process::{Pid, Signal, kill_process};

/// One NPU that is bound to vfio-pci.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().expect("a folder"));
        let at = |path: &str| host.at(path);
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
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rebellions-vfio-manager"));
        command.arg("--sysfs").arg(self.at("sys")).arg("--dev").arg(self.at("dev"));
        command.arg("--state-dir").arg(self.at("run")).arg("--log-format=text").args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

/// Sends SIGTERM and waits for the end, which must be soon.
fn stop(process: Child) -> Output {
    let begun = Instant::now();
    let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process id")).expect("a process id");
    kill_process(pid, Signal::TERM).expect("a process");
    let output = process.wait_with_output().expect("a process");
    assert!(begun.elapsed() < Duration::from_secs(5), "it ended {:?} after SIGTERM", begun.elapsed());
    output
}

#[test]
fn a_holder_is_told_once_and_then_waited_for() {
    let host = Host::new();
    let node = File::open(host.at("dev/vfio/7")).expect("a node");
    let mut holder = Command::new("sleep").arg("60").stdin(node).spawn().expect("a process");

    let give_back = || host.command(&["give-back", "--wait-in-use=60"]);
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

#[test]
fn a_command_that_waits_for_an_agent_ends_when_it_is_told_to_stop() {
    let host = Host::new();
    let records = Records::of(&host.at("sys"), Some(host.at("run")));
    let _lock = records.lock().expect("a file").expect("free");
    for command in ["give-back", "bind"] {
        let mut process = host.command(&[command, "--wait=60"]).stderr(Stdio::piped()).spawn().expect("a command");
        let mut log = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut line = String::new();
        log.read_line(&mut line).expect("a line");
        assert!(line.contains("Waiting for the end of another process"), "{line}");
        let output = stop(process);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(5), "{command}: {said}");
        assert_eq!(
            said,
            format!("process {} is at work on the devices; wait until it has ended\n", std::process::id())
        );
    }
}

/// A pipe that nobody reads from is like a file of a kernel that does not come back from a write.
#[test]
fn a_command_whose_kernel_call_does_not_return_ends_when_it_is_told_to_stop() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let host = Host::new();
    let unbind = host.at("sys/bus/pci/drivers/vfio-pci/unbind");
    fs::remove_file(&unbind).expect("a file");
    mknodat(CWD, &unbind, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let mut process = host.command(&["give-back", "--wait-in-use=60"]).spawn().expect("a command");
    std::thread::sleep(Duration::from_secs(2));
    assert!(process.try_wait().expect("a process").is_none(), "it waits for the kernel");
    assert_eq!(stop(process).status.code(), Some(3));
}
