//! The emulated machine itself, as every suite has it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fetch::Fetched;

/// What of a machine differs from suite to suite.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// MiB of memory.
    pub memory: u16,
    /// Whether there is an IOMMU.
    pub has_iommu: bool,
    /// The kernel's command line; the console is on the first serial port.
    pub kernel: &'a str,
    /// The file to which the console goes. It is emptied first.
    pub console: &'a Path,
}

impl Machine<'_> {
    /// The command that starts it, without disks, network and NPUs. The machine ends when its kernel panics or reboots.
    #[must_use]
    pub fn command(&self, fetched: &Fetched) -> Command {
        let mut emulator = fetched.emulator();
        emulator.args(["-accel", "tcg,thread=multi", "-cpu", "qemu64", "-smp", "2", "-m", &self.memory.to_string()]);
        emulator.args(["-nodefaults", "-no-reboot", "-vga", "none", "-display", "none"]);
        emulator.arg("-serial").arg(format!("file:{}", self.console.display()));
        emulator.arg("-kernel").arg(fetched.kernel());
        emulator.args(["-append", &format!("console=ttyS0 quiet panic=-1 {}", self.kernel)]);
        if self.has_iommu {
            emulator.args(["-machine", "q35,kernel-irqchip=split"]);
            emulator.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        } else {
            emulator.args(["-machine", "q35"]);
        }
        emulator
    }
}

/// The argument that gives a machine the NPU of this name which is served at `socket`.
#[must_use]
pub fn npu(name: &str, socket: &Path) -> Value {
    json!({"driver": "vfio-user-pci", "id": name, "socket": {"type": "unix", "path": socket}})
}
