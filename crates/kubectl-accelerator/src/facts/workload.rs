//! What runs our programs and operands: DaemonSets, Deployments, and the leases by which replicas elect one.

use accelerator_api::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Meta;

/// How far the clock of whoever looks may be off that of the controllers, and how late a renewal may arrive.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);

/// A DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonSetFact {
    /// Its metadata.
    pub metadata: Meta,
    /// What it makes.
    pub spec: DaemonSetSpec,
    /// Where it stands.
    pub status: DaemonSetStatus,
}

/// What a DaemonSet makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    /// Its pods.
    pub template: Template,
    /// How pods are replaced.
    pub update_strategy: UpdateStrategy,
}

/// How pods are replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateStrategy {
    /// `RollingUpdate` or `OnDelete`
    #[serde(rename = "type")]
    pub kind: String,
}

/// Pods to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Their metadata.
    pub metadata: Meta,
    /// Their spec.
    pub spec: PodTemplate,
}

/// The spec of pods to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Which nodes they are for.
    pub node_selector: BTreeMap<String, String>,
    /// Which taints they tolerate.
    pub tolerations: Vec<Toleration>,
    /// Their containers.
    pub containers: Vec<super::pod::Container>,
}

/// Where a DaemonSet stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    /// Nodes that it is for.
    pub desired_number_scheduled: i64,
    /// Of these, nodes with a pod of the newest revision.
    pub updated_number_scheduled: i64,
    /// Of these, nodes whose pod is ready.
    pub number_ready: i64,
    /// Of these, nodes whose pod is available.
    pub number_available: i64,
    /// Nodes that it is not for any more, with a pod.
    pub number_misscheduled: i64,
    /// The generation that these numbers are about.
    pub observed_generation: i64,
}

impl DaemonSetFact {
    /// The operand that its pods are of, by their labels.
    #[must_use]
    pub fn operand(&self) -> &str {
        let meta = &self.spec.template.metadata;
        meta.label("app.kubernetes.io/name").or_else(|| meta.label("name")).unwrap_or_default()
    }

    /// Whether every pod that it wants is there, new, and available.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let status = self.status;
        let wanted = status.desired_number_scheduled;
        let is_seen = self.metadata.generation.is_none_or(|generation| status.observed_generation >= generation);
        let numbers = [status.number_available, status.number_ready, status.updated_number_scheduled];
        is_seen && numbers.iter().all(|number| *number >= wanted) && status.number_misscheduled == 0
    }

    /// The image of its main container.
    #[must_use]
    pub fn image(&self) -> &str {
        self.spec.template.spec.containers.first().map(|main| main.image.as_str()).unwrap_or_default()
    }
}

/// A Deployment of one of our controllers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentFact {
    /// Its metadata.
    pub metadata: Meta,
    /// What it runs.
    pub spec: DeploymentSpec,
    /// Where it stands.
    pub status: DeploymentStatus,
}

/// What a Deployment runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeploymentSpec {
    /// How many pods.
    pub replicas: Option<i64>,
    /// Its pods.
    pub template: Template,
}

/// Where a Deployment stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    /// Pods that are available.
    pub available_replicas: i64,
    /// Its conditions.
    pub conditions: Vec<super::Condition>,
}

impl DeploymentFact {
    /// The program that it runs, by its label.
    #[must_use]
    pub fn program(&self) -> &str {
        self.metadata.label("app.kubernetes.io/name").unwrap_or(&self.metadata.name)
    }

    /// The image that it runs.
    #[must_use]
    pub fn image(&self) -> &str {
        self.spec.template.spec.containers.first().map(|main| main.image.as_str()).unwrap_or_default()
    }
}

/// The lease by which the replicas of a program elect one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseFact {
    /// Its metadata.
    pub metadata: Meta,
    /// Who holds it.
    pub spec: LeaseSpec,
}

/// Who holds a lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// Who; empty when it was given back.
    pub holder_identity: Option<String>,
    /// For how many seconds after a renewal.
    pub lease_duration_seconds: Option<i64>,
    /// When it was last renewed.
    pub renew_time: Option<MicroTime>,
}

impl LeaseFact {
    /// Who leads, if somebody does.
    #[must_use]
    pub fn leader(&self, now: Timestamp) -> Option<&str> {
        let holder = self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        let renewed = self.spec.renew_time.as_ref()?.0;
        let lasts = SignedDuration::from_secs(self.spec.lease_duration_seconds.unwrap_or(15)) + CLOCKS;
        (now.duration_since(renewed) <= lasts).then_some(holder)
    }
}
