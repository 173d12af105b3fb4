//! From what is seen to what is done.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::DRIVER_POOL_LABEL;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::Driver;
use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods};
use crate::policy::Policy;
use crate::pools::{self, Target};
use crate::upgrade::{self, Action, DriverPods, Fleet, Member, Refusal, UpgradePlan};

/// What a plan is made from.
pub(super) struct Sight<'a> {
    pub(super) nodes: &'a [&'a NodeView],
    pub(super) pods: &'a [DriverPod],
    pub(super) sorted: &'a BTreeMap<String, NodePods>,
    pub(super) refused: &'a BTreeMap<String, Refusal>,
    pub(super) now: Timestamp,
}

impl Driver {
    pub(super) fn plan(&self, policy: &Policy, seen: &Sight<'_>) -> UpgradePlan {
        let by_node = seen.pods.iter().fold(BTreeMap::<&str, Vec<&DriverPod>>::new(), |mut all, pod| {
            all.entry(pod.node.as_str()).or_default().push(pod);
            all
        });
        let members: Vec<_> = seen
            .nodes
            .iter()
            .map(|node| {
                let target = self.target(&node.name);
                let mut driver = DriverPods::default();
                for pod in by_node.get(node.name.as_str()).into_iter().flatten() {
                    driver.add(pod, target);
                }
                driver.is_orphan = driver.current.is_some_and(|pod| !self.installed.contains_key(&pod.pool));
                let (pods, jobs_gone) = (seen.sorted.get(&node.name), self.jobs_gone.get(&node.name).copied());
                Member { node, target, driver, pods, jobs_gone, refusal: seen.refused.get(&node.name) }
            })
            .collect();
        upgrade::plan(&Fleet {
            policy,
            members: &members,
            own_node: self.own_node.as_deref(),
            is_rolled_back: self.rollback.is_written,
            now: seen.now,
        })
    }

    /// What a node should run. A driver counts only once its DaemonSet would install it.
    fn target(&self, node: &str) -> upgrade::Target<'_> {
        match self.pools.targets.get(node) {
            Some(Target::Install { pool, digest }) if self.installed.get(pool) == Some(digest) => {
                upgrade::Target::Install { pool: pool.as_deref(), digest }
            }
            Some(Target::Install { .. }) => upgrade::Target::Pending,
            Some(Target::Unknown(_, why)) => upgrade::Target::Unknown(why),
            Some(Target::Nothing) | None => upgrade::Target::None,
        }
    }

    /// The plan's actions, and those by which nodes change pools without being disturbed.
    pub(super) fn actions(&self, plan: &mut UpgradePlan, nodes: &[&NodeView]) -> Vec<Action> {
        let mut actions = std::mem::take(&mut plan.actions);
        let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (node.name.as_str(), *node)).collect();
        self.renew_versions(&mut actions, &nodes);
        let planned: BTreeSet<_> = actions.iter().map(|action| action.node().to_owned()).collect();
        let mut moves = vec![];
        for change in self.pools.moves.iter().filter(|change| !planned.contains(&change.node)) {
            let Some(node) = nodes.get(change.node.as_str()) else { continue };
            let patch = pools::patch(change, node.version);
            moves.push(Action::Patch { node: change.node.clone(), patch, tell: None });
        }
        self.renew_versions(&mut moves, &nodes);
        actions.append(&mut moves);
        for node in self.strays.iter().filter(|node| node.pool.is_some() && !planned.contains(&node.name)) {
            // Its version is as old as its last sign; the label is ours whatever happened since.
            let patch = json!({"metadata": {"uid": node.uid, "labels": {DRIVER_POOL_LABEL: null}}});
            actions.push(Action::Patch { node: node.name.clone(), patch, tell: None });
        }
        for pod in &self.pools.leftovers {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            actions.push(Action::DeleteDriverPod { node: String::new(), name, uid });
        }
        actions
    }

    /// Lets patches be for the newest version of a node where only heartbeats have come since: a plan is made from what was seen
    /// when something had changed last.
    fn renew_versions(&self, actions: &mut [Action], seen: &BTreeMap<&str, &NodeView>) {
        for action in actions {
            let Action::Patch { node, patch, .. } = action else { continue };
            let before = seen.get(node.as_str());
            let version =
                before.and_then(|before| self.nodes.with(|nodes| nodes.still(node, before).map(|now| now.version)));
            if let Some(version) = version {
                patch["metadata"]["resourceVersion"] = version.to_string().into();
            }
        }
    }
}
