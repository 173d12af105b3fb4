//! A tree of files that behaves like the kernel where it matters: a probe that finds no driver says nothing, only a newline
//! clears an override, an unbind of a device in use does not return. What is imitated was tried on Linux 6.1, 6.12 and 7.3.

mod drivers;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::facts::VFIO_PCI;
use crate::holders::Processes;
use crate::kernel::GroupLocks;
use crate::pass::Worker;
use crate::pci::Address;
use crate::records::Records;
use crate::selection::Selection;
use crate::sysfs::Tree;

/// The vendor's driver.
pub const NATIVE: &str = "rebellions";

/// So long that a test that waits for it has failed.
const FOREVER: Duration = Duration::from_secs(20);

/// A device to put into the tree.
#[derive(Clone, Debug)]
pub struct Card {
    pub vendor: u16,
    pub device: u16,
    pub class: u32,
    /// Drivers that know its id, the first that is loaded takes it.
    pub known_to: Vec<&'static str>,
    /// Its IOMMU group; `None` without an IOMMU.
    pub group: Option<u32>,
}

/// An NPU behind an IOMMU, in a group of its own.
pub fn npu(group: u32) -> Card {
    Card { vendor: 0x1eff, device: 0x1250, class: 0x12_0000, known_to: vec![NATIVE], group: Some(group) }
}

/// The tree, and what the kernel knows besides.
pub struct FakeKernel {
    root: tempfile::TempDir,
    state: Mutex<State>,
    released: Condvar,
    /// One write at a time, as under the locks of the kernel.
    write_lock: Mutex<()>,
    /// One update of the count of users at a time.
    refcnt_lock: Mutex<()>,
}

#[derive(Default)]
struct State {
    cards: BTreeMap<Address, Card>,
    drivers: BTreeSet<String>,
    /// Open files, by the device that they keep in use.
    held: BTreeMap<Address, File>,
    /// Device nodes that the manager has open.
    guarded: BTreeSet<PathBuf>,
    /// Users of the native driver who have no file open; negative when it counts too few.
    hidden: isize,
    /// What must never happen.
    violations: Vec<String>,
    /// Answers to the next writes of files of this name.
    faults: Vec<(&'static str, Errno)>,
    /// Every write: file and text.
    log: Vec<(String, String)>,
    /// A device that somebody opens right before the next write of a file of this name.
    open_before_write: Option<(&'static str, Address)>,
    /// A device that is pulled out right before the next write of a file of this name.
    unplug_before_write: Option<(&'static str, Address)>,
    is_read_only: bool,
}

impl FakeKernel {
    pub fn new() -> Arc<Self> {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups", "sys/class", "dev/vfio"]
        {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        let (state, write_lock, refcnt_lock) = (Mutex::default(), Mutex::default(), Mutex::default());
        let fake = Self { root, state, released: Condvar::new(), write_lock, refcnt_lock };
        fs::write(fake.sys().join("bus/pci/drivers_probe"), "").expect("a file");
        fs::create_dir(fake.proc()).expect("a folder");
        let own = std::process::id().to_string();
        symlink(Path::new("/proc").join(&own), fake.proc().join(own)).expect("a link");
        let fake = Arc::new(fake);
        for driver in [NATIVE, VFIO_PCI] {
            fake.load(driver);
        }
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn sys(&self) -> PathBuf {
        self.root.path().join("sys")
    }

    pub fn dev(&self) -> PathBuf {
        self.root.path().join("dev")
    }

    /// The processes that there are: this one.
    pub fn proc(&self) -> PathBuf {
        self.root.path().join("proc")
    }

    /// A worker on this tree.
    pub fn worker(self: &Arc<Self>) -> Worker {
        let tree = Tree { sys: self.sys(), dev: self.dev() };
        Worker {
            host: tree.host(),
            tree,
            processes: Processes { folder: self.proc(), must_be_the_hosts: false },
            kernel: Arc::new(writes::Shared(Arc::clone(self))),
            group_locks: GroupLocks::default(),
            selection: Selection::default(),
            records: Records::of(Path::new("/sys"), Some(self.root.path().join("run"))),
        }
    }

    /// Plugs a device in, and lets the drivers have it.
    pub fn plug(&self, address: &str, card: Card) -> Address {
        let address: Address = address.parse().expect("an address");
        let folder = self.folder(address);
        fs::create_dir_all(&folder).expect("a folder");
        let attributes = [
            ("vendor", format!("0x{:04x}\n", card.vendor)),
            ("device", format!("0x{:04x}\n", card.device)),
            ("class", format!("0x{:06x}\n", card.class)),
            ("driver_override", "(null)\n".into()),
        ];
        for (name, text) in attributes {
            fs::write(folder.join(name), text).expect("a file");
        }
        if let Some(group) = card.group {
            let members = self.sys().join(format!("kernel/iommu_groups/{group}/devices"));
            fs::create_dir_all(&members).expect("a folder");
            symlink(&folder, members.join(address.to_string())).expect("a link");
            symlink(members.parent().expect("a folder"), folder.join("iommu_group")).expect("a link");
        }
        self.state().cards.insert(address, card);
        self.probe(address);
        address
    }

    /// Pulls a device out. One that somebody has open stays until they close it, without a driver.
    pub fn unplug(&self, address: Address) {
        self.set_driver(address, None);
        if !self.state().held.contains_key(&address) {
            let card = self.state().cards.remove(&address);
            if let Some(group) = card.and_then(|card| card.group) {
                let members = self.sys().join(format!("kernel/iommu_groups/{group}/devices"));
                let _ = fs::remove_file(members.join(address.to_string()));
            }
            let _ = fs::remove_dir_all(self.folder(address));
        }
    }

    /// Switches a virtual function of a card on.
    pub fn enable_function(&self, card: Address, function: &str) {
        let folder = self.sys().join("bus/pci/devices");
        symlink(folder.join(function), self.folder(card).join("virtfn0")).expect("a link");
    }

    /// Somebody opens the device, if its driver has a node for it.
    pub fn hold(&self, address: Address) {
        let Some(node) = self.node(address) else { return };
        // The group's node is for one at a time.
        if !self.state().guarded.contains(&node) {
            let file = File::open(node).expect("a device node");
            self.state().held.insert(address, file);
            self.update_refcnt();
        }
    }

    /// The user of the device closes it again.
    pub fn release(&self, address: Address) {
        self.state().held.remove(&address);
        self.update_refcnt();
        self.released.notify_all();
    }

    /// Another descriptor of what the user of the device opened, as a child inherits one.
    pub fn duplicate(&self, address: Address) -> File {
        self.state().held.get(&address).and_then(|file| file.try_clone().ok()).expect("a user")
    }

    pub fn is_held(&self, address: Address) -> bool {
        self.state().held.contains_key(&address)
    }

    /// Somebody opens the device right before the next write of a file of this name.
    pub fn open_before_write(&self, file: &'static str, address: Address) {
        self.state().open_before_write = Some((file, address));
    }

    /// The device is pulled out right before the next write of a file of this name.
    pub fn unplug_before_write(&self, file: &'static str, address: Address) {
        self.state().unplug_before_write = Some((file, address));
    }

    /// The next write of a file of this name fails.
    pub fn fail(&self, file: &'static str, errno: Errno) {
        self.state().faults.push((file, errno));
    }

    /// Whether a write of a file of this name is still to fail.
    pub fn will_fail(&self, file: &str) -> bool {
        self.state().faults.iter().any(|(name, _)| *name == file)
    }

    pub fn read_only(&self) {
        self.state().is_read_only = true;
    }

    /// Somebody else writes.
    pub fn set(&self, address: Address, attribute: &str, text: &str) {
        fs::write(self.folder(address).join(attribute), text).expect("a file");
    }

    pub fn driver(&self, address: Address) -> Option<String> {
        let link = fs::read_link(self.folder(address).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }

    pub fn reservation(&self, address: Address) -> String {
        fs::read_to_string(self.folder(address).join("driver_override")).unwrap_or_default().trim().to_owned()
    }

    /// What must never happen and did.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// Every write so far, as `file=text`.
    pub fn writes(&self) -> Vec<String> {
        self.state().log.iter().map(|(file, text)| format!("{file}={}", text.escape_debug())).collect()
    }

    fn addresses(&self) -> Vec<Address> {
        self.state().cards.keys().copied().collect()
    }

    fn folder(&self, address: Address) -> PathBuf {
        self.sys().join("bus/pci/devices").join(address.to_string())
    }
}
