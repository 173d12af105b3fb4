//! A pod of which only that is kept which a decision needs.

use std::collections::BTreeMap;

use accelerator_api::Quantity;
use accelerator_operand::PodView;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::core_resource::core_resource;
use crate::install::Install;
use crate::node::metadata;

/// A pod as the API server tells it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub(super) fields: Fields,
    /// What tells why it is not ready.
    pub(super) view: PodView,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Fields {
    #[serde(deserialize_with = "metadata")]
    pub(super) metadata: ObjectMeta,
    #[serde(skip)]
    pub(super) owners: Vec<Owner>,
    #[serde(default)]
    pub(super) spec: Spec,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) controller: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) init_containers: Vec<Container>,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    pub(super) resources: Resources,
    pub(super) resource_claims: Vec<Claim>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Container {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) install: Install,
    pub(super) resources: Resources,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    limits: BTreeMap<String, Quantity>,
    requests: BTreeMap<String, Quantity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Volume {
    pub(super) empty_dir: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Claim {
    pub(super) resource_claim_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) phase: String,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) container_statuses: Vec<ContainerStatus>,
    /// Claims that were made of templates.
    pub(super) resource_claim_statuses: Vec<Claim>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) restart_count: u32,
    pub(super) state: State,
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) waiting: Option<Waiting>,
    running: Option<IgnoredAny>,
    terminated: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: String,
    pub(super) message: String,
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pod = Value::deserialize(deserializer)?;
        let owners = pod.pointer_mut("/metadata/ownerReferences").map(Value::take).unwrap_or_default();
        let owners = Option::<Vec<Owner>>::deserialize(owners).map_err(D::Error::custom)?.unwrap_or_default();
        let view = PodView::deserialize(&pod).map_err(D::Error::custom)?;
        let fields = Fields::deserialize(pod).map_err(D::Error::custom)?;
        Ok(Self { fields: Fields { owners, ..fields }, view })
    }
}

impl Resources {
    /// Whether any of a resource with this beginning is asked for.
    pub(super) fn ask_for(&self, prefix: &str) -> bool {
        let mut all = self.limits.iter().chain(&self.requests);
        all.any(|(name, amount)| name.starts_with(prefix) && amount.millis() != Some(0))
    }
}

impl ContainerStatus {
    /// Whether it runs or has ever run.
    pub(super) fn has_begun(&self) -> bool {
        let ran = |state: &State| state.running.is_some() || state.terminated.is_some();
        self.restart_count > 0 || ran(&self.state) || ran(&self.last_state)
    }
}

core_resource!(Pod, "Pod", "pods", NamespaceResourceScope, fields.metadata);
