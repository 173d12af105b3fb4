//! Node labels, names and the table of components: what every program agrees on, each string written once.
//!
//! Source of the label keys and of the components per workload: the operator's documented contract
//! (`docs/concepts.md`), which is that of its predecessor, petasus accelerator-operator.

use crate::{ComponentSpec, ContainerSpec, Rebellions, SurgeStrategy};

/// The admin's label that says what a node's NPUs are for. Values: [`Workload::as_str`].
pub const WORKLOAD_CONFIG_LABEL: &str = "rebellions.ai/npu.workload.config";

/// The admin's label that makes node-labeler leave a node exactly as it is, when its value is `true`.
pub const SKIP_LABEL: &str = "rebellions.ai/npu.deploy.skip";

/// The taint of nodes that are kept for NPU workloads. Every operand tolerates it, with the effect `NoSchedule`.
pub const NPU_TAINT: &str = "rebellions.ai/npu";

/// The value of a deploy label that puts a component on a node. Any other value is somebody else's and is honoured.
pub const DEPLOY: &str = "true";

/// How the values begin by which a driver manager takes a component off a node while it replaces the driver. The vendor's
/// is `paused-for-driver-upgrade`.
pub const PAUSED_PREFIX: &str = "paused-";

/// PCI vendor id of Rebellions in lower-case hexadecimal, as the pci.ids database and Node Feature Discovery spell it.
pub const PCI_VENDOR: &str = "1eff";

/// Annotation on our DaemonSets: a digest of what we rendered, so that "is it what we want?" needs no memory.
pub const RENDERED_ANNOTATION: &str = "petasus.io/rendered";

/// Annotation on nodes: the components, by name, whose deploy labels are node-labeler's. It is written together with the
/// labels, so that "whose label is it?" needs neither memory nor the API server's book-keeping of field managers.
pub const OWNED_LABELS_ANNOTATION: &str = "petasus.io/owned-deploy-labels";

/// The driver controller's label on nodes: the pool whose DaemonSet runs the node's driver. Nodes without it are served by the
/// DaemonSet `rebellions-driver`.
pub const DRIVER_POOL_LABEL: &str = "rebellions.ai/npu-driver-pool";

/// The driver controller's label on nodes: where the node's driver upgrade stands. The key is the vendor's.
pub const DRIVER_UPGRADE_STATE_LABEL: &str = "rebellions.ai/npu-driver-upgrade-state";

/// The admin's label that keeps a node's driver from being upgraded, when its value is `true`. The key is the vendor's.
pub const DRIVER_UPGRADE_SKIP_LABEL: &str = "rebellions.ai/npu-driver-upgrade.skip";

/// The admin's annotation that asks for one upgrade of a node's driver now, when its value is `true`, even if the driver is
/// the wanted one. The key is the vendor's. The driver controller removes it when it begins.
pub const DRIVER_UPGRADE_REQUESTED_ANNOTATION: &str = "rebellions.ai/npu-driver-upgrade-requested";

/// Annotation on nodes: the driver controller's record of an upgrade under way, or of the last one that failed, as JSON.
pub const DRIVER_UPGRADE_ANNOTATION: &str = "petasus.io/driver-upgrade";

/// Annotation on nodes, written by the driver controller and honoured by node-labeler: until this time (RFC 3339) the
/// components that use the driver step aside, so that it can be replaced. Past its time it means nothing.
pub const DEPENDENTS_PAUSED_UNTIL_ANNOTATION: &str = "petasus.io/driver-dependents-paused-until";

/// Annotation on the driver's pods: a digest of what they install, and of nothing else.
pub const DRIVER_INSTALL_ANNOTATION: &str = "petasus.io/driver-install";

/// Annotation on the driver's pods in a pool: the kernel release that their driver is built for.
pub const DRIVER_KERNEL_ANNOTATION: &str = "petasus.io/driver-kernel";

/// Annotation on the driver's DaemonSets: what was wanted, and worked, before what is wanted now, as JSON.
pub const DRIVER_LAST_GOOD_ANNOTATION: &str = "petasus.io/driver-last-good";

/// Annotation on the driver's DaemonSets: the digest of what was rolled back. While the spec asks for that, the last good one
/// is wanted in its place.
pub const DRIVER_ROLLED_BACK_ANNOTATION: &str = "petasus.io/driver-rolled-back";

/// The label on nodes that says of which family their NPUs are. Written by the vendor's discovery, which knows `ATOM` and `REBEL`, or
/// by a rule for Node Feature Discovery, which knows `atom` and `rebel100`.
pub const NPU_FAMILY_LABEL: &str = "rebellions.ai/npu.family";

/// The label on nodes that says how many NPUs the vendor's discovery finds. Source: rbln-npu-feature-discovery.
pub const NPU_COUNT_LABEL: &str = "rebellions.ai/npu.count";

/// The label on nodes that says which version of the driver the vendor's discovery finds loaded.
pub const DRIVER_VERSION_LABEL: &str = "rebellions.ai/driver-version.full";

/// What the names of NPUs as resources of nodes and pods begin with.
pub const NPU_RESOURCE_PREFIX: &str = "rebellions.ai/";

/// The vendor's driver for dynamic resource allocation.
pub const DRA_DRIVER: &str = "npu.rebellions.ai";

/// Schema rule for the key of a label that settings select nodes by: none that a program of ours writes. A component's own deploy label decides
/// anyway, and one that selects by another's would come and go with it.
macro_rules! not_ours {
    ($key:literal) => {
        concat!(
            "!",
            $key,
            ".startsWith('rebellions.ai/npu.deploy.') && !",
            $key,
            ".startsWith('rebellions.ai/npu-driver')"
        )
    };
}
pub(crate) use not_ours;

/// What [`not_ours`] demands.
pub(crate) const NOT_OURS_MESSAGE: &str =
    "must not be a label that the operator writes (rebellions.ai/npu.deploy.*, rebellions.ai/npu-driver*)";

/// What the NPUs of a node are for: a node's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// NPUs are handed to pods.
    Container,
    /// NPUs are handed to virtual machines.
    VmPassthrough,
}

impl Workload {
    /// All modes, in the order in which they are shown.
    pub const ALL: [Self; 2] = [Self::Container, Self::VmPassthrough];

    /// The value of [`WORKLOAD_CONFIG_LABEL`] that asks for this mode.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::VmPassthrough => "vm-passthrough",
        }
    }

    /// The mode that a label value asks for; `None` for anything else, a typo included.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.as_str() == value)
    }
}

/// One row of the contract: a unit that can be switched on, configured and deployed on its own.
#[derive(Debug)]
pub struct Component {
    /// Its name in labels and paths: `device-plugin`.
    pub name: &'static str,
    /// Name of its DaemonSet, of its status entry and value of its pods' `name` label: `rebellions-device-plugin`.
    pub operand: &'static str,
    /// Its controller's binary, image, Deployment, service account, Lease and field manager.
    pub controller: &'static str,
    /// The node label that its DaemonSet selects: `rebellions.ai/npu.deploy.device-plugin`.
    pub deploy_label: &'static str,
    /// Type of its condition in the status: `RebellionsDevicePluginReady`.
    pub condition_type: &'static str,
    /// Path of its section in an AcceleratorConfig, for messages to people.
    pub path: &'static str,
    /// The modes in which a node runs it.
    pub workloads: &'static [Workload],
    /// Whether its pods use the driver where there is one, so that they have to step aside while it is replaced.
    pub uses_driver: bool,
    /// Its section of the spec; `None` when the admin did not write one.
    pub section: fn(&Rebellions) -> Option<&ComponentSpec>,
    /// The containers of its pods beside the main one, which have settings of their own.
    pub containers: &'static [Container],
    /// How its pods are replaced when two of them may be on a node; `None` when the admin did not say, or when two may not.
    pub surge: fn(&Rebellions) -> Option<&SurgeStrategy>,
}

/// A container of a component's pods beside the main one.
#[derive(Debug)]
pub struct Container {
    /// Its name in the default manifest.
    pub name: &'static str,
    /// Its settings; `None` when the admin did not write any.
    pub section: fn(&Rebellions) -> Option<&ContainerSpec>,
    /// The component whose image it runs when it has no image setting of its own.
    pub image_of: Option<&'static Component>,
}

impl Component {
    /// Whether the spec asks for this component. An absent section means *not deployed*.
    #[must_use]
    pub fn enabled(&self, rebellions: &Rebellions) -> bool {
        (self.section)(rebellions).is_some_and(|section| section.enabled)
    }

    /// Whether a node in this mode runs the component.
    #[must_use]
    pub fn runs_in(&self, workload: Workload) -> bool {
        self.workloads.contains(&workload)
    }
}

/// The first of some expressions.
macro_rules! first {
    ($first:expr $(, $rest:expr)?) => {
        $first
    };
}

/// A row: the component's name, how a condition type spells it, its field in the spec, its modes and whether it uses the
/// driver, and its further containers: name, field in the section, and the component whose image setting it takes.
macro_rules! component {
    ($name:literal, $pascal:literal, $field:ident, $key:literal, [$($workload:ident),+ $(; uses $driver:ident)?],
     [$(($container:literal, $settings:ident $(, image of $image_of:ident)?)),*]) => {
        Component {
            name: $name,
            operand: concat!("rebellions-", $name),
            controller: concat!("rebellions-", $name, "-controller"),
            deploy_label: concat!("rebellions.ai/npu.deploy.", $name),
            condition_type: concat!("Rebellions", $pascal, "Ready"),
            path: concat!("spec.providers.rebellions.", $key),
            workloads: &[$(Workload::$workload),+],
            uses_driver: !stringify!($($driver)?).is_empty(),
            section: |rebellions| rebellions.$field.as_ref().map(AsRef::as_ref),
            containers: &[$(Container {
                name: $container,
                section: |rebellions| rebellions.$field.as_ref()?.$settings.as_ref(),
                image_of: first!($(Some(&$image_of),)? None),
            }),*],
            surge: |_| None,
        }
    };
}

/// Kernel driver and user-mode libraries.
pub static DRIVER: Component = component!(
    "driver",
    "Driver",
    driver,
    "driver",
    [Container],
    [("give-back", give_back, image of VFIO_MANAGER), ("k8s-driver-manager", manager)]
);
/// Advertises NPUs to the kubelet.
pub static DEVICE_PLUGIN: Component = component!(
    "device-plugin",
    "DevicePlugin",
    device_plugin,
    "devicePlugin",
    [Container; uses driver],
    [("give-back", give_back, image of VFIO_MANAGER)]
);
/// Serves NPU metrics to Prometheus.
pub static METRIC_EXPORTER: Component = component!(
    "metric-exporter",
    "MetricExporter",
    metric_exporter,
    "metricExporter",
    [Container; uses driver],
    [("rbln-daemon", daemon)]
);
/// Labels nodes with the properties of their NPUs.
pub static NPU_FEATURE_DISCOVERY: Component = Component {
    surge: |rebellions| rebellions.nfd.as_ref()?.update_strategy.as_ref(),
    ..component!("npu-feature-discovery", "NpuFeatureDiscovery", nfd, "nfd", [Container, VmPassthrough; uses driver], [])
};
/// Binds NPUs to vfio-pci, for virtual machines.
pub static VFIO_MANAGER: Component =
    component!("vfio-manager", "VfioManager", vfio_manager, "vfioManager", [VmPassthrough], []);

/// Every component, in the order in which a node comes up.
pub static COMPONENTS: [&Component; 5] =
    [&DRIVER, &DEVICE_PLUGIN, &METRIC_EXPORTER, &VFIO_MANAGER, &NPU_FEATURE_DISCOVERY];

/// Name of the node-labeler: binary, image, Deployment, service account, Lease and field manager.
pub const NODE_LABELER: &str = "node-labeler";

#[cfg(test)]
mod tests {
    use super::*;

    /// The product's contract, spelled out: exactly these labels per mode, no more.
    #[test]
    fn deploy_labels_per_workload_are_the_contract() {
        let labels = |workload| {
            let mut labels: Vec<_> =
                COMPONENTS.iter().filter(|row| row.runs_in(workload)).map(|row| row.deploy_label).collect();
            labels.sort_unstable();
            labels
        };
        assert_eq!(
            labels(Workload::Container),
            [
                "rebellions.ai/npu.deploy.device-plugin",
                "rebellions.ai/npu.deploy.driver",
                "rebellions.ai/npu.deploy.metric-exporter",
                "rebellions.ai/npu.deploy.npu-feature-discovery",
            ]
        );
        assert_eq!(
            labels(Workload::VmPassthrough),
            ["rebellions.ai/npu.deploy.npu-feature-discovery", "rebellions.ai/npu.deploy.vfio-manager"]
        );
    }

    #[test]
    fn what_uses_the_driver_is_the_contract() {
        let uses: Vec<_> = COMPONENTS.iter().filter(|row| row.uses_driver).map(|row| row.name).collect();
        assert_eq!(uses, ["device-plugin", "metric-exporter", "npu-feature-discovery"]);
    }

    /// The rule has no list of labels that somebody could forget.
    #[test]
    fn what_settings_may_not_select_by_is_every_label_that_we_write() {
        let rule = not_ours!("key");
        let is_refused = |key: &str| rule.split('\'').skip(1).step_by(2).any(|prefix| key.starts_with(prefix));
        let ours = COMPONENTS.map(|row| row.deploy_label).into_iter();
        for key in ours.chain([SKIP_LABEL, DRIVER_POOL_LABEL, DRIVER_UPGRADE_STATE_LABEL, DRIVER_UPGRADE_SKIP_LABEL]) {
            assert!(is_refused(key), "{key}");
        }
        for key in [WORKLOAD_CONFIG_LABEL, NPU_FAMILY_LABEL, "topology.kubernetes.io/zone", "rebellions.ai/npu.product"]
        {
            assert!(!is_refused(key), "{key}");
        }
    }

    #[test]
    fn every_name_derives_from_the_component() {
        assert_eq!(METRIC_EXPORTER.operand, "rebellions-metric-exporter");
        assert_eq!(METRIC_EXPORTER.controller, "rebellions-metric-exporter-controller");
        assert_eq!(METRIC_EXPORTER.condition_type, "RebellionsMetricExporterReady");
        assert_eq!(METRIC_EXPORTER.path, "spec.providers.rebellions.metricExporter");
    }

    #[test]
    fn workload_values_are_read_exactly() {
        assert_eq!(Workload::parse("container"), Some(Workload::Container));
        assert_eq!(Workload::parse("vm-passthrough"), Some(Workload::VmPassthrough));
        assert_eq!(Workload::parse("Container"), None);
        assert_eq!(Workload::parse(""), None);
    }
}
