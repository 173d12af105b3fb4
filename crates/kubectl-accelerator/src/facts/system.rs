//! What else keeps pods away or tells why: events, quotas, namespaces and disruption budgets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Meta, PodFact};

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventFact {
    /// Its metadata.
    pub metadata: Meta,
    /// What it is about.
    pub involved_object: About,
    /// `Warning` or `Normal`
    #[serde(rename = "type")]
    pub kind: String,
    /// Why, in a word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it was last told, by old clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_timestamp: Option<Time>,
    /// When it was told, by new clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<MicroTime>,
    /// How often it was told, by new clients.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub series: Value,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl EventFact {
    /// When it was last told.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        let series = self.series["lastObservedTime"].as_str().and_then(|time| time.parse().ok());
        let times =
            [self.last_timestamp.as_ref().map(|time| time.0), self.event_time.as_ref().map(|time| time.0), series];
        times.into_iter().flatten().max().or_else(|| self.metadata.creation_timestamp.as_ref().map(|time| time.0))
    }

    /// Whether it is about this object.
    #[must_use]
    pub fn is_about(&self, kind: &str, name: &str) -> bool {
        self.involved_object.kind == kind && self.involved_object.name == name
    }
}

/// A quota.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaFact {
    /// Its metadata.
    pub metadata: Meta,
    /// How much of it is used.
    pub status: QuotaStatus,
}

/// How much of a quota is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaStatus {
    /// The limit of each resource.
    pub hard: BTreeMap<String, String>,
    /// What is used of each resource.
    pub used: BTreeMap<String, String>,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceFact {
    /// Its metadata: labels say what Pod Security allows.
    pub metadata: Meta,
}

/// A disruption budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetFact {
    /// Its metadata.
    pub metadata: Meta,
    /// Which pods it is for.
    pub spec: BudgetSpec,
    /// What it allows now.
    pub status: BudgetStatus,
}

/// Which pods a disruption budget is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    /// Pods of its namespace with these labels.
    pub selector: Option<LabelSelector>,
}

/// What a disruption budget allows now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    /// How many pods may leave.
    pub disruptions_allowed: i64,
    /// How many are healthy.
    pub current_healthy: i64,
    /// How many have to be.
    pub desired_healthy: i64,
}

impl BudgetFact {
    /// Whether it lets none of its pods go.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.status.disruptions_allowed == 0
    }

    /// Whether it is for this pod, as far as its selector names labels; expressions are left to the API server.
    #[must_use]
    pub fn covers(&self, pod: &PodFact) -> bool {
        let labels = self.spec.selector.as_ref().and_then(|selector| selector.match_labels.as_ref());
        let has = |labels: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| pod.metadata.label(key) == Some(value))
        };
        self.metadata.namespace == pod.metadata.namespace && labels.is_some_and(has)
    }
}
