//! The status of an AcceleratorConfig: who reports what, and the vocabulary of reasons.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PoolStatus, UpgradeStatus};

/// What the controllers report. Every program owns its own entries and no others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorConfigStatus {
    /// The generation of the spec that the conditions Ready and Accepted are about. -1 until node-labeler has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes are in which mode, as node-labeler sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// One entry per component, each written by that component's controller.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentStatus>,
    /// Ready and Accepted, by node-labeler, and one condition per component, by its controller.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl AcceleratorConfigStatus {
    /// The condition of this type, if somebody reported it.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// The entry of this component, if its controller reported it.
    #[must_use]
    pub fn component(&self, name: &str) -> Option<&ComponentStatus> {
        self.components.iter().find(|component| component.name == name)
    }
}

/// How many nodes are in which mode, as node-labeler sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// Nodes whose NPUs go to pods.
    #[serde(default)]
    pub container: i64,
    /// Nodes whose NPUs go to virtual machines.
    #[serde(default)]
    pub vm_passthrough: i64,
    /// Nodes that have NPUs and no mode: neither a label of their own nor a default applies to them.
    #[serde(default)]
    pub without_mode: i64,
    /// Nodes whose label `rebellions.ai/npu.workload.config` has a value that is no mode. They are left as they are.
    #[serde(default)]
    pub invalid_mode: i64,
    /// Nodes that carry the label `rebellions.ai/npu.deploy.skip=true`. They are left as they are and counted here alone.
    #[serde(default)]
    pub skipped: i64,
}

/// What one component runs and where it stands. The counts are those of its DaemonSet, and the driver's those of all its pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentStatus {
    /// Name of the component's DaemonSet: `rebellions-device-plugin`.
    pub name: String,
    /// Version of the controller that wrote this entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub controller_version: String,
    /// Image that the component's main container is to run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Nodes that the component should run on.
    #[serde(default)]
    pub desired: i64,
    /// Of these, nodes that run a pod of the newest revision.
    #[serde(default)]
    pub updated: i64,
    /// Of these, nodes whose pod is ready.
    #[serde(default)]
    pub ready: i64,
    /// Of these, nodes whose pod has been ready for long enough to count as available.
    #[serde(default)]
    pub available: i64,
    /// What is missing, for people. Empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The driver's pools, each the nodes that need the same image: at most 100, those with something missing first.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 100))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolStatus>,
    /// Where the upgrade of the driver's nodes stands. Absent when no node has another driver than the wanted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeStatus>,
}

/// Types of the conditions beside the one that each component has.
pub mod condition_types {
    /// Every enabled component runs on every node that it was assigned to. Written by node-labeler.
    pub const READY: &str = "Ready";
    /// This AcceleratorConfig is the one that counts. Written by node-labeler.
    pub const ACCEPTED: &str = "Accepted";
    /// Nothing goes on until somebody acts, as kstatus defines it. There only while it is so. Written by node-labeler.
    pub const STALLED: &str = "Stalled";
    /// Drivers of nodes are being replaced. There only while it is so. Written by the driver's controller.
    pub const DRIVER_UPGRADE_PROGRESSING: &str = "RebellionsDriverUpgradeProgressing";
    /// Nodes have another driver than the wanted one, and it is not their turn until somebody acts. There only while it is so.
    /// Written by the driver's controller.
    pub const DRIVER_UPGRADE_BLOCKED: &str = "RebellionsDriverUpgradeBlocked";
}

/// Why a condition has its status. The spelling is API: events, alerts and `kubectl wait` rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    // Of a component.
    /// The spec does not ask for the component.
    Disabled,
    /// No node carries the component's deploy label, so there is nothing to wait for.
    NoNodesSelected,
    /// The DaemonSet controller has not looked at the newest DaemonSet yet.
    AwaitingObservation,
    /// Some nodes still run an older revision.
    RolloutInProgress,
    /// Some pods are not ready, or cannot be made.
    PodsNotReady,
    /// All that is missing is on nodes that do not answer.
    NodesNotReady,
    /// Every assigned node runs the newest revision and is ready.
    Ready,
    /// The API server refused the DaemonSet.
    ApplyFailed,
    /// A DaemonSet of the component's name exists that its controller did not make.
    NameTaken,
    /// Somebody else keeps changing the DaemonSet back.
    Contested,
    /// The installed CRD does not know the status that this version writes. Not a condition: it could not be written.
    CrdTooOld,

    // Of the driver.
    /// Every host has a driver of its own, so that none is deployed.
    Preinstalled,
    /// The image that nodes need does not exist.
    DriverImageMissing,
    /// The image's tag needs a node's kernel, OS or architecture, and that is not known.
    KernelUnknown,
    /// The image's name or tag needs the family of a node's NPUs, and that is not known, or the node has two.
    FamilyUnknown,

    // Of the driver's upgrade.
    /// Drivers of nodes are being replaced.
    UpgradeProgressing,

    // Of an AcceleratorConfig.
    /// It is the one that counts.
    Active,
    /// An older AcceleratorConfig counts.
    Superseded,
    /// A newer version wrote it and this one cannot read it. Everything stays as it is.
    Unreadable,
    /// Every enabled component is ready.
    AllComponentsReady,
    /// The spec enables no component.
    NoComponentsEnabled,
    /// A component is not ready.
    ComponentsNotReady,
    /// An enabled component has no controller that reports.
    ComponentNotReporting,
    /// Labels of nodes are being changed, or were a moment ago, and pods have not followed yet.
    NodesChanging,

    // Of a node.
    /// The node's workload label is no mode.
    WorkloadConfigInvalid,
    /// A driver manager's pause was left behind on deploy labels of the node, and they are set again.
    DeployLabelsRestored,
}

impl Reason {
    /// Every reason.
    pub const ALL: &[Self] = &[
        Self::Disabled,
        Self::NoNodesSelected,
        Self::AwaitingObservation,
        Self::RolloutInProgress,
        Self::PodsNotReady,
        Self::NodesNotReady,
        Self::Ready,
        Self::ApplyFailed,
        Self::NameTaken,
        Self::Contested,
        Self::CrdTooOld,
        Self::Preinstalled,
        Self::DriverImageMissing,
        Self::KernelUnknown,
        Self::FamilyUnknown,
        Self::UpgradeProgressing,
        Self::Active,
        Self::Superseded,
        Self::Unreadable,
        Self::AllComponentsReady,
        Self::NoComponentsEnabled,
        Self::ComponentsNotReady,
        Self::ComponentNotReporting,
        Self::NodesChanging,
        Self::WorkloadConfigInvalid,
        Self::DeployLabelsRestored,
    ];

    /// As written in conditions and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "Disabled",
            Self::NoNodesSelected => "NoNodesSelected",
            Self::AwaitingObservation => "AwaitingObservation",
            Self::RolloutInProgress => "RolloutInProgress",
            Self::PodsNotReady => "PodsNotReady",
            Self::NodesNotReady => "NodesNotReady",
            Self::Ready => "Ready",
            Self::ApplyFailed => "ApplyFailed",
            Self::NameTaken => "NameTaken",
            Self::Contested => "Contested",
            Self::CrdTooOld => "CrdTooOld",
            Self::Preinstalled => "Preinstalled",
            Self::DriverImageMissing => "DriverImageMissing",
            Self::KernelUnknown => "KernelUnknown",
            Self::FamilyUnknown => "FamilyUnknown",
            Self::UpgradeProgressing => "UpgradeProgressing",
            Self::Active => "Active",
            Self::Superseded => "Superseded",
            Self::Unreadable => "Unreadable",
            Self::AllComponentsReady => "AllComponentsReady",
            Self::NoComponentsEnabled => "NoComponentsEnabled",
            Self::ComponentsNotReady => "ComponentsNotReady",
            Self::ComponentNotReporting => "ComponentNotReporting",
            Self::NodesChanging => "NodesChanging",
            Self::WorkloadConfigInvalid => "WorkloadConfigInvalid",
            Self::DeployLabelsRestored => "DeployLabelsRestored",
        }
    }

    /// The condition status that goes with it: `True`, `False` or `Unknown`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::NoNodesSelected
            | Self::Ready
            | Self::Preinstalled
            | Self::UpgradeProgressing
            | Self::Active
            | Self::AllComponentsReady
            | Self::NoComponentsEnabled => "True",
            Self::AwaitingObservation => "Unknown",
            _ => "False",
        }
    }

    /// Whether nothing goes on until somebody acts.
    #[must_use]
    pub const fn is_stalled(self) -> bool {
        matches!(self, Self::Superseded | Self::Unreadable | Self::Contested | Self::NameTaken | Self::ApplyFailed)
    }

    /// Whether somebody may have to act, so that an event about it is a warning.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(
            self,
            Self::ApplyFailed
                | Self::NameTaken
                | Self::Contested
                | Self::CrdTooOld
                | Self::DriverImageMissing
                | Self::KernelUnknown
                | Self::FamilyUnknown
                | Self::Superseded
                | Self::Unreadable
                | Self::WorkloadConfigInvalid
                | Self::DeployLabelsRestored
        )
    }
}
