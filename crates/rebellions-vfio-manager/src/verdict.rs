//! States and reasons: the vocabulary of report, log, metrics and status.

use serde::Serialize;

use crate::facts::Holder;

/// Where a device stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum State {
    /// On vfio-pci, and a virtual machine can have it.
    Bound,
    /// Not on vfio-pci, and nothing keeps it from being bound.
    Unbound,
    /// In use, and left alone.
    Busy,
    /// The host does not allow it; the device is left with the driver that it has.
    Blocked,
    /// The last attempt failed; it is made again.
    Failed,
    /// Not for virtual machines.
    Excluded,
    /// The kernel has not come back from the last step.
    Stuck,
    /// Given back: not on vfio-pci, and any driver may be bound to it.
    Native,
}

/// Why, in one word. The spelling is API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// The driver link and the group's device node say so.
    Verified,
    /// Nothing was tried yet.
    NotBound,
    /// It is still to be given back.
    NotGivenBack,
    /// A process has it, or a virtual function of it, open.
    InUse,
    /// Whether it is in use cannot be told.
    UseUnknown,
    /// Its virtual functions are handed out: those are the ones to pass on.
    ActiveVirtualFunctions,
    /// The admin excluded it.
    NotSelected,
    /// Vendor and base class are an NPU's, the rest of the class is not.
    UnknownClass,
    /// This version does not know its device id.
    UnknownDeviceId,
    /// No IOMMU is on.
    NoIommu,
    /// An IOMMU is on, and this device is not behind it.
    NoIommuGroup,
    /// Other devices of its IOMMU group are with drivers of the host.
    IommuGroupShared,
    /// vfio-pci is not there.
    VfioPciMissing,
    /// `/sys` cannot be written.
    SysfsReadOnly,
    /// The kernel has no device nodes for IOMMU groups.
    NoVfioGroups,
    /// The group's device node is missing.
    VfioNodeMissing,
    /// The driver did not let go.
    NotReleased,
    /// vfio-pci did not take it.
    NotTaken,
    /// Another driver took it meanwhile.
    TakenByAnother,
    /// A write failed.
    WriteFailed,
    /// The kernel has not come back.
    KernelBlocked,
    /// It was unplugged.
    DeviceGone,
    /// It is with a driver of the host.
    OnNativeDriver,
    /// No driver took it; one will when it is loaded.
    NoNativeDriver,
    /// It is on vfio-pci, and it was not we who put it there.
    NotOurs,
}

/// Where a device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In one word.
    pub state: State,
    /// Why, in one word.
    pub reason: Reason,
    /// For people: what is the matter and what to do.
    pub message: String,
    /// Who uses it, if that is the matter.
    pub holders: Vec<Holder>,
}

impl Verdict {
    /// A verdict without holders.
    #[must_use]
    pub fn new(state: State, reason: Reason, message: impl Into<String>) -> Self {
        Self { state, reason, message: message.into(), holders: vec![] }
    }

    /// In use by these.
    #[must_use]
    pub fn busy(holders: &[Holder]) -> Self {
        let who: Vec<_> = holders.iter().map(ToString::to_string).collect();
        Self {
            state: State::Busy,
            reason: Reason::InUse,
            message: format!("in use, left alone: {}", who.join(", ")),
            holders: holders.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    /// An admin looks up what the status says.
    #[test]
    fn the_reference_names_every_state_and_reason() {
        let page = include_str!("../../../docs/reference/vfio-manager.md");
        let source = include_str!("verdict.rs");
        let body =
            |of: &str| source.split(&format!("pub enum {of} {{")).nth(1).and_then(|rest| rest.split("\n}").next());
        for of in ["State", "Reason"] {
            let variants = body(of).expect("an enum").lines().map(str::trim).filter(|line| !line.starts_with("///"));
            for variant in variants.map(|line| line.trim_end_matches(',')).filter(|line| !line.is_empty()) {
                assert!(page.contains(&format!("`{variant}`")), "docs/reference/vfio-manager.md: {variant}");
            }
        }
    }
}
