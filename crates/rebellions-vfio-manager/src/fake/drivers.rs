//! Drivers: what they take, the device nodes that they make, the users that they count.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::PoisonError;

use super::{FakeKernel, NATIVE};
use crate::facts::VFIO_PCI;
use crate::pci::Address;

impl FakeKernel {
    /// Loads a driver, which takes what it knows.
    pub fn load(&self, driver: &str) {
        let folder = self.sys().join("bus/pci/drivers").join(driver);
        fs::create_dir_all(&folder).expect("a folder");
        for file in ["bind", "unbind"] {
            fs::write(folder.join(file), "").expect("a file");
        }
        fs::create_dir_all(self.sys().join("module").join(driver.replace('-', "_"))).expect("a folder");
        self.state().drivers.insert(driver.into());
        self.update_refcnt();
        for address in self.addresses() {
            self.probe(address);
        }
    }

    /// The native driver counts the users of its devices, and `more`.
    pub fn set_hidden_users(&self, more: isize) {
        self.state().hidden = more;
        self.update_refcnt();
    }

    pub(super) fn update_refcnt(&self) {
        let _lock = self.refcnt_lock.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// The device node that the present driver has made.
    pub(super) fn node(&self, address: Address) -> Option<PathBuf> {
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

    pub(super) fn set_driver(&self, address: Address, driver: Option<&str>) {
        let link = self.folder(address).join("driver");
        if let Some(node) = self.node(address) {
            let is_last = !node.starts_with(self.dev().join("vfio")) || self.in_group_on_vfio(address) <= 1;
            if is_last && !self.is_held(address) {
                let _ = fs::remove_file(node);
            }
        }
        let _ = fs::remove_file(&link);
        self.update_refcnt();
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
    pub(super) fn probe(&self, address: Address) {
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
}
