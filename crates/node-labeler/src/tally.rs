//! Sums over all nodes, kept up to date one node at a time.

use std::collections::BTreeSet;

use accelerator_api::contract::{COMPONENTS, Workload};
use accelerator_api::{NodeCounts, count};

use crate::rules::{Decision, NodeState};
use crate::view::{DeployLabel, PerComponent};

/// The sums.
#[derive(Debug, Default)]
pub struct Tally {
    counts: NodeCounts,
    assigned: PerComponent<i64>,
    pending: i64,
    invalid: BTreeSet<Box<str>>,
    stepped_aside: BTreeSet<Box<str>>,
}

impl Tally {
    /// Adds a node. `differs` tells whether it is still to be written.
    pub fn add(&mut self, name: &str, decision: &Decision, differs: bool) {
        self.count(decision, differs, 1);
        if decision.state == NodeState::InvalidMode {
            self.invalid.insert(name.into());
        }
        if decision.deploy.contains(&DeployLabel::SteppedAside) {
            self.stepped_aside.insert(name.into());
        }
    }

    /// Takes a node out that was added with exactly this.
    pub fn remove(&mut self, name: &str, decision: &Decision, differs: bool) {
        self.count(decision, differs, -1);
        self.invalid.remove(name);
        self.stepped_aside.remove(name);
    }

    /// Nodes per mode.
    #[must_use]
    pub fn counts(&self) -> NodeCounts {
        self.counts.clone()
    }

    /// Nodes that carry, or are about to carry, each component's deploy label.
    #[must_use]
    pub fn assigned(&self) -> PerComponent<i64> {
        self.assigned
    }

    /// Nodes whose labels are still to be written.
    #[must_use]
    pub fn pending(&self) -> i64 {
        self.pending
    }

    /// How many nodes have a workload label that is no mode, and one of them, for people.
    #[must_use]
    pub fn invalid(&self) -> Option<String> {
        let first = self.invalid.first()?;
        let nodes = count(self.invalid.len().try_into().unwrap_or(i64::MAX), "node");
        Some(format!("left as it is: {nodes} with a workload label that is no mode, such as {first}"))
    }

    /// How many nodes have components that step aside, and one of them, for people.
    #[must_use]
    pub fn stepped_aside(&self) -> Option<String> {
        let first = self.stepped_aside.first()?;
        let dependents: Vec<_> = COMPONENTS.iter().filter(|row| row.uses_driver).map(|row| row.name).collect();
        let nodes = match self.stepped_aside.len() {
            1 => format!("node {first}"),
            more => format!("{more} nodes, such as {first}"),
        };
        Some(format!("while their driver is upgraded, {} step aside on {nodes}", dependents.join(", ")))
    }

    fn count(&mut self, decision: &Decision, differs: bool, sign: i64) {
        let count = match decision.state {
            NodeState::Unrelated => None,
            NodeState::InMode(Workload::Container) => Some(&mut self.counts.container),
            NodeState::InMode(Workload::VmPassthrough) => Some(&mut self.counts.vm_passthrough),
            NodeState::WithoutMode => Some(&mut self.counts.without_mode),
            NodeState::InvalidMode => Some(&mut self.counts.invalid_mode),
            NodeState::Skipped => Some(&mut self.counts.skipped),
        };
        if let Some(count) = count {
            *count += sign;
        }
        for (sum, label) in self.assigned.iter_mut().zip(decision.deploy) {
            *sum += if label.is_set() { sign } else { 0 };
        }
        if differs {
            self.pending += sign;
        }
    }
}
