//! Reads the kernel's picture of PCI devices. Nothing here writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::facts::{Function, Group, Host, Member, Npu, VFIO_PCI};
use crate::nodes::has_nodes;
use crate::pci::{Address, BASE_CLASS, BRIDGE_CLASS, VENDOR};

/// Where sysfs and device nodes are.
#[derive(Clone, Debug)]
pub struct Tree {
    /// `/sys`, or a tree like it.
    pub sys: PathBuf,
    /// `/dev`, or a tree like it.
    pub dev: PathBuf,
}

/// An NPU in the list of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpuEntry {
    /// Where it is.
    pub address: Address,
    /// Its PCI device id.
    pub device: u16,
    /// The driver that it is bound to.
    pub driver: Option<String>,
}

impl Tree {
    /// Every NPU, in the order of addresses. A device that vanishes meanwhile is left out.
    pub fn npus(&self) -> io::Result<Vec<NpuEntry>> {
        let mut found = vec![];
        for entry in fs::read_dir(self.devices())? {
            let name = entry?.file_name();
            let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if self.is_npu(address)
                && let Some(device) = self.number(address, "device").and_then(|id| u16::try_from(id).ok())
            {
                found.push(NpuEntry { address, device, driver: self.driver(address) });
            }
        }
        found.sort_by_key(|npu| npu.address);
        Ok(found)
    }

    /// All that is known of an NPU; `None` when it is gone. `is_wanted` tells which others are for virtual machines. Takes the
    /// device's lock, so that it does not return while an unbind of the device hangs.
    #[must_use]
    pub fn npu(&self, address: Address, is_wanted: &dyn Fn(Address, u16) -> bool) -> Option<Npu> {
        let mut npu = self.read_without_lock(address, is_wanted)?;
        npu.driver_override = self.text(address, "driver_override").filter(|text| !text.is_empty() && text != "(null)");
        Some(npu)
    }

    /// What is known of an NPU without taking the device's lock, which an unbind that hangs holds: all but its
    /// `driver_override`. Source: Linux, `driver_override_show` and `sriov_numvfs_show`, which take it.
    #[must_use]
    pub fn read_without_lock(&self, address: Address, is_wanted: &dyn Fn(Address, u16) -> bool) -> Option<Npu> {
        let driver = self.driver(address);
        Some(Npu {
            address,
            device: u16::try_from(self.number(address, "device")?).ok()?,
            is_plain_class: self.is_plain_class(address),
            function: self.function(address),
            has_leftover_nodes: driver.is_none() && has_nodes(self, address),
            driver,
            driver_override: None,
            group: self.group(address, is_wanted),
        })
    }

    /// Facts about the host.
    #[must_use]
    pub fn host(&self) -> Host {
        let has_entries = |path: PathBuf| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        Host {
            has_iommu: has_entries(self.sys.join("class/iommu")) || has_entries(self.sys.join("kernel/iommu_groups")),
            has_vfio_groups: self.has_vfio_groups(),
            vfio_pci: if self.has_driver(VFIO_PCI) { Ok(()) } else { Err("the driver vfio-pci is not there".into()) },
        }
    }

    /// Whether VFIO has device nodes per IOMMU group; assumed until VFIO is there. Source: Linux, `drivers/vfio/group.c` and
    /// `drivers/vfio/vfio_main.c`, which make these classes.
    #[must_use]
    pub fn has_vfio_groups(&self) -> bool {
        let class = |name: &str| self.sys.join("class").join(name).is_dir();
        class("vfio") || !class("vfio-dev")
    }

    /// Whether a PCI driver is there.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.driver_folder(name).is_dir()
    }

    /// Folder of a PCI driver.
    #[must_use]
    pub fn driver_folder(&self, name: &str) -> PathBuf {
        self.sys.join("bus/pci/drivers").join(name)
    }

    /// Folder of a device.
    #[must_use]
    pub fn device_folder(&self, address: Address) -> PathBuf {
        self.devices().join(address.to_string())
    }

    /// Device node of an IOMMU group.
    #[must_use]
    pub fn group_node(&self, group: &str) -> PathBuf {
        self.dev.join("vfio").join(group)
    }

    /// What a device node is called on the host, wherever we see it.
    #[must_use]
    pub fn node_name(&self, node: &Path) -> String {
        node.strip_prefix(&self.dev)
            .map_or_else(|_| node.display().to_string(), |name| format!("/dev/{}", name.display()))
    }

    fn devices(&self) -> PathBuf {
        self.sys.join("bus/pci/devices")
    }

    fn is_npu(&self, address: Address) -> bool {
        let class = self.number(address, "class").map(|class| class >> 16);
        self.number(address, "vendor") == Some(VENDOR.into()) && class == Some(BASE_CLASS.into())
    }

    fn is_plain_class(&self, address: Address) -> bool {
        self.number(address, "class").is_some_and(|class| class.is_multiple_of(0x100))
    }

    fn driver(&self, address: Address) -> Option<String> {
        link_name(&self.device_folder(address).join("driver"))
    }

    fn function(&self, address: Address) -> Function {
        let folder = self.device_folder(address);
        if folder.join("physfn").is_symlink() {
            return Function::Virtual { of: link_name(&folder.join("physfn")).and_then(|name| name.parse().ok()) };
        }
        let links = fs::read_dir(&folder).into_iter().flatten().flatten();
        let linked = links.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtfn")).count();
        Function::Physical { active: u32::try_from(linked).unwrap_or(u32::MAX) }
    }

    fn group(&self, address: Address, is_wanted: &dyn Fn(Address, u16) -> bool) -> Option<Group> {
        let name = link_name(&self.device_folder(address).join("iommu_group"))?;
        let folder = self.sys.join("kernel/iommu_groups").join(&name);
        let kind = fs::read_to_string(folder.join("name")).unwrap_or_default();
        let members = fs::read_dir(folder.join("devices")).into_iter().flatten().flatten();
        let mut others: Vec<_> = members
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|other| *other != address)
            .map(|other| self.member(other, is_wanted))
            .collect();
        others.sort_by_key(|member| member.address);
        Some(Group {
            // Source: Linux, `drivers/vfio/group.c`, which names the groups that it makes up itself.
            is_unsafe: kind.trim() == "vfio-noiommu",
            has_node: self.group_node(&name).exists(),
            others,
            name,
        })
    }

    fn member(&self, address: Address, is_wanted: &dyn Fn(Address, u16) -> bool) -> Member {
        let device = self.number(address, "device").and_then(|id| u16::try_from(id).ok()).unwrap_or(0);
        Member {
            address,
            driver: self.driver(address),
            is_bridge: self.number(address, "class").map(|class| class >> 8) == Some(BRIDGE_CLASS.into()),
            is_wanted: self.is_npu(address)
                && self.is_plain_class(address)
                && !matches!(self.function(address), Function::Physical { active: 1.. })
                && is_wanted(address, device),
        }
    }

    fn text(&self, address: Address, attribute: &str) -> Option<String> {
        let text = fs::read_to_string(self.device_folder(address).join(attribute)).ok()?;
        Some(text.trim().to_owned())
    }

    /// An attribute in hexadecimal, such as `0x1eff`.
    fn number(&self, address: Address, attribute: &str) -> Option<u32> {
        let text = self.text(address, attribute)?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    }
}

/// The last part of what a link points to.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}
