//! All writes to sysfs, and the guard that keeps a group from being opened meanwhile.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::decide::NO_VFIO_GROUPS;
use crate::facts::{Holder, Npu, VFIO_PCI};
use crate::step::Step;
use crate::sysfs::Tree;
use crate::verdict::Reason;

/// What clears a `driver_override`. An empty write does nothing. Source: Linux, `driver_set_override`; tried on 6.1 to 7.3.
const CLEAR: &str = "\n";

/// Carries out writes. Tests use an implementation that imitates the kernel.
pub trait Kernel: Send + Sync {
    /// One `write(2)` of `text` to a file of sysfs. May never return.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;

    /// Opens a device node that only one may have open; it is closed when the answer is dropped.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Any>>;
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

impl Kernel for Linux {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        // Never creates: what is missing is an error.
        OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Any>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }
}

/// A lock for each group's device node, which only one thread may have open: devices of a group are given back in parallel.
#[derive(Clone, Debug, Default)]
pub struct GroupLocks(Arc<Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>>>);

impl GroupLocks {
    fn of(&self, node: &Path) -> Arc<Mutex<()>> {
        let mut group_locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(group_locks.entry(node.into()).or_default())
    }
}

/// Why a step was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// Somebody has the device open.
    Held(Holder),
    /// With the reason.
    Refused(Reason, String),
}

/// Carries out a step. The caller checks its effect.
pub fn apply(
    kernel: &dyn Kernel,
    group_locks: &GroupLocks,
    tree: &Tree,
    npu: &Npu,
    step: &Step,
) -> Result<(), Failure> {
    let address = npu.address.to_string();
    let reservation = tree.device_folder(npu.address).join("driver_override");
    let write = |path: &Path, text: &str| kernel.write(path, text).map_err(|error| refused(path, &error));
    match step {
        Step::CheckUsage => Ok(()),
        Step::Reserve => write(&reservation, VFIO_PCI),
        Step::Unreserve => write(&reservation, CLEAR),
        Step::Unbind(driver) => {
            let node = npu.group.as_ref().filter(|_| npu.is_on_vfio()).map(|group| tree.group_node(&group.name));
            let turn = node.as_ref().map(|node| group_locks.of(node));
            let _turn = turn.as_ref().map(|turn| turn.lock().unwrap_or_else(PoisonError::into_inner));
            // While the group is open here, no virtual machine can open it.
            let guard = node.map(|node| hold_group(kernel, tree, &node)).transpose()?;
            let path = tree.driver_folder(driver).join("unbind");
            let result = kernel.write(&path, &address);
            drop(guard);
            match result {
                // It has lost the driver already.
                Err(error) if is(&error, rustix::io::Errno::NODEV) => Ok(()),
                result => result.map_err(|error| refused(&path, &error)),
            }
        }
        Step::Probe => write(&tree.sys.join("bus/pci/drivers_probe"), &address),
        Step::Bind => write(&tree.driver_folder(VFIO_PCI).join("bind"), &address),
    }
}

/// Opens the device node of the group, which the kernel allows one process only: success proves that no virtual machine has
/// it. A node that is not visible here may be visible to others.
fn hold_group(kernel: &dyn Kernel, tree: &Tree, node: &Path) -> Result<Box<dyn Any>, Failure> {
    kernel.open(node).map_err(|error| {
        let name = tree.node_name(node);
        if error.kind() == ErrorKind::ResourceBusy {
            return Failure::Held(Holder { pid: 0, command: String::new(), pod: None, what: name });
        }
        let hint = match error.kind() {
            ErrorKind::NotFound if !tree.has_vfio_groups() => format!("; {NO_VFIO_GROUPS}"),
            ErrorKind::NotFound => "; mount the host's /dev and name it with VFIO_DEV".to_owned(),
            _ => String::new(),
        };
        let why = format!("could not open {name} to see that nobody has it: {error}{hint}");
        Failure::Refused(Reason::UseUnknown, why)
    })
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        ErrorKind::ReadOnlyFilesystem => Reason::SysfsReadOnly,
        _ => Reason::WriteFailed,
    };
    Failure::Refused(reason, format!("could not write {}: {error}", path.display()))
}

fn is(error: &io::Error, errno: rustix::io::Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
