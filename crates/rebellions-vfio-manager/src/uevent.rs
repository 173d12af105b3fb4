//! The kernel's uevents.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::sync::mpsc;
use tracing::warn;

use crate::pci::Address;

/// The multicast group of what the kernel itself says; udev's is another.
const KERNEL: u32 = 1;

/// The kernel never sends more at once. Source: Linux, `UEVENT_BUFFER_SIZE`, and a head.
const BYTES: usize = 4096;

/// A uevent of a PCI device, or of a VFIO device or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// The PCI device, if it is about one.
    pub address: Option<Address>,
    /// Whether it is new.
    pub is_new: bool,
}

/// How many uevents the queue holds; the socket's buffer holds more.
const QUEUE: usize = 256;

/// A subscription.
#[derive(Debug)]
pub struct Uevents(mpsc::Receiver<Uevent>);

impl Uevents {
    /// Subscribes. Works in any network namespace that belongs to the first user namespace.
    pub fn subscribe() -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
        let (send, receive) = mpsc::channel(QUEUE);
        std::thread::spawn(move || listen(&socket, &send));
        Ok(Self(receive))
    }

    /// Waits for a uevent; for ever when the listening thread has ended, in which case periodic rescans go on.
    pub async fn next(&mut self) -> Uevent {
        match self.0.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// The uevents that are queued.
    pub fn more(&mut self) -> impl Iterator<Item = Uevent> {
        std::iter::from_fn(|| self.0.try_recv().ok())
    }
}

fn listen(socket: &OwnedFd, send: &mpsc::Sender<Uevent>) {
    let mut buffer = [0_u8; BYTES];
    loop {
        let event = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((bytes, _)) => read(&buffer[..bytes.min(BYTES)]),
            Err(Errno::INTR) => None,
            // Uevents were lost: any device may have changed.
            Err(Errno::NOBUFS) => Some(Uevent { address: None, is_new: false }),
            Err(error) => return warn!(err = %error, "Uevents have ended; looking now and then"),
        };
        if let Some(event) = event
            && send.blocking_send(event).is_err()
        {
            return;
        }
    }
}

/// Fields are texts with a zero after each: `add@/devices/…`, `ACTION=add`, `SUBSYSTEM=pci`, …
fn read(message: &[u8]) -> Option<Uevent> {
    let fields = || message.split(|byte| *byte == 0).filter_map(|field| std::str::from_utf8(field).ok());
    let value = |name: &str| fields().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    match value("SUBSYSTEM")? {
        "pci" | "vfio" | "vfio-dev" => {}
        _ => return None,
    }
    Some(Uevent {
        address: value("PCI_SLOT_NAME").and_then(|slot| slot.parse().ok()),
        is_new: value("ACTION") == Some("add"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uevents_of_pci_and_vfio_count() {
        let add = b"add@/devices/pci0000:00/0000:00:04.0\0ACTION=add\0SUBSYSTEM=pci\0PCI_SLOT_NAME=0000:00:04.0\0";
        let address = "0000:00:04.0".parse().ok();
        assert_eq!(read(add), Some(Uevent { address, is_new: true }));
        let bound = b"bind@/x\0ACTION=bind\0SUBSYSTEM=pci\0PCI_SLOT_NAME=0000:00:04.0\0DRIVER=vfio-pci\0";
        assert_eq!(read(bound), Some(Uevent { address, is_new: false }));
        let group = b"add@/devices/virtual/vfio/4\0ACTION=add\0SUBSYSTEM=vfio\0";
        assert_eq!(read(group), Some(Uevent { address: None, is_new: true }));
        assert_eq!(read(b"change@/x\0ACTION=change\0SUBSYSTEM=block\0"), None);
        assert_eq!(read(b"libudev\0\xff\xfe"), None);
    }
}
