//! Who has a device open.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::descriptors::{Descriptor, Descriptors, holder, own_pid};
use crate::facts::{Holder, Npu, Usage, VFIO_PCI};
use crate::nodes::{Nodes, identity, own_nodes, vendor_nodes};
use crate::sysfs::{Tree, link_name};
use crate::use_count::{Users, users};

/// The kernel's inode number of the first PID namespace. Source: Linux, `include/linux/proc_ns.h`, `PROC_PID_INIT_INO`.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A driver that lets nobody open its devices, and that most kernels have built in, where it counts no users.
const STUB: &str = "pci-stub";

/// How often the users of a driver are counted before one that nobody sees is believed: some come and go at any moment.
const COUNTS: u32 = 3;

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
            return Usage::Undetermined(format!(
                "processes of the host are not visible in {}; mount the host's /proc and name it with VFIO_PROC",
                self.folder.display()
            ));
        }
        let mut nodes = own_nodes(tree, npu.address);
        if let Some(node) = npu.group.as_ref().map(|group| tree.group_node(&group.name)) {
            nodes.extend(identity(&node).map(|identity| (identity, node)));
        }
        let address = npu.address.to_string();
        match npu.driver {
            // vfio-pci's device has none of its native driver's nodes.
            Some(_) if npu.is_on_vfio() => {}
            Some(_) => nodes.extend(vendor_nodes(tree, |owner| owner.is_none_or(|owner| owner == address))),
            None => nodes.extend(vendor_nodes(tree, |owner| owner == Some(&address))),
        }
        let holders = self.holders(tree, &self.descriptors(&nodes).found, &nodes);
        if !holders.is_empty() {
            return Usage::Held(holders.into_iter().collect());
        }
        match npu.driver.as_deref() {
            // Of vfio-pci's devices, the group's device node tells at the last moment: only one may open it.
            None | Some(VFIO_PCI | STUB) => Usage::Free,
            Some(driver) => self.by_use_count(tree, driver),
        }
    }

    /// What the driver itself counts: it sees those who use a device without a descriptor, and those whom we cannot look at.
    fn by_use_count(&self, tree: &Tree, driver: &str) -> Usage {
        let module = link_name(&tree.driver_folder(driver).join("module")).unwrap_or_else(|| driver.to_owned());
        let folder = tree.sys.join("module").join(module.replace('-', "_"));
        let count = || fs::read_to_string(folder.join("refcnt")).ok()?.trim().parse::<i64>().ok();
        let others = tree.npus().unwrap_or_default().into_iter().filter(|npu| npu.driver.as_deref() == Some(driver));
        let mut nodes: Nodes = others.flat_map(|npu| own_nodes(tree, npu.address)).collect();
        nodes.extend(vendor_nodes(tree, |_| true));
        let mut usage = Usage::Free;
        for _ in 0..COUNTS {
            // Only what is open before and after the count was open when it was read.
            let before = self.descriptors(&nodes);
            let Some(count) = count() else {
                return Usage::Undetermined(format!(
                    "the driver {driver} does not count its users, so that one without a descriptor cannot be ruled \
                     out; keep {driver} from being loaded on this node: an NPU without a driver can be bound"
                ));
            };
            let modules = fs::read_dir(folder.join("holders")).map_or(0, Iterator::count);
            let known = before.in_both(&self.descriptors(&nodes));
            usage = match users(count, i64::try_from(modules).unwrap_or(i64::MAX), &known) {
                Users::Known => return Usage::Free,
                Users::Hidden { known } => Usage::Held(vec![Holder {
                    what: format!(
                        "the driver {driver}, which counts {count} users of which {known} are known; a memory mapping \
                         outlives its descriptor: look for the device's name in /proc/*/maps"
                    ),
                    ..Holder::default()
                }]),
                Users::Ambiguous => {
                    let holders = self.holders(tree, &known, &nodes);
                    Usage::Undetermined(ambiguity(driver, count, known.len(), &holders))
                }
            };
        }
        usage
    }

    /// Whether these are the processes of the host and not of a container.
    fn are_the_hosts(&self) -> bool {
        let namespace = |process: &str| fs::read_link(self.folder.join(process).join("ns/pid"));
        // Ours, when the first process may not be looked at.
        let first = namespace("1").or_else(|_| namespace("self"));
        first.is_ok_and(|name| name == Path::new(FIRST_PID_NAMESPACE))
    }

    fn descriptors(&self, nodes: &Nodes) -> Descriptors {
        // A tree that is not the kernel's own is held by its test.
        let own = own_pid(&self.folder).filter(|_| self.must_be_the_hosts);
        Descriptors::read(&self.folder, &nodes.keys().copied().collect(), own)
    }

    /// Each process once for each device node that it has open.
    fn holders<'a>(
        &self,
        tree: &Tree,
        descriptors: impl IntoIterator<Item = &'a Descriptor>,
        nodes: &Nodes,
    ) -> BTreeSet<Holder> {
        let opened: BTreeSet<_> = descriptors.into_iter().map(|one| (one.pid, one.identity)).collect();
        let named = opened.into_iter().filter_map(|(pid, identity)| Some((pid, nodes.get(&identity)?)));
        named.map(|(pid, node)| Holder { what: tree.node_name(node), ..holder(&self.folder, pid) }).collect()
    }
}

fn ambiguity(driver: &str, count: i64, descriptors: usize, holders: &BTreeSet<Holder>) -> String {
    let who: Vec<_> = holders.iter().map(ToString::to_string).collect();
    format!(
        "the driver {driver} counts {count} users, and {descriptors} descriptors of its devices are open of which some may \
         be one and the same, so that a user without a descriptor cannot be ruled out; it is clear when these have ended: {}",
        who.join(", ")
    )
}

#[cfg(test)]
mod tests;
