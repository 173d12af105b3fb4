//! A tree of files that behaves like the kernel where it matters: a probe that finds no driver says nothing, only a newline
//! clears an override, an unbind of a device in use does not return. What is imitated was tried on Linux 6.1, 6.12 and 7.3.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::facts::VFIO_PCI;
use crate::holders::Processes;
use crate::kernel::{GroupLocks, Kernel};
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

/// The kernel.
pub struct Fake {
    root: tempfile::TempDir,
    state: Mutex<State>,
    released: Condvar,
    /// A write is carried out as a whole, as the kernel's locks see to it.
    one_at_a_time: Mutex<()>,
    /// So is a change of the count of users.
    counting: Mutex<()>,
}

#[derive(Default)]
struct State {
    cards: BTreeMap<Address, Card>,
    drivers: BTreeSet<String>,
    /// Open files, by the device that they keep in use.
    held: BTreeMap<Address, File>,
    /// Device nodes that we have open ourselves.
    guarded: BTreeSet<PathBuf>,
    /// Users of the native driver who have no file open; negative when it counts too few.
    hidden: isize,
    /// What must never happen.
    violations: Vec<String>,
    /// Answers to the next writes of files of this name.
    faults: Vec<(&'static str, Errno)>,
    /// Every write: file and text.
    log: Vec<(String, String)>,
    /// Something that happens right before the next write of a file of this name.
    ambush: Option<(&'static str, Address)>,
    /// A device that is pulled out right before the next write of a file of this name.
    vanishing: Option<(&'static str, Address)>,
    is_read_only: bool,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups", "sys/class", "dev/vfio"]
        {
            fs::create_dir_all(root.path().join(folder)).expect("a folder");
        }
        let (state, one_at_a_time, counting) = (Mutex::default(), Mutex::default(), Mutex::default());
        let fake = Self { root, state, released: Condvar::new(), one_at_a_time, counting };
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
            kernel: Arc::new(Shared(Arc::clone(self))),
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
    pub fn pull(&self, address: Address) {
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

    /// Loads a driver, which takes what it knows.
    pub fn load(&self, driver: &str) {
        let folder = self.sys().join("bus/pci/drivers").join(driver);
        fs::create_dir_all(&folder).expect("a folder");
        for file in ["bind", "unbind"] {
            fs::write(folder.join(file), "").expect("a file");
        }
        fs::create_dir_all(self.sys().join("module").join(driver.replace('-', "_"))).expect("a folder");
        self.state().drivers.insert(driver.into());
        self.count();
        for address in self.addresses() {
            self.probe(address);
        }
    }

    /// The native driver counts the users of its devices, and `more`.
    pub fn count_more(&self, more: isize) {
        self.state().hidden = more;
        self.count();
    }

    fn count(&self) {
        let _turn = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let held: Vec<_> = self.state().held.keys().copied().collect();
        let users = held.into_iter().filter(|address| self.driver(*address).as_deref() == Some(NATIVE)).count();
        let count = isize::try_from(users).unwrap_or(isize::MAX) + self.state().hidden;
        let file = self.sys().join("module").join(NATIVE).join("refcnt");
        let unfinished = file.with_extension("new");
        // The driver may be unloaded.
        let _ = fs::write(&unfinished, format!("{count}\n")).and_then(|()| fs::rename(&unfinished, file));
    }

    /// Unloads a driver, which lets go of what it has, as `rmmod` does when nobody uses it.
    pub fn unload(&self, driver: &str) {
        for address in self.addresses() {
            if self.driver(address).as_deref() == Some(driver) {
                if self.state().held.contains_key(&address) {
                    return;
                }
                self.set_driver(address, None);
            }
        }
        self.state().drivers.remove(driver);
        let _ = fs::remove_dir_all(self.sys().join("module").join(driver.replace('-', "_")));
        let _ = fs::remove_dir_all(self.sys().join("bus/pci/drivers").join(driver));
    }

    /// Somebody opens the device, if its driver has a node for it.
    pub fn hold(&self, address: Address) {
        let Some(node) = self.node(address) else { return };
        // The group's node is for one at a time.
        if !self.state().guarded.contains(&node) {
            let file = File::open(node).expect("a device node");
            self.state().held.insert(address, file);
            self.count();
        }
    }

    /// Switches a virtual function of a card on.
    pub fn enable_function(&self, card: Address, function: &str) {
        let folder = self.sys().join("bus/pci/devices");
        symlink(folder.join(function), self.folder(card).join("virtfn0")).expect("a link");
    }

    /// They close it again.
    pub fn release(&self, address: Address) {
        self.state().held.remove(&address);
        self.count();
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
    pub fn ambush(&self, file: &'static str, address: Address) {
        self.state().ambush = Some((file, address));
    }

    /// The device is pulled out right before the next write of a file of this name.
    pub fn vanish(&self, file: &'static str, address: Address) {
        self.state().vanishing = Some((file, address));
    }

    /// The next write of a file of this name fails.
    pub fn fail(&self, file: &'static str, errno: Errno) {
        self.state().faults.push((file, errno));
    }

    /// Whether a write of a file of this name is still to fail.
    pub fn is_to_fail(&self, file: &str) -> bool {
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

    /// The device node that the present driver has made.
    fn node(&self, address: Address) -> Option<PathBuf> {
        match self.driver(address)?.as_str() {
            VFIO_PCI => Some(self.dev().join(format!("vfio/{}", self.state().cards.get(&address)?.group?))),
            NATIVE => Some(self.dev().join(self.native_node(address))),
            _ => None,
        }
    }

    fn native_node(&self, address: Address) -> String {
        let number = self.state().cards.keys().position(|one| *one == address).unwrap_or(0);
        format!("rbln{number}")
    }

    fn set_driver(&self, address: Address, driver: Option<&str>) {
        let link = self.folder(address).join("driver");
        if let Some(node) = self.node(address) {
            let is_last = !node.starts_with(self.dev().join("vfio")) || self.in_group_on_vfio(address) <= 1;
            if is_last && !self.is_held(address) {
                let _ = fs::remove_file(node);
            }
        }
        let _ = fs::remove_file(&link);
        self.count();
        if let Some(driver) = driver {
            symlink(self.sys().join("bus/pci/drivers").join(driver), &link).expect("a link");
            if let Some(node) = self.node(address) {
                if driver == NATIVE {
                    let name = self.native_node(address);
                    let class = self.sys().join("class/rebellions").join(name);
                    fs::create_dir_all(&class).expect("a folder");
                    let _ = fs::remove_file(class.join("device"));
                    symlink(self.folder(address), class.join("device")).expect("a link");
                }
                if !node.exists() {
                    // Under another name first: whoever looks meanwhile would take us for a user.
                    let unfinished = node.with_extension("new");
                    fs::write(&unfinished, "").and_then(|()| fs::rename(&unfinished, node)).expect("a node");
                }
            }
        }
    }

    fn in_group_on_vfio(&self, address: Address) -> usize {
        let group = self.state().cards.get(&address).and_then(|card| card.group);
        let others = self.addresses().into_iter().filter(|other| {
            let theirs = self.state().cards.get(other).and_then(|card| card.group);
            theirs == group && self.driver(*other).as_deref() == Some(VFIO_PCI)
        });
        others.count()
    }

    /// As the kernel finds a driver for a device: silently, and perhaps none.
    fn probe(&self, address: Address) {
        if self.driver(address).is_some() {
            return;
        }
        let Some(card) = self.state().cards.get(&address).cloned() else { return };
        let reservation = self.reservation(address);
        let drivers = self.state().drivers.clone();
        let chosen = if reservation == "(null)" || reservation.is_empty() {
            card.known_to.iter().find(|driver| drivers.contains(**driver)).map(|driver| (*driver).to_owned())
        } else {
            drivers.contains(&reservation).then_some(reservation)
        };
        // vfio-pci refuses what no IOMMU covers, and nobody hears of it.
        let chosen = chosen.filter(|driver| driver != VFIO_PCI || card.group.is_some());
        if let Some(driver) = chosen {
            self.set_driver(address, Some(&driver));
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ambush = self.state().ambush.take_if(|(name, _)| *name == file);
        // Nothing keeps anybody from opening a device of the native driver in the instant before it is unbound; only
        // vfio-pci's can be held. So that is not asked for.
        if let Some((_, address)) = ambush
            && (file != "unbind" || self.driver(address).as_deref() == Some(VFIO_PCI))
        {
            self.hold(address);
        }
        let vanishing = self.state().vanishing.take_if(|(name, _)| *name == file);
        if let Some((_, address)) = vanishing {
            self.pull(address);
        }
        let fault = {
            let mut state = self.state();
            let at = state.faults.iter().position(|(name, _)| *name == file);
            state.log.push((file.clone(), text.to_owned()));
            at.map(|at| state.faults.remove(at).1)
        };
        if self.state().is_read_only {
            return Err(Errno::ROFS.into());
        }
        if let Some(errno) = fault {
            return Err(errno.into());
        }
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        if !path.exists() {
            return Err(Errno::NOENT.into());
        }
        let no_device = || io::Error::from(Errno::NODEV);
        let target =
            |text: &str| text.trim().parse::<Address>().ok().filter(|one| self.state().cards.contains_key(one));
        match file.as_str() {
            "driver_override" if text.len() >= 4096 => return Err(Errno::INVAL.into()),
            "driver_override" if text.is_empty() => {}
            "driver_override" if text.trim().is_empty() => fs::write(path, "(null)\n")?,
            "driver_override" => fs::write(path, format!("{}\n", text.trim()))?,
            "drivers_probe" => self.probe(target(text).ok_or_else(no_device)?),
            "bind" => {
                let address = target(text).ok_or_else(no_device)?;
                if self.driver(address).is_some() {
                    return Err(Errno::BUSY.into());
                }
                let is_known =
                    self.state().cards.get(&address).is_some_and(|card| card.known_to.contains(&parent.as_str()));
                if self.reservation(address) != parent && !is_known {
                    return Err(Errno::NODEV.into());
                }
                if parent == VFIO_PCI && self.state().cards.get(&address).is_some_and(|card| card.group.is_none()) {
                    return Err(Errno::INVAL.into());
                }
                self.set_driver(address, Some(&parent));
            }
            "unbind" => {
                let address = target(text).ok_or_else(no_device)?;
                if self.driver(address).as_deref() != Some(&parent) {
                    return Err(no_device());
                }
                if self.is_held(address) {
                    self.state().violations.push(format!("{address} was taken from {parent} while in use"));
                    // The link goes at once, the call comes back when the last user has gone.
                    let _ = fs::remove_file(self.folder(address).join("driver"));
                    drop(turn);
                    let held = |state: &mut State| state.held.contains_key(&address);
                    let waited = self.released.wait_timeout_while(self.state(), FOREVER, held);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                self.set_driver(address, None);
            }
            other => panic!("nobody writes {other}"),
        }
        Ok(())
    }

    fn is_open(&self, node: &Path) -> bool {
        let state = self.state();
        let held = state.held.keys().filter_map(|address| state.cards.get(address)?.group);
        let mut nodes = held.map(|group| self.dev().join(format!("vfio/{group}")));
        nodes.any(|open| open == node) || state.guarded.contains(node)
    }
}

struct Shared(Arc<Fake>);

impl Kernel for Shared {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        self.0.write(path, text)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Any>> {
        if self.0.is_open(path) {
            return Err(Errno::BUSY.into());
        }
        if !path.exists() {
            return Err(Errno::NOENT.into());
        }
        self.0.state().guarded.insert(path.into());
        Ok(Box::new(Guard(Arc::clone(&self.0), path.into())))
    }
}

/// A device node that is open.
struct Guard(Arc<Fake>, PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.state().guarded.remove(&self.1);
    }
}
