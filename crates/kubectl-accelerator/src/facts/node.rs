//! A node: what it is, and what keeps pods off it. Whole nodes are large: they list images.

use std::collections::BTreeMap;

use accelerator_api::Quantity;
use accelerator_api::contract::{DRIVER_UPGRADE_ANNOTATION, NPU_COUNT_LABEL, NPU_RESOURCE_PREFIX};
use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use node_labeler::view::NodeView;
use rebellions_driver_controller::upgrade::Record;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Condition, Meta};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFact {
    /// Its metadata.
    pub metadata: Meta,
    /// What keeps pods off it.
    pub spec: Spec,
    /// What its kubelet says.
    pub status: Status,
}

/// What keeps pods off a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Whether it is cordoned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
    /// Its taints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// What a node's kubelet says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// NPUs that pods may have.
    #[serde(deserialize_with = "npus", skip_serializing_if = "BTreeMap::is_empty")]
    pub allocatable: BTreeMap<String, String>,
    /// NPUs that the device plugin has told of, the unhealthy included.
    #[serde(deserialize_with = "npus", skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, String>,
    /// Its condition Ready.
    #[serde(deserialize_with = "ready")]
    pub conditions: Vec<Condition>,
    /// Its system.
    pub node_info: NodeInfo,
}

/// The system of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    /// Release of its kernel.
    pub kernel_version: String,
    /// Its system, for people.
    pub os_image: String,
    /// Its architecture, as Kubernetes spells it.
    pub architecture: String,
    /// Version of its kubelet.
    pub kubelet_version: String,
}

impl NodeFact {
    /// As node-labeler sees it.
    #[must_use]
    pub fn view(&self) -> NodeView {
        NodeView::of(&self.metadata.object_meta())
    }

    /// As the API's own type, as far as taints go.
    #[must_use]
    pub fn with_taints(&self) -> Node {
        let spec = NodeSpec { taints: Some(self.spec.taints.clone()), ..NodeSpec::default() };
        Node { spec: Some(spec), ..Node::default() }
    }

    /// Its condition Ready, if it has one.
    #[must_use]
    pub fn ready(&self) -> Option<&Condition> {
        Condition::ready(&self.status.conditions)
    }

    /// Whether its kubelet says that it is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(Condition::is_true)
    }

    /// How many NPUs pods may have.
    #[must_use]
    pub fn allocatable(&self) -> u64 {
        sum(&self.status.allocatable)
    }

    /// How many NPUs the device plugin has told of.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        sum(&self.status.capacity)
    }

    /// How many NPUs discovery finds, if it says so.
    #[must_use]
    pub fn found(&self) -> Option<u64> {
        self.metadata.label(NPU_COUNT_LABEL)?.parse().ok()
    }

    /// The driver controller's record of its upgrade.
    #[must_use]
    pub fn upgrade(&self) -> Option<Record> {
        Record::parse(self.metadata.annotations.get(DRIVER_UPGRADE_ANNOTATION)?)
    }
}

fn sum(resources: &BTreeMap<String, String>) -> u64 {
    let counts = resources.values().filter_map(|amount| Quantity(amount.clone()).millis());
    u64::try_from(counts.map(|millis| millis / 1000).sum::<i128>()).unwrap_or(0)
}

fn npus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut all = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    all.retain(|name, _| name.starts_with(NPU_RESOURCE_PREFIX));
    Ok(all)
}

fn ready<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    let mut all = Option::<Vec<Condition>>::deserialize(deserializer)?.unwrap_or_default();
    all.retain(|condition| condition.kind == "Ready");
    Ok(all)
}
