//! Who has a device open. Looks at every process, by the identity of what it has open and not by names: a container calls
//! its device nodes what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use crate::facts::{Holder, Npu, Usage};
use crate::pci::Address;
use crate::sysfs::Tree;

/// The kernel's inode number of the first PID namespace. Source: Linux, `include/linux/proc_ns.h`, `PROC_PID_INIT_INO`.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Names of the device nodes of a group of NPUs: whoever holds one may use any of them. Source: the vendor's driver.
const SHARED_NODES: [&str; 2] = ["rsd", "rblnfs"];

/// How an NPU's own device node is named. Source: the vendor's driver.
const NODE: &str = "rbln";

/// How deep below a PCI device its device nodes are described.
const DEPTH: u32 = 4;

/// What makes two opens one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    /// A device node, wherever it is and whatever it is called.
    Device(u32, u32),
    /// Anything else: file system and inode.
    File(u32, u32, u64),
}

/// Everybody who has something open, by what it is.
#[derive(Default)]
struct Opened {
    holders: BTreeMap<Identity, BTreeSet<Holder>>,
    /// How many files are open, all together.
    files: i64,
    /// Whether some process could not be looked at.
    is_partial: bool,
}

/// Where processes are seen.
#[derive(Clone, Debug)]
pub struct Processes {
    /// `/proc` of the host.
    pub folder: PathBuf,
    /// Whether it has to be the host's. A tree that is not the kernel's own has no processes but those that we see.
    pub must_be_the_hosts: bool,
}

impl Processes {
    /// Whether an NPU is in use.
    #[must_use]
    pub fn usage(&self, tree: &Tree, npu: &Npu) -> Usage {
        if self.must_be_the_hosts && !self.are_the_hosts() {
            return Usage::Untellable(format!(
                "processes of the host are not visible in {}; mount the host's /proc and name it with VFIO_PROC",
                self.folder.display()
            ));
        }
        let mut nodes = own_nodes(tree, npu.address);
        if let Some(node) = npu.group.as_ref().map(|group| tree.group_node(&group.name)) {
            nodes.extend(identity(&node).map(|identity| (identity, node)));
        }
        // A device that vfio-pci has, or no driver, has none of its native driver's nodes.
        let is_native = npu.driver.is_some() && !npu.is_on_vfio();
        if is_native {
            nodes.extend(vendor_nodes(tree, |owner| owner.is_none_or(|owner| owner == npu.address.to_string())));
        }
        let opened = self.opened(&nodes.keys().copied().collect());
        let holders: BTreeSet<_> = nodes
            .iter()
            .flat_map(|(identity, path)| {
                opened.holders.get(identity).into_iter().flatten().zip(std::iter::repeat(path))
            })
            .map(|(holder, path)| Holder { what: tree.node_name(path), ..holder.clone() })
            .collect();
        if !holders.is_empty() {
            return Usage::Held(holders.into_iter().collect());
        }
        match npu.driver.as_deref() {
            // Of vfio-pci's devices, the group's device node tells at the last moment: only one may open it.
            Some(driver) if is_native => self.by_use_count(tree, driver, opened.is_partial),
            _ => Usage::Free,
        }
    }

    /// What the driver itself counts: it sees those who use a device without having a file open, and those whom we cannot
    /// look at.
    fn by_use_count(&self, tree: &Tree, driver: &str, is_partial: bool) -> Usage {
        let module = link_name(&tree.driver_folder(driver).join("module")).unwrap_or_else(|| driver.to_owned());
        let folder = tree.sys.join("module").join(module.replace('-', "_"));
        let count = fs::read_to_string(folder.join("refcnt")).ok().and_then(|text| text.trim().parse::<i64>().ok());
        let Some(count) = count else {
            return if is_partial && self.must_be_the_hosts {
                let why =
                    format!("some processes of the host may not be looked at, and {driver} does not count its users");
                Usage::Untellable(why)
            } else {
                Usage::Free
            };
        };
        // Modules that build on this one count as users. So do those who have another NPU open.
        let modules = fs::read_dir(folder.join("holders")).map_or(0, Iterator::count);
        let others = tree.npus().unwrap_or_default().into_iter().filter(|npu| npu.driver.as_deref() == Some(driver));
        let mut nodes: BTreeMap<_, _> = others.flat_map(|npu| own_nodes(tree, npu.address)).collect();
        nodes.extend(vendor_nodes(tree, |_| true));
        let known = i64::try_from(modules).unwrap_or(i64::MAX) + self.opened(&nodes.keys().copied().collect()).files;
        if count <= known {
            return Usage::Free;
        }
        let what = format!("the driver {driver}, which counts {count} users of which {known} are known");
        Usage::Held(vec![Holder { pid: 0, command: String::new(), pod: None, what }])
    }

    /// Whether these are the processes of the host and not of a container.
    fn are_the_hosts(&self) -> bool {
        let namespace = |process: &str| fs::read_link(self.folder.join(process).join("ns/pid"));
        // Ours, when the first process may not be looked at.
        let first = namespace("1").or_else(|_| namespace("self"));
        first.is_ok_and(|name| name == Path::new(FIRST_PID_NAMESPACE))
    }

    fn opened(&self, wanted: &BTreeSet<Identity>) -> Opened {
        let mut opened = Opened::default();
        // Our own number where these processes are numbered.
        let own = link_name(&self.folder.join("self")).and_then(|name| name.parse().ok());
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let files = match fs::read_dir(entry.path().join("fd")) {
                Ok(files) => files,
                Err(error) => {
                    // A process that ended meanwhile holds nothing.
                    opened.is_partial |= error.kind() == std::io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            for file in files.flatten() {
                if let Some(identity) = identity(&file.path()).filter(|identity| wanted.contains(identity))
                    && !(Some(pid) == own && self.must_be_the_hosts)
                {
                    opened.files += 1;
                    opened.holders.entry(identity).or_default().insert(self.holder(pid));
                }
            }
        }
        opened
    }

    fn holder(&self, pid: u32) -> Holder {
        let folder = self.folder.join(pid.to_string());
        let command = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
        let pod = fs::read_to_string(folder.join("cgroup")).ok().and_then(|text| pod_of(&text));
        Holder { pid, command, pod, what: String::new() }
    }
}

/// The UID of the pod that a process's cgroup belongs to. Source: the kubelet's names of cgroups, `pod<uid>` by cgroupfs and
/// `…-pod<uid with underscores>.slice` by systemd.
fn pod_of(cgroup: &str) -> Option<String> {
    cgroup.split(['/', '\n']).find_map(|part| {
        let uid = part.rsplit_once("pod")?.1.trim_end_matches(".slice").replace('_', "-");
        let is_uid = uid.len() == 36 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uid.then_some(uid)
    })
}

/// Device nodes that sysfs describes below a device, whatever driver made them, each with its name.
fn own_nodes(tree: &Tree, address: Address) -> BTreeMap<Identity, PathBuf> {
    let described = described(&tree.device_folder(address), DEPTH).into_iter();
    described.map(|(name, identity)| (identity, tree.dev.join(name))).collect()
}

/// Device nodes of the vendor's driver. Some are for several NPUs; of others it may not be known whose they are.
fn vendor_nodes(tree: &Tree, is_about: impl Fn(Option<&str>) -> bool) -> BTreeMap<Identity, PathBuf> {
    let entries = fs::read_dir(&tree.dev).into_iter().flatten().flatten();
    let nodes = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_shared = SHARED_NODES.iter().any(|prefix| is_numbered(&name, prefix));
        is_shared || is_numbered(&name, NODE) && is_about(owner(tree, &name).as_deref())
    });
    nodes.filter_map(|entry| Some((identity(&entry.path())?, entry.path()))).collect()
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The PCI device that a device node of the vendor's driver belongs to.
fn owner(tree: &Tree, node: &str) -> Option<String> {
    link_name(&tree.sys.join("class/rebellions").join(node).join("device"))
}

/// Device nodes that sysfs describes in a folder and below, by name. Links lead elsewhere and are not followed.
fn described(folder: &Path, depth: u32) -> Vec<(String, Identity)> {
    let mut found = vec![];
    if let Ok(numbers) = fs::read_to_string(folder.join("dev"))
        && let Some((major, minor)) = numbers.trim().split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push((name, Identity::Device(major, minor)));
    }
    if depth > 0 {
        // The device itself is reached by a link.
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(below.flat_map(|entry| described(&entry.path(), depth - 1)));
    }
    found
}

/// What a path stands for. Does not wait for file systems that do not answer.
fn identity(path: &Path) -> Option<Identity> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO).ok()?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    Some(match kind {
        FileType::CharacterDevice | FileType::BlockDevice => Identity::Device(stat.stx_rdev_major, stat.stx_rdev_minor),
        _ => Identity::File(stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
    })
}

fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_cgroup_whoever_names_it() {
        let uid = "3f2a9c1e-0d4b-4a52-9d0e-6b0f7c1d2e3f";
        let by_systemd = "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod3f2a9c1e_0d4b_4a52_9d0e_6b0f7c1d2e3f.slice/cri-containerd-abc.scope\n";
        let by_cgroupfs = "12:pids:/kubepods/burstable/pod3f2a9c1e-0d4b-4a52-9d0e-6b0f7c1d2e3f/abc\n1:name=x:/\n";
        assert_eq!(pod_of(by_systemd).as_deref(), Some(uid));
        assert_eq!(pod_of(by_cgroupfs).as_deref(), Some(uid));
        assert_eq!(pod_of("0::/system.slice/podman.service\n"), None);
    }
}
