//! Facts that are looked up for each of thousands of nodes: which config counts, and which pods are where.

use std::collections::HashMap;

use accelerator_api::{ObservedConfig, Rebellions};

use crate::facts::{ConfigFact, Facts, PodFact};

/// A cluster, ready to be asked about its nodes.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// Everything that is known.
    pub facts: &'a Facts,
    /// The AcceleratorConfig that counts.
    pub active: Option<ObservedConfig>,
    pods: HashMap<String, Vec<&'a PodFact>>,
}

impl<'a> Cluster<'a> {
    /// Of these facts.
    #[must_use]
    pub fn new(facts: &'a Facts) -> Self {
        let mut pods: HashMap<String, Vec<&PodFact>> = HashMap::new();
        for pod in facts.pods.iter().filter(|pod| pod.metadata.namespace == facts.operand_namespace) {
            pods.entry(pod.node()).or_default().push(pod);
        }
        Self { facts, active: facts.active().map(ConfigFact::observed), pods }
    }

    /// The section of our provider in the AcceleratorConfig that counts.
    #[must_use]
    pub fn rebellions(&self) -> Option<&Rebellions> {
        self.active.as_ref()?.spec.as_ref().ok()?.providers.rebellions.as_ref()
    }

    /// The pod of an operand on a node: of several the one that is not about to go.
    #[must_use]
    pub fn pod(&self, node: &str, operand: &str) -> Option<&'a PodFact> {
        let here = self.pods.get(node).into_iter().flatten().filter(|pod| pod.operand() == operand);
        here.min_by_key(|pod| pod.metadata.deletion_timestamp.is_some()).copied()
    }
}
