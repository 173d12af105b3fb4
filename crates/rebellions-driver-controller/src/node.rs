//! What the driver controller keeps of a node: what its decisions need and nothing else, so that thousands fit.

mod decode;

use std::collections::BTreeMap;

use accelerator_api::contract::{
    DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DEPLOY, DEVICE_PLUGIN, DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_ANNOTATION,
    DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_SKIP_LABEL, DRIVER_UPGRADE_STATE_LABEL, NPU_RESOURCE_PREFIX,
    OWNED_LABELS_ANNOTATION,
};
use accelerator_api::{LabelSet, Quantity};
use accelerator_runtime::{Stored, version_of};

use crate::family::families;
use crate::os;
use crate::upgrade::{Record, State};

pub use decode::Node;
pub(crate) use decode::metadata;

/// A node with the driver's deploy label.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its identity: a node made anew under the same name has another.
    pub uid: String,
    /// Its version, for patches that must not be misapplied.
    pub version: u64,
    /// Whether its label `npu.deploy.driver` is there, whatever its value: the watch shows such nodes.
    pub carries_deploy_label: bool,
    /// Whether its label `npu.deploy.driver` is `true`.
    pub deploys_driver: bool,
    /// Whether its label `npu.deploy.device-plugin` is `true`, or node-labeler's own and paused: NPUs are advertised on it.
    pub deploys_device_plugin: bool,
    /// Whether node-labeler has taken its label for the device plugin away and not brought it back: no NPUs are advertised meanwhile.
    pub is_device_plugin_aside: bool,
    /// Kernel release, such as `5.15.0-130-generic`.
    pub kernel: Option<String>,
    /// `ID` and `VERSION_ID` of os-release in one, such as `ubuntu22.04`.
    pub os: Option<String>,
    /// Architecture as Kubernetes spells it, such as `amd64`.
    pub arch: Option<String>,
    /// NPU families by discovery's labels, such as `atom`.
    pub families: Vec<String>,
    /// The value of [`accelerator_api::contract::DRIVER_POOL_LABEL`]. With an empty one no DaemonSet selects the node.
    pub pool: Option<String>,
    /// Where its upgrade stands, by its label.
    pub state: Option<State>,
    /// Our record of its upgrade.
    pub record: Option<Record>,
    /// Whether an admin keeps its driver from being upgraded.
    pub is_skipped: bool,
    /// Whether an admin asked for one upgrade now.
    pub is_requested: bool,
    /// Whether the annotation that pauses dependents is there.
    pub is_paused: bool,
    /// Whether no new pod is to be scheduled to it, whoever said so.
    pub is_unschedulable: bool,
    /// Whether its kubelet says that it is ready.
    pub is_ready: bool,
    /// Identity of its last boot.
    pub boot_id: String,
    /// Allocatable NPUs by resource name (`rebellions.ai/…`).
    pub npus: BTreeMap<String, u64>,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// All its labels, which the spec may ask for.
    pub labels: LabelSet,
}

/// Node Feature Discovery's labels.
const KERNEL: &str = "feature.node.kubernetes.io/kernel-version.full";
const OS_ID: &str = "feature.node.kubernetes.io/system-os_release.ID";
const OS_VERSION: &str = "feature.node.kubernetes.io/system-os_release.VERSION_ID";

/// How the vendor's driver manager begins the value of a deploy label that it withdraws for a while.
const PAUSED: &str = "paused-";

impl Stored for NodeView {
    fn version(&self) -> u64 {
        self.version
    }
}

impl NodeView {
    /// Reads a node.
    #[must_use]
    pub fn of(node: Node) -> Self {
        let version = version_of(&node.metadata);
        let labels = node.metadata.labels.unwrap_or_default();
        let annotations = node.metadata.annotations.unwrap_or_default();
        let is_true =
            |values: &BTreeMap<String, String>, key: &str| values.get(key).is_some_and(|value| value == "true");
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let info = node.status.node_info;
        let kernel = labels
            .get(KERNEL)
            .and_then(given)
            .or_else(|| Some(as_label(&info.kernel_version)).as_ref().and_then(given));
        let discovered_os = labels.get(OS_ID).zip(labels.get(OS_VERSION)).map(|(id, version)| format!("{id}{version}"));
        Self {
            name: node.metadata.name.unwrap_or_default(),
            uid: node.metadata.uid.unwrap_or_default(),
            version,
            carries_deploy_label: labels.contains_key(DRIVER.deploy_label),
            deploys_driver: labels.get(DRIVER.deploy_label).is_some_and(|value| value == DEPLOY),
            deploys_device_plugin: deploys_device_plugin(&labels, &annotations),
            is_device_plugin_aside: deploys_device_plugin(&labels, &annotations)
                && !is_true(&labels, DEVICE_PLUGIN.deploy_label),
            kernel,
            os: discovered_os.or_else(|| os::of_image(&info.os_image)),
            arch: given(&info.architecture),
            families: families(&labels),
            pool: labels.get(DRIVER_POOL_LABEL).cloned(),
            state: labels.get(DRIVER_UPGRADE_STATE_LABEL).and_then(|value| State::parse(value)),
            record: annotations.get(DRIVER_UPGRADE_ANNOTATION).and_then(|text| Record::parse(text)),
            is_skipped: is_true(&labels, DRIVER_UPGRADE_SKIP_LABEL),
            is_requested: is_true(&annotations, DRIVER_UPGRADE_REQUESTED_ANNOTATION),
            is_paused: annotations.contains_key(DEPENDENTS_PAUSED_UNTIL_ANNOTATION),
            is_unschedulable: node.spec.unschedulable,
            is_ready: node.status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "True"),
            boot_id: info.boot_id,
            npus: npus(node.status.allocatable),
            is_deleted: node.metadata.deletion_timestamp.is_some(),
            labels: LabelSet::from(&labels),
        }
    }
}

/// A kernel's release as Node Feature Discovery writes it into a label, so that it is the same with discovery and without.
/// Source: nfd/source/kernel, `parseVersion`.
fn as_label(release: &str) -> String {
    let is_legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
    let legal: String = release.chars().map(|character| if is_legal(character) { character } else { '_' }).collect();
    legal.trim_matches(['-', '_', '.']).to_owned()
}

/// Whether NPUs are advertised on the node, or will be again: the label may be gone for a moment and still be node-labeler's.
fn deploys_device_plugin(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    let owned = annotations.get(OWNED_LABELS_ANNOTATION);
    let is_owned = owned.is_some_and(|owned| owned.split(',').any(|name| name == DEVICE_PLUGIN.name));
    match labels.get(DEVICE_PLUGIN.deploy_label) {
        None => is_owned,
        Some(value) => value == DEPLOY || is_owned && value.starts_with(PAUSED),
    }
}

fn npus(allocatable: BTreeMap<String, String>) -> BTreeMap<String, u64> {
    let ours = allocatable.into_iter().filter(|(name, _)| name.starts_with(NPU_RESOURCE_PREFIX));
    ours.filter_map(|(name, amount)| Some((name, u64::try_from(Quantity(amount).millis()? / 1000).ok()?))).collect()
}

#[cfg(test)]
mod tests;
