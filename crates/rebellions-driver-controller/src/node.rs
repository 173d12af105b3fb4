//! What the driver controller keeps of a node: what its decisions need and nothing else, so that thousands fit.

use std::collections::BTreeMap;

use crate::upgrade::{Record, State};

/// A node with the driver's deploy label.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the API server tells it")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its identity: a node made anew under the same name has another.
    pub uid: String,
    /// Its version, for patches that must not be misapplied.
    pub version: u64,
    /// Whether its label `npu.deploy.driver` is `true`.
    pub deploys_driver: bool,
    /// Whether its label `npu.deploy.device-plugin` is `true`, or node-labeler's own and paused: NPUs are advertised on it.
    pub deploys_device_plugin: bool,
    /// Kernel release, such as `5.15.0-130-generic`.
    pub kernel: Option<String>,
    /// `ID` and `VERSION_ID` of os-release in one, such as `ubuntu22.04`.
    pub os: Option<String>,
    /// Architecture as Kubernetes spells it, such as `amd64`.
    pub arch: Option<String>,
    /// NPU families by discovery's labels, such as `atom`.
    pub families: Vec<String>,
    /// The value of [`accelerator_api::contract::DRIVER_POOL_LABEL`].
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
}
