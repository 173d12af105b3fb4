//! The nodes and pods at one moment.

use std::collections::BTreeMap;

use accelerator_api::contract::{DRIVER, DRIVER_UPGRADE_STATE_LABEL};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use rebellions_driver_controller::upgrade::State;

use crate::kubelet::{is_ready, readiness};

/// A state of an object, or that it is gone.
#[derive(Clone, Debug)]
pub enum Seen {
    Node { version: u64, name: String, node: Option<SeenNode> },
    Pod { version: u64, uid: String, pod: Option<SeenPod> },
}

#[derive(Clone, Debug, Default)]
pub struct SeenNode {
    pub is_ready: bool,
    pub is_unschedulable: bool,
    pub state: String,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Default)]
pub struct SeenPod {
    pub name: String,
    pub node: String,
    pub is_driver: bool,
    pub is_ready: bool,
    /// It ends because somebody asked for its eviction.
    pub is_evicted: bool,
    pub is_terminating: bool,
}

impl Seen {
    pub fn of_node(node: &Node, is_gone: bool) -> Self {
        let state = node.labels().get(DRIVER_UPGRADE_STATE_LABEL).cloned().unwrap_or_default();
        let is_unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let seen = SeenNode { is_ready: readiness(node).as_deref() == Some("True"), is_unschedulable, state };
        Self::Node { version: version(node), name: node.name_any(), node: (!is_gone).then_some(seen) }
    }

    pub fn of_pod(pod: &Pod, is_gone: bool) -> Self {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_evicted = conditions.into_iter().flatten().any(|condition| {
            condition.type_ == "DisruptionTarget" && condition.reason.as_deref() == Some("EvictionByEvictionAPI")
        });
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let seen = SeenPod {
            name: pod.name_any(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            is_driver: pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == DRIVER.operand),
            is_ready: is_ready(pod),
            is_evicted: is_evicted && is_terminating,
            is_terminating,
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Self::Pod { version: version(pod), uid, pod: (!is_gone).then_some(seen) }
    }

    pub fn version(&self) -> u64 {
        match self {
            Self::Node { version, .. } | Self::Pod { version, .. } => *version,
        }
    }
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The nodes and pods at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    nodes: BTreeMap<String, SeenNode>,
    pods: BTreeMap<String, SeenPod>,
}

impl Moment {
    pub(super) fn take(&mut self, seen: &Seen) {
        match seen {
            Seen::Node { name, node: Some(node), .. } => drop(self.nodes.insert(name.clone(), node.clone())),
            Seen::Node { name, node: None, .. } => drop(self.nodes.remove(name)),
            Seen::Pod { uid, pod: Some(pod), .. } => drop(self.pods.insert(uid.clone(), pod.clone())),
            Seen::Pod { uid, pod: None, .. } => drop(self.pods.remove(uid)),
        }
    }

    fn nodes(&self, is_it: impl Fn(&str, &SeenNode) -> bool) -> Vec<String> {
        self.nodes.iter().filter(|(name, node)| is_it(name, node)).map(|(name, _)| name.clone()).collect()
    }

    /// Nodes that are not ready, unschedulable, or without a driver that is ready.
    #[must_use]
    pub fn unavailable(&self) -> Vec<String> {
        let has_driver = |name: &str| {
            let mut pods = self.pods.values();
            pods.any(|pod| pod.is_driver && pod.node == name && pod.is_ready && !pod.is_terminating)
        };
        self.nodes(|name, node| !node.is_ready || node.is_unschedulable || !has_driver(name))
    }

    /// Nodes with more than one pod of the driver, those included that are ending.
    #[must_use]
    pub fn with_two_drivers(&self) -> Vec<String> {
        let drivers: Vec<_> = self.pods.values().filter(|pod| pod.is_driver && !pod.node.is_empty()).collect();
        self.nodes(|name, _| drivers.iter().filter(|pod| pod.node == name).count() > 1)
    }

    /// Nodes to which nothing new is scheduled.
    #[must_use]
    pub fn unschedulable(&self) -> Vec<String> {
        self.nodes(|_, node| node.is_unschedulable)
    }

    /// Nodes whose driver is being replaced.
    #[must_use]
    pub fn under_way(&self) -> Vec<String> {
        self.nodes(|_, node| State::parse(&node.state).is_some_and(State::is_under_way))
    }

    /// Where the upgrade of a node stands; empty when there is none.
    #[must_use]
    pub fn state(&self, node: &str) -> String {
        self.nodes.get(node).map(|node| node.state.clone()).unwrap_or_default()
    }

    pub(super) fn is_unschedulable(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.is_unschedulable)
    }
}
