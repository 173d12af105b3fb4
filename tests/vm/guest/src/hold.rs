//! Users of devices: a virtual machine, as far as a device can tell, and programs that use the native driver.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use vfio_ioctls::{VfioContainer, VfioDevice};

/// The region with the configuration space. Source: Linux, `VFIO_PCI_CONFIG_REGION_INDEX`.
const CONFIG: u32 = 7;

/// Opens a device, reads its vendor, says so, and keeps it until killed.
pub fn hold(address: &str) -> anyhow::Result<()> {
    let folder = Path::new("/sys/bus/pci/devices").join(address);
    let container = Arc::new(VfioContainer::new(None)?);
    let device = VfioDevice::new(&folder, container, false)?;
    let mut vendor = [0; 2];
    device.region_read(CONFIG, &mut vendor, 0);
    ensure!(vendor == [0xff, 0x1e], "the device says that its vendor is {vendor:02x?}");
    stay()
}

/// Opens a device node and has a child that inherits its descriptor.
pub fn fork(node: &str) -> anyhow::Result<()> {
    let file = File::open(node)?;
    let child = Command::new("/proc/self/exe").arg("linger").stdin(file.try_clone()?).spawn()?;
    ensure!(child.id() > 0, "no child");
    stay()
}

/// Keeps a device node open without a descriptor of it, as a memory mapping does: in a message that nobody receives.
pub fn hide(node: &str) -> anyhow::Result<()> {
    let file = File::open(node)?;
    let (sender, _receiver) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let descriptors = [file.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut buffer = SendAncillaryBuffer::new(&mut space);
    ensure!(buffer.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
    sendmsg(&sender, &[IoSlice::new(b"x")], &mut buffer, SendFlags::empty())?;
    drop(file);
    stay()
}

/// Lives as long as its parent.
pub fn linger() {
    let parent = rustix::process::getppid();
    while rustix::process::getppid() == parent {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says that the device is held, and keeps it until killed.
fn stay() -> anyhow::Result<()> {
    println!("held");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
