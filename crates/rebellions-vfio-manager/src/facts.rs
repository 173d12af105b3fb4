//! What is known of an NPU and of its host, as plain data. Facts are read anew before every step.

use serde::Serialize;

use crate::pci::Address;
use crate::selection::Choice;

/// The driver that hands a device to user space. Source: Linux, `drivers/vfio/pci/vfio_pci.c`.
pub const VFIO_PCI: &str = "vfio-pci";

/// An NPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Npu {
    /// Where it is.
    pub address: Address,
    /// Its PCI device id.
    pub device: u16,
    /// Whether its class is that of an NPU to the last digit: `12xx00`.
    pub is_plain_class: bool,
    /// Physical or virtual.
    pub function: Function,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Whether a device without a driver still has device nodes of the one that it had.
    pub has_leftover_nodes: bool,
    /// Its `driver_override`: the only driver that may be bound to it.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None` without an IOMMU.
    pub group: Option<Group>,
}

/// Whether a PCI function is a physical or a virtual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// A card, with so many virtual functions switched on.
    Physical {
        /// How many.
        active: u32,
    },
    /// A part of the card at this address, if that is known.
    Virtual {
        /// The card.
        of: Option<Address>,
    },
}

/// An IOMMU group: devices that can reach each other, so that only all of them together can be handed over safely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number, as in `/dev/vfio/NUMBER`.
    pub name: String,
    /// Whether it stands for no IOMMU at all (the kernel's unsafe mode).
    pub is_unsafe: bool,
    /// Whether its device node exists.
    pub has_node: bool,
    /// The others in it.
    pub others: Vec<Member>,
}

/// Another device of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: Address,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// A bridge takes no part in what the group does.
    pub is_bridge: bool,
    /// An NPU that is for virtual machines as well: it will be bound, too.
    pub is_wanted: bool,
}

/// What is true of all NPUs of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Whether an IOMMU is on at all.
    pub has_iommu: bool,
    /// Whether VFIO has device nodes per IOMMU group, `/dev/vfio/N`. A kernel without `CONFIG_VFIO_GROUP` has only those of
    /// iommufd, `/dev/vfio/devices/vfioN`.
    pub has_vfio_groups: bool,
    /// Whether vfio-pci is there, or why it is not.
    pub vfio_pci: Result<(), String>,
}

/// Who has a device open.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// Process id on the host; 0 when it could not be found.
    pub pid: u32,
    /// Name of its program.
    pub command: String,
    /// UID of its pod, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// What it holds: `/dev/rbln0`, `/dev/vfio/12`.
    pub what: String,
}

/// Whether a device is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Nobody has looked since the last step.
    NotChecked,
    /// It is not.
    Free,
    /// It is.
    Held(Vec<Holder>),
    /// It cannot be told, with the reason.
    Undetermined(String),
}

/// All that is known of one device when it is decided about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The device.
    pub npu: &'a Npu,
    /// What the admin wants of it.
    pub choice: Choice,
    /// The host that it is in.
    pub host: &'a Host,
    /// Whether it is in use.
    pub usage: &'a Usage,
}

impl Npu {
    /// Whether it is bound to vfio-pci.
    #[must_use]
    pub fn is_on_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_PCI)
    }

    /// Whether another process may be unbinding it: it has no driver, and device nodes of a driver still exist. While a user
    /// keeps such a device open, writes to it do not return.
    #[must_use]
    pub fn may_be_unbinding(&self) -> bool {
        let has_group_node = self.group.as_ref().is_some_and(|group| group.has_node);
        self.driver.is_none() && (has_group_node || self.has_leftover_nodes)
    }

    /// Whether its `driver_override` is vfio-pci.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.driver_override.as_deref() == Some(VFIO_PCI)
    }
}

impl Member {
    /// Whether it keeps the group from being handed over, and will not be bound itself.
    #[must_use]
    pub fn is_in_the_way(&self) -> bool {
        !self.is_wanted && self.is_in_use()
    }

    /// Whether it keeps the group from being handed over as it is now. Source: Linux, `vfio_dev_viable`: free devices, bridges and stubs do not.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let harmless = |driver: &str| matches!(driver, "pcieport" | "pci-stub") || driver.starts_with("vfio");
        !self.is_bridge && self.driver.as_deref().is_some_and(|driver| !harmless(driver))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pod = self.pod.as_ref().map_or_else(String::new, |pod| format!(" of pod {pod}"));
        if self.pid == 0 {
            return write!(f, "somebody holds {}{pod}", self.what);
        }
        write!(f, "process {} ({}){pod} holds {}", self.pid, self.command, self.what)
    }
}
