//! Device nodes through which an NPU can be opened, each with its name on the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use crate::pci::Address;
use crate::sysfs::{Tree, link_name};

/// Names of the device nodes of a group of NPUs: whoever holds one may use any of them. Source: the vendor's driver.
const SHARED_NODES: [&str; 2] = ["rsd", "rblnfs"];

/// How an NPU's own device node is named. Source: the vendor's driver.
const NODE: &str = "rbln";

/// How deep below a PCI device its device nodes are described.
const DEPTH: u32 = 4;

/// Tells whether two paths lead to one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// A device node, by major and minor number, wherever it is and whatever it is called.
    Device(u32, u32),
    /// Anything else, by file system and inode.
    File(u32, u32, u64),
}

/// Device nodes, each with where it is on the host below [`Tree::dev`].
pub type Nodes = BTreeMap<Identity, PathBuf>;

/// Device nodes that sysfs describes below a device, whichever driver made them.
pub fn own_nodes(tree: &Tree, address: Address) -> Nodes {
    let described = described(&tree.device_folder(address), DEPTH).into_iter();
    described.map(|(name, identity)| (identity, tree.dev.join(name))).collect()
}

/// Device nodes of the vendor's driver whose NPU is wanted; `None` where they stand for several NPUs, or it is not known.
pub fn vendor_nodes(tree: &Tree, is_wanted: impl Fn(Option<&str>) -> bool) -> Nodes {
    let entries = fs::read_dir(&tree.dev).into_iter().flatten().flatten();
    let nodes = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_shared = SHARED_NODES.iter().any(|prefix| is_numbered(&name, prefix));
        let owner = || owner(tree, &name).filter(|_| !is_shared);
        (is_shared || is_numbered(&name, NODE)) && is_wanted(owner().as_deref())
    });
    nodes.filter_map(|entry| Some((identity(&entry.path())?, entry.path()))).collect()
}

/// Whether a driver has made device nodes for a device.
pub fn has_nodes(tree: &Tree, address: Address) -> bool {
    let name = address.to_string();
    !own_nodes(tree, address).is_empty() || !vendor_nodes(tree, |owner| owner == Some(&name)).is_empty()
}

/// What a path stands for. Does not wait for file systems that do not answer.
pub fn identity(path: &Path) -> Option<Identity> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO).ok()?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    Some(match kind {
        FileType::CharacterDevice | FileType::BlockDevice => Identity::Device(stat.stx_rdev_major, stat.stx_rdev_minor),
        _ => Identity::File(stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
    })
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The PCI device that a device node of the vendor's driver belongs to.
fn owner(tree: &Tree, node: &str) -> Option<String> {
    link_name(&tree.sys.join("class/rebellions").join(node).join("device"))
}

/// Device nodes that sysfs describes in a folder and below. Links lead elsewhere and are not followed.
fn described(folder: &Path, depth: u32) -> Vec<(String, Identity)> {
    let mut found = vec![];
    if let Ok(numbers) = fs::read_to_string(folder.join("dev"))
        && let Some((major, minor)) = numbers.trim().split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        found.push((node_name(folder), Identity::Device(major, minor)));
    }
    if depth > 0 {
        // The device itself is reached by a link.
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(below.flat_map(|entry| described(&entry.path(), depth - 1)));
    }
    found
}

/// The name of a device's node below `/dev`. Only the kernel knows it: `vfio0` of the class `vfio-dev` is
/// `vfio/devices/vfio0`.
fn node_name(folder: &Path) -> String {
    let uevent = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    let named = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    named.map_or_else(|| folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), ToOwned::to_owned)
}
