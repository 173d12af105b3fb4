//! What the driver's controller sees: nodes, pods, and what no watch tells.

use std::collections::BTreeMap;
use std::sync::Arc;

use accelerator_api::contract::COMPONENTS;
use k8s_openapi::jiff::Timestamp;

use super::{Driver, references};
use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods, Pod, Rules};
use crate::policy::Policy;
use crate::pools::{self, Existing, Request};
use crate::seen::Kept;

/// Nodes and driver pods at one moment, and how often they had changed by then.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) nodes: Arc<[Kept<NodeView>]>,
    pub(super) pods: Arc<[Kept<DriverPod>]>,
    pub(super) changes: Option<(u64, u64)>,
}

/// What pools are worked out from.
#[derive(Debug, PartialEq)]
pub(super) struct Basis {
    request: Option<Request>,
    existing: Vec<Existing>,
    changes: Option<(u64, u64)>,
}

impl Basis {
    /// Whether there is a DaemonSet of all nodes, which counts its pods itself, also while it is being deleted.
    pub(super) fn has_common(&self) -> bool {
        self.existing.iter().any(|one| one.pool.is_none())
    }
}

impl Driver {
    /// Nodes and pods as they are now; `None` as long as they have not been listed.
    pub(super) fn see(&mut self) -> Option<Seen> {
        let changes = (self.nodes.with(|nodes| nodes.changes()), self.pods.with(|pods| pods.changes()));
        if self.seen.changes != Some(changes) {
            self.seen = Seen {
                nodes: self.nodes.with(|nodes| nodes.snapshot())?.into(),
                pods: self.pods.with(|pods| pods.snapshot())?.into(),
                changes: Some(changes),
            };
        }
        Some(self.seen.clone())
    }

    /// What is wanted: worked out again only when something that it depends on has changed.
    pub(super) fn work_out(&mut self, request: Option<Request>, existing: Vec<Existing>, seen: &Seen) {
        let basis = Basis { request, existing, changes: seen.changes };
        if self.basis.as_ref() != Some(&basis) {
            let (nodes, pods) = (references(&seen.nodes), references(&seen.pods));
            self.pools = pools::pools(basis.request.as_ref(), &nodes, &pods, &basis.existing);
            self.basis = Some(basis);
        }
    }

    /// Finds out what no watch tells: about nodes that have left the driver, and what became of writes that were not answered.
    pub(super) async fn catch_up(&mut self, present: &[Kept<NodeView>]) -> Result<(), kube::Error> {
        for node in self.strays.look(present).await? {
            self.take_over(&node);
        }
        let (read, outcome) = read_each(self.actor.unread(), async |name| self.strays.read(name).await).await;
        for (name, node) in read {
            match node {
                Some(node) => self.take_over(&node),
                None => self.strays.gone(&name),
            }
            self.actor.read(&name);
        }
        outcome
    }

    /// Takes over a node that was read, which may be newer than what the watch has shown.
    fn take_over(&mut self, node: &Kept<NodeView>) {
        self.strays.answered(node.clone());
        if node.carries_deploy_label {
            self.nodes.with(|store| store.answered(&node.name, node.clone()));
        }
    }

    /// The pods of nodes that are followed, sorted by what has to become of them.
    pub(super) async fn sort_pods(
        &mut self,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<BTreeMap<String, NodePods>, kube::Error> {
        let followed = self.follower.listed();
        let all: Vec<_> = followed.values().flatten().cloned().collect();
        let claims = self.claims.of(&all).await?;
        let dependents: Vec<_> = COMPONENTS.iter().filter(|one| one.uses_driver).map(|one| one.operand).collect();
        let rules = Rules::new(policy, &self.operands, &self.controllers, &dependents, &claims);
        let sort = |pods: &[Arc<Pod>]| rules.sort(pods.iter().map(AsRef::as_ref));
        let mut sorted: BTreeMap<_, _> = followed.iter().map(|(node, pods)| (node.clone(), sort(pods))).collect();
        for pod in sorted.values_mut().flat_map(|pods| &mut pods.to_evict) {
            pod.refusal = self.actor.refusal(&pod.uid).map(str::to_owned);
        }
        self.jobs_gone.retain(|node, _| sorted.get(node).is_some_and(|pods| pods.jobs.is_empty()));
        for node in sorted.iter().filter(|(_, pods)| pods.jobs.is_empty()).map(|(node, _)| node) {
            self.jobs_gone.entry(node.clone()).or_insert(now);
        }
        Ok(sorted)
    }
}

/// Reads each of these until one cannot be read. What was read by then is returned in any case: it is not read again.
async fn read_each<T, E>(
    names: Vec<String>,
    read: impl AsyncFn(&str) -> Result<T, E>,
) -> (Vec<(String, T)>, Result<(), E>) {
    let mut found = vec![];
    for name in names {
        match read(&name).await {
            Ok(one) => found.push((name, one)),
            Err(error) => return (found, Err(error)),
        }
    }
    (found, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_kept_when_the_next_cannot_be() {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let read = read_each(names, async |name| if name == "b" { Err("down") } else { Ok(name.len()) }).await;
        assert_eq!(read, (vec![("a".to_owned(), 1)], Err("down")));
    }
}
