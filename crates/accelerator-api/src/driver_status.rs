//! What the driver's controller reports beside what every component's does: pools and upgrades.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The nodes that need the same driver image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Name of the pool, and the value of its nodes' label `rebellions.ai/npu-driver-pool`. Its DaemonSet is
    /// `rebellions-driver-` and this name.
    pub name: String,
    /// Image that the driver's main container is to run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Nodes that need this image.
    #[serde(default)]
    pub desired: i64,
    /// Of these, nodes with a pod that installs the wanted driver.
    #[serde(default)]
    pub updated: i64,
    /// Of these, nodes whose pod is ready.
    #[serde(default)]
    pub ready: i64,
    /// What is missing, for people. Empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Where the upgrade of the driver's nodes stands: how many nodes are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// Nodes with another driver than the wanted one, whose turn has not come.
    #[serde(default)]
    pub waiting: i64,
    /// Nodes that are cordoned, and whose pods finish or are evicted.
    #[serde(default)]
    pub cordoned: i64,
    /// Nodes that no pod with an NPU is on any more, and whose old driver is still there.
    #[serde(default)]
    pub evicted: i64,
    /// Nodes on which the new driver starts.
    #[serde(default)]
    pub restarting: i64,
    /// Nodes whose new driver is ready, and whose NPUs have to become allocatable again.
    #[serde(default)]
    pub validating: i64,
    /// Nodes with the wanted driver.
    #[serde(default)]
    pub done: i64,
    /// Nodes whose upgrade did not work out. It is tried again.
    #[serde(default)]
    pub failed: i64,
    /// Nodes that carry the label `rebellions.ai/npu-driver-upgrade.skip=true`, and have another driver than the wanted one.
    #[serde(default)]
    pub skipped: i64,
    /// Up to ten nodes that have failed, are held up or are being upgraded, with the reason.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 10))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeUpgradeStatus>,
}

/// Where the upgrade of one node's driver stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUpgradeStatus {
    /// Name of the node.
    pub name: String,
    /// Its state, in a word: Waiting, Cordoned, Evicted, Restarting, Validating, Failed or Skipped.
    pub state: String,
    /// Why, in a word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
