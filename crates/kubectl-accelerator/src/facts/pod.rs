//! A pod: where it is and why it is not ready. Neither environment nor arguments are kept.

use accelerator_api::contract::NPU_RESOURCE_PREFIX;
use accelerator_operand::PodView;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Condition, Meta};

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodFact {
    /// Its metadata.
    pub metadata: Meta,
    /// Where it is, and what it asks for.
    pub spec: Spec,
    /// What its kubelet says.
    pub status: Status,
}

/// Where a pod is, and what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Its node; empty until it is scheduled.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// Which node it is for, before it is scheduled.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub affinity: Value,
    /// Conditions of others that it needs to be ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readiness_gates: Vec<Value>,
    /// Containers that run before the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Its resources.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub resources: Value,
}

/// What a pod's kubelet says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Pending`, `Running`, …
    pub phase: String,
    /// Why, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Where containers that run before the others stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerState>,
    /// Where its containers stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerState>,
}

/// Where a container stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// How often it was started again.
    pub restart_count: i64,
    /// What it does now.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub state: Value,
    /// How it ended before.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub last_state: Value,
}

impl PodFact {
    /// The operand that it is a pod of, by its labels; empty when it is of none.
    #[must_use]
    pub fn operand(&self) -> &str {
        self.metadata.label("app.kubernetes.io/name").or_else(|| self.metadata.label("name")).unwrap_or_default()
    }

    /// As the controllers see it.
    #[must_use]
    pub fn view(&self) -> Option<PodView> {
        serde_json::from_value(json!(self)).ok()
    }

    /// The node that it is on or meant for; empty when neither is known.
    #[must_use]
    pub fn node(&self) -> String {
        if !self.spec.node_name.is_empty() {
            return self.spec.node_name.clone();
        }
        self.view().map(|view| view.node()).unwrap_or_default()
    }

    /// Whether it is ready, and not about to end.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && Condition::ready(&self.status.conditions).is_some_and(Condition::is_true)
    }

    /// Since when it is what it is: since it was to have ended, by its condition Ready, else since it was made.
    #[must_use]
    pub fn since(&self) -> Option<&Time> {
        if self.metadata.deletion_timestamp.is_some() {
            return self.metadata.deletion_timestamp.as_ref();
        }
        let ready = Condition::ready(&self.status.conditions);
        ready.and_then(|ready| ready.last_transition_time.as_ref()).or(self.metadata.creation_timestamp.as_ref())
    }

    /// How often its containers were started again.
    #[must_use]
    pub fn restarts(&self) -> i64 {
        let all = self.status.init_container_statuses.iter().chain(&self.status.container_statuses);
        all.map(|container| container.restart_count).sum()
    }

    /// Whether it asks for NPUs.
    #[must_use]
    pub fn asks_for_npus(&self) -> bool {
        let asks = |container: &Container| {
            let kinds = ["limits", "requests"].into_iter().filter_map(|kind| container.resources[kind].as_object());
            kinds.flatten().any(|(name, _)| name.starts_with(NPU_RESOURCE_PREFIX))
        };
        self.spec.init_containers.iter().chain(&self.spec.containers).any(asks)
    }

    /// What is needed of it: of one that is ready, that it is. Thousands have to fit.
    #[must_use]
    pub fn slim(mut self) -> Self {
        if self.is_ready() {
            self.spec.affinity = Value::Null;
            self.spec.init_containers.clear();
            self.metadata.managed_fields.clear();
            self.metadata.owner_references.clear();
            self.status.init_container_statuses.clear();
            self.status.container_statuses.clear();
            self.status.conditions.retain(|condition| condition.kind == "Ready");
        }
        self
    }

    /// Its namespace and name.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}
