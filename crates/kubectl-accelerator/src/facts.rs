//! What is known of a cluster, as plain small types. Each is a part of an object of the API server and is written as it is
//! read, so that a bundle of facts is explained like a cluster, and somebody who opens one recognises everything.

mod condition;
mod config;
mod crd;
mod meta;
mod node;
mod pod;
mod system;
mod workload;

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use condition::Condition;
pub use config::ConfigFact;
pub use crd::CrdFact;
pub use meta::Meta;
pub use node::NodeFact;
pub use pod::{ContainerState, PodFact};
pub use system::{BudgetFact, EventFact, NamespaceFact, QuotaFact};
pub use workload::{DaemonSetFact, DeploymentFact, LeaseFact};

/// What can be read of a cluster, kind by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Every AcceleratorConfig.
    AcceleratorConfigs,
    /// Nodes.
    Nodes,
    /// DaemonSets in the operands' namespace.
    DaemonSets,
    /// Deployments of our controllers, in every namespace.
    Deployments,
    /// Leases in the controllers' namespace.
    Leases,
    /// The definition of AcceleratorConfigs.
    CustomResourceDefinition,
    /// Pods in the operands' namespace, and for one node all pods on it.
    Pods,
    /// Events in the operands' namespace, and those about AcceleratorConfigs and nodes.
    Events,
    /// Quotas of the operands' namespace.
    ResourceQuotas,
    /// The operands' namespace.
    Namespaces,
    /// Disruption budgets of every namespace.
    PodDisruptionBudgets,
}

/// What could not be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// What.
    pub kind: Kind,
    /// Why, in the API server's words.
    pub why: String,
}

/// A cluster at one moment, as far as somebody has looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Version of the program that read them.
    pub version: String,
    /// When they were read.
    pub at: Timestamp,
    /// Namespace of the operands.
    pub operand_namespace: String,
    /// Namespace of the controllers.
    pub namespace: String,
    /// What has been asked for and answered: of these kinds, what is not there does not exist.
    pub read: BTreeSet<Kind>,
    /// What has been asked for and refused.
    #[serde(default)]
    pub unread: Vec<Unread>,
    /// The definition of AcceleratorConfigs, if it is installed.
    #[serde(default)]
    pub crd: Option<CrdFact>,
    /// Every AcceleratorConfig.
    #[serde(default)]
    pub configs: Vec<ConfigFact>,
    /// Nodes.
    #[serde(default)]
    pub nodes: Vec<NodeFact>,
    /// DaemonSets of the operands, and others in their namespace.
    #[serde(default)]
    pub daemon_sets: Vec<DaemonSetFact>,
    /// Deployments of our controllers.
    #[serde(default)]
    pub deployments: Vec<DeploymentFact>,
    /// Leases of our controllers.
    #[serde(default)]
    pub leases: Vec<LeaseFact>,
    /// Pods.
    #[serde(default)]
    pub pods: Vec<PodFact>,
    /// Operands whose pods nobody asked for, because their DaemonSets say that all are ready.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pods_not_read: BTreeSet<String>,
    /// Events.
    #[serde(default)]
    pub events: Vec<EventFact>,
    /// Quotas.
    #[serde(default)]
    pub quotas: Vec<QuotaFact>,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<NamespaceFact>,
    /// Disruption budgets.
    #[serde(default)]
    pub budgets: Vec<BudgetFact>,
}

impl Facts {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(at: Timestamp, operand_namespace: &str, namespace: &str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            at,
            operand_namespace: operand_namespace.into(),
            namespace: namespace.into(),
            read: BTreeSet::new(),
            unread: vec![],
            crd: None,
            configs: vec![],
            nodes: vec![],
            daemon_sets: vec![],
            deployments: vec![],
            leases: vec![],
            pods: vec![],
            pods_not_read: BTreeSet::new(),
            events: vec![],
            quotas: vec![],
            namespaces: vec![],
            budgets: vec![],
        }
    }

    /// Whether what is not among the facts of this kind does not exist.
    #[must_use]
    pub fn knows(&self, kind: Kind) -> bool {
        self.read.contains(&kind)
    }

    /// Takes an object over, whatever it is; what is not asked for anywhere is left out.
    pub fn add(&mut self, object: Value) -> Result<(), serde_json::Error> {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "AcceleratorConfig" => self.configs.push(serde_json::from_value(object)?),
            "CustomResourceDefinition" => self.crd = Some(CrdFact::of(&object)),
            "DaemonSet" => self.daemon_sets.push(serde_json::from_value(object)?),
            "Deployment" => self.deployments.push(serde_json::from_value(object)?),
            "Event" => self.events.push(serde_json::from_value(object)?),
            "Lease" => self.leases.push(serde_json::from_value(object)?),
            "Namespace" => self.namespaces.push(serde_json::from_value(object)?),
            "Node" => self.nodes.push(serde_json::from_value(object)?),
            "Pod" => self.pods.push(serde_json::from_value(object)?),
            "PodDisruptionBudget" => self.budgets.push(serde_json::from_value(object)?),
            "ResourceQuota" => self.quotas.push(serde_json::from_value(object)?),
            _ => {}
        }
        Ok(())
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeFact> {
        self.nodes.iter().find(|node| node.metadata.name == name)
    }

    /// The AcceleratorConfig that counts.
    #[must_use]
    pub fn active(&self) -> Option<&ConfigFact> {
        let metas: Vec<_> = self.configs.iter().map(|config| config.metadata.object_meta()).collect();
        accelerator_api::active(&metas).map(|index| &self.configs[index])
    }

    /// Pods of this operand.
    pub fn pods_of<'a>(&'a self, operand: &'a str) -> impl Iterator<Item = &'a PodFact> {
        let own = move |pod: &&PodFact| pod.metadata.namespace == self.operand_namespace && pod.operand() == operand;
        self.pods.iter().filter(own)
    }

    /// DaemonSets of this operand: one, and of the driver one for each pool.
    pub fn daemon_sets_of<'a>(&'a self, operand: &'a str) -> impl Iterator<Item = &'a DaemonSetFact> {
        self.daemon_sets.iter().filter(move |one| one.metadata.name == operand || one.operand() == operand)
    }

    /// The lease of this program.
    #[must_use]
    pub fn lease(&self, program: &str) -> Option<&LeaseFact> {
        self.leases.iter().find(|lease| lease.metadata.name == program && lease.metadata.namespace == self.namespace)
    }

    /// Deployments of this program, in any namespace.
    pub fn deployments_of<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a DeploymentFact> {
        self.deployments.iter().filter(move |one| one.program() == program)
    }
}
