//! The parts of a pod that are read. Whole pods are large, and an allocator hardly ever returns memory that it got once.

use k8s_openapi::api::core::v1::Affinity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A pod, of which only what tells why it is not ready is read.
#[derive(Clone, Debug, Deserialize)]
pub struct PodView {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) resource_version: Option<String>,
    pub(crate) deletion_timestamp: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    node_name: String,
    affinity: Option<Affinity>,
    pub(crate) readiness_gates: Vec<IgnoredAny>,
    init_containers: Vec<ContainerSpec>,
    containers: Vec<ContainerSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSpec {
    name: String,
    resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    limits: Limits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Limits {
    memory: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) phase: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    conditions: Vec<PodCondition>,
    pub(crate) init_container_statuses: Vec<Container>,
    pub(crate) container_statuses: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) ready: bool,
    #[serde(default)]
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct State {
    pub(crate) waiting: Option<Waiting>,
    pub(crate) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terminated {
    pub(crate) exit_code: i32,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) finished_at: Option<Time>,
}

impl PodView {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its resource version; empty in a list that has none.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// The node that the pod is on, or the one that the DaemonSet controller made it for: it pins each pod to its node by
    /// a required affinity to the node's name. Empty when neither is known.
    #[must_use]
    pub fn node(&self) -> String {
        let pinned = || {
            let affinity = self.spec.affinity.as_ref()?.node_affinity.as_ref()?;
            let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
            let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
            let name = fields.find(|field| field.key == "metadata.name")?;
            name.values.as_ref()?.first().cloned()
        };
        Some(self.spec.node_name.clone()).filter(|name| !name.is_empty()).or_else(pinned).unwrap_or_default()
    }

    /// Whether the scheduler has given it a node.
    pub(crate) fn is_bound(&self) -> bool {
        !self.spec.node_name.is_empty()
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether it has this condition.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    /// The memory limit of a container, as it is written.
    pub(crate) fn memory_limit(&self, container: &str) -> Option<&str> {
        let mut all = self.spec.init_containers.iter().chain(&self.spec.containers);
        all.find(|spec| spec.name == container)?.resources.limits.memory.as_deref()
    }

    /// Whether the node controller, and not the kubelet, has declared the pod not ready, which it does when the node does
    /// not answer. A kubelet changes both conditions together; the node controller changes `Ready` alone.
    /// Source: `MarkPodsNotReady` in kubernetes/pkg/controller/util/node.
    pub(crate) fn is_on_a_lost_node(&self) -> bool {
        let are_ready = self.is("ContainersReady") && self.status.container_statuses.iter().all(|one| one.ready);
        let declared = !self.is("Ready") && are_ready && self.spec.readiness_gates.is_empty();
        declared || self.status.reason.as_deref() == Some("NodeLost")
    }
}
