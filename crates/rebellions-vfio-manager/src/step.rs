//! What can be done to a device.

use crate::facts::{Npu, VFIO_PCI};
use crate::verdict::Reason;

/// One thing to do to a device. The kernel carries out each by one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Check whether anything uses it.
    CheckUsage,
    /// Let no driver but vfio-pci be bound to it.
    Reserve,
    /// Let any driver be bound to it.
    Unreserve,
    /// Take it from this driver.
    Unbind(String),
    /// Have the kernel find a driver for it.
    Probe,
    /// Bind it to vfio-pci by name, which gives a reason when it fails, unlike a probe.
    Bind,
}

impl Step {
    /// Why this step had no effect on a device, if it had none.
    #[must_use]
    pub fn missing_effect(&self, npu: &Npu) -> Option<(Reason, String)> {
        let (falls_short, reason, why) = match self {
            Self::CheckUsage | Self::Probe => return None,
            Self::Reserve => (!npu.is_reserved(), Reason::WriteFailed, "its driver_override did not change"),
            Self::Unreserve => (npu.is_reserved(), Reason::WriteFailed, "its driver_override is still there"),
            Self::Unbind(driver) => {
                (npu.driver.as_ref() == Some(driver), Reason::NotReleased, "its driver did not let go of it")
            }
            Self::Bind => (npu.driver.is_none(), Reason::NotTaken, "vfio-pci said yes and did not take it"),
        };
        falls_short.then(|| (reason, why.to_owned()))
    }

    /// Changes the facts as this step would when it succeeds.
    pub fn simulate(&self, npu: &mut Npu) {
        match self {
            Self::CheckUsage => {}
            Self::Reserve => npu.driver_override = Some(VFIO_PCI.into()),
            Self::Unreserve => npu.driver_override = None,
            Self::Unbind(_) => npu.driver = None,
            Self::Probe | Self::Bind => npu.driver.clone_from(&npu.driver_override),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CheckUsage => f.write_str("see who uses it"),
            Self::Reserve => f.write_str("write vfio-pci to its driver_override"),
            Self::Unreserve => f.write_str("clear its driver_override"),
            Self::Unbind(driver) => write!(f, "unbind it from {driver}"),
            Self::Probe => f.write_str("have the kernel find a driver for it"),
            Self::Bind => f.write_str("ask vfio-pci to take it"),
        }
    }
}
