//! Which devices each virtual machine has. What happens in it is told in the guest.

/// A virtual machine.
pub struct Scenario {
    /// Its name, for the guest as well.
    pub name: &'static str,
    /// Whether there is an IOMMU.
    pub has_iommu: bool,
    /// More for the kernel's command line.
    pub kernel: &'static str,
    /// NPUs by device id, each with where it is; without a place it can be plugged into the port of its number.
    pub npus: &'static [(u16, Option<&'static str>)],
    /// Whether there is a device of another vendor that looks like an NPU otherwise.
    pub has_foreign: bool,
}

const THREE: &[(u16, Option<&str>)] = &[(0x1250, Some("4")), (0x1250, Some("5")), (0x2130, Some("6"))];

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "node", has_iommu: true, kernel: "intel_iommu=on", npus: THREE, has_foreign: true },
    Scenario {
        name: "one-group",
        has_iommu: true,
        kernel: "intel_iommu=on",
        npus: &[(0x1250, Some("4.0")), (0x1250, Some("4.1")), (0x2130, Some("4.2"))],
        has_foreign: false,
    },
    Scenario { name: "iommu-off", has_iommu: true, kernel: "intel_iommu=off", npus: THREE, has_foreign: false },
    Scenario { name: "no-iommu", has_iommu: false, kernel: "", npus: THREE, has_foreign: false },
    Scenario {
        name: "hot-plug",
        has_iommu: true,
        kernel: "intel_iommu=on",
        npus: &[(0x1250, Some("4")), (0x1250, None), (0x2130, None)],
        has_foreign: false,
    },
    Scenario {
        name: "rough",
        has_iommu: true,
        kernel: "intel_iommu=on",
        npus: THREE.split_at(2).0,
        has_foreign: false,
    },
    Scenario { name: "nothing", has_iommu: true, kernel: "intel_iommu=on", npus: &[], has_foreign: true },
];
