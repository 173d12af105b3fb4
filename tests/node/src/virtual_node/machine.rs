//! The virtual machine that is a node.

use std::path::{Path, PathBuf};
use std::process::Command;

use vm_suite::emulator::{Machine, npu};
use vm_suite::fetch::Fetched;

use super::image::DISK;

/// Where its console is written to.
pub const CONSOLE: &str = "console";

/// The socket of its second serial port, by which it takes commands.
pub const COMMANDS: &str = "commands";

/// What its kernel starts.
pub const INIT: &str = "/opt/node/programs/node-process";

/// MiB: kubelet, containerd and a few pods use 300; the emulator takes as much of this machine as the node ever used, files
/// included.
const MEMORY: u16 = 1024;

/// The slot of the first NPU; those of disk and network come after them.
const FIRST_NPU: usize = 4;
const DISK_SLOT: u8 = 16;
const NETWORK_SLOT: u8 = 17;

/// The command that starts it.
pub fn command(fetched: &Fetched, folder: &Path, npus: &[PathBuf]) -> Command {
    let kernel = format!("intel_iommu=on root=/dev/nvme0n1 rw init={INIT} -- machine");
    let console = folder.join(CONSOLE);
    let machine = Machine { memory: MEMORY, has_iommu: true, kernel: &kernel, console: &console };
    let mut command = machine.command(fetched);
    command.arg("-serial").arg(format!("unix:{},server=on,wait=off", folder.join(COMMANDS).display()));
    // What the emulator has written is safe when it is killed, whatever the machine below it does later.
    command.arg("-drive").arg(format!("file={},format=raw,if=none,id=disk,cache=unsafe", folder.join(DISK).display()));
    command.args(["-device", &format!("nvme,drive=disk,serial=disk,addr={DISK_SLOT:x}")]);
    command.args(["-netdev", "user,id=network"]);
    command.args(["-device", &format!("virtio-net-pci,netdev=network,addr={NETWORK_SLOT:x},romfile=")]);
    for (number, socket) in npus.iter().enumerate() {
        let mut device = npu(&format!("npu{number}"), socket);
        device["addr"] = format!("{:x}", FIRST_NPU + number).into();
        command.arg("-device").arg(device.to_string());
    }
    command
}
