//! What a write to sysfs does, and the opening of a group's device node.

use std::any::Any;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{FOREVER, FakeKernel, State};
use crate::facts::VFIO_PCI;
use crate::kernel::Kernel;
use crate::pci::Address;

impl FakeKernel {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let lock = self.write_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let name_of =
            |path: Option<&Path>| path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let file = name_of(Some(path));
        self.act_before_write(&file);
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
        if !path.exists() {
            return Err(Errno::NOENT.into());
        }
        let driver = name_of(path.parent());
        let target = || {
            let address = text.trim().parse().ok().filter(|address| self.state().cards.contains_key(address));
            address.ok_or_else(|| io::Error::from(Errno::NODEV))
        };
        match file.as_str() {
            "driver_override" if text.len() >= 4096 => return Err(Errno::INVAL.into()),
            "driver_override" if text.is_empty() => {}
            "driver_override" if text.trim().is_empty() => fs::write(path, "(null)\n")?,
            "driver_override" => fs::write(path, format!("{}\n", text.trim()))?,
            "drivers_probe" => self.probe(target()?),
            "bind" => self.bind(target()?, &driver)?,
            "unbind" => self.unbind(target()?, &driver, lock)?,
            other => panic!("nobody writes {other}"),
        }
        Ok(())
    }

    fn act_before_write(&self, file: &str) {
        let open = self.state().open_before_write.take_if(|(name, _)| *name == file);
        // A device of the native driver can be opened in the instant before the unbind, and no manager can prevent it. A
        // device of vfio-pci can be held, so that its unbind must be safe.
        if let Some((_, address)) = open
            && (file != "unbind" || self.driver(address).as_deref() == Some(VFIO_PCI))
        {
            self.hold(address);
        }
        let unplug = self.state().unplug_before_write.take_if(|(name, _)| *name == file);
        if let Some((_, address)) = unplug {
            self.unplug(address);
        }
    }

    fn bind(&self, address: Address, driver: &str) -> Result<(), Errno> {
        if self.driver(address).is_some() {
            return Err(Errno::BUSY);
        }
        let card = self.state().cards.get(&address).cloned().ok_or(Errno::NODEV)?;
        if self.reservation(address) != driver && !card.known_to.contains(&driver) {
            return Err(Errno::NODEV);
        }
        if driver == VFIO_PCI && card.group.is_none() {
            return Err(Errno::INVAL);
        }
        self.set_driver(address, Some(driver));
        Ok(())
    }

    /// Does not return while the device is in use, and lets other writes through meanwhile.
    fn unbind(&self, address: Address, driver: &str, lock: MutexGuard<()>) -> Result<(), Errno> {
        if self.driver(address).as_deref() != Some(driver) {
            return Err(Errno::NODEV);
        }
        if self.is_held(address) {
            self.state().violations.push(format!("{address} was taken from {driver} while in use"));
            // The link goes at once, the call comes back when the last user has gone.
            let _ = fs::remove_file(self.folder(address).join("driver"));
            drop(lock);
            let held = |state: &mut State| state.held.contains_key(&address);
            let waited = self.released.wait_timeout_while(self.state(), FOREVER, held);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
        self.set_driver(address, None);
        Ok(())
    }

    fn is_open(&self, node: &Path) -> bool {
        let state = self.state();
        let held = state.held.keys().filter_map(|address| state.cards.get(address)?.group);
        let mut nodes = held.map(|group| self.dev().join(format!("vfio/{group}")));
        nodes.any(|open| open == node) || state.guarded.contains(node)
    }
}

pub(super) struct Shared(pub(super) Arc<FakeKernel>);

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
struct Guard(Arc<FakeKernel>, PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.state().guarded.remove(&self.1);
    }
}
