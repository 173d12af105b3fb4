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
use crate::seen::Kept;
use crate::upgrade::{self, Action, DriverPods, Fleet, Member, Refusal, UpgradePlan};

/// How many nodes get or lose the label of their pool between two looks: a request is held as a whole until it is sent.
const LABELS_AT_ONCE: usize = 500;

/// What a plan is made from.
pub(super) struct Sight<'a> {
    pub(super) nodes: &'a [&'a NodeView],
    pub(super) pods: &'a [Kept<DriverPod>],
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
    pub(super) fn actions(&self, plan: &mut UpgradePlan, nodes: &BTreeMap<&str, &NodeView>) -> Vec<Action> {
        let mut actions = std::mem::take(&mut plan.actions);
        let planned: BTreeSet<_> = actions.iter().map(|action| action.node().to_owned()).collect();
        let moves = self.pools.moves.iter().filter_map(|change| {
            let node = nodes.get(change.node.as_str())?;
            Some((*node, pools::patch(change, node.version)))
        });
        let strays = self.strays.iter().filter(|node| node.pool.is_some()).map(|node| {
            // Its version is as old as its last sign; the label is ours whatever happened since.
            (&**node, json!({"metadata": {"uid": node.uid, "labels": {DRIVER_POOL_LABEL: null}}}))
        });
        let mut left = LABELS_AT_ONCE;
        for (node, patch) in moves.chain(strays).filter(|(node, _)| !planned.contains(&node.name)) {
            let is_due = self.actor.is_due(&node.name);
            if is_due && left == 0 {
                plan.held_back.push(node.name.clone());
                continue;
            }
            left -= usize::from(is_due);
            actions.push(Action::Patch { node: node.name.clone(), patch, tell: None });
        }
        for pod in &self.pools.leftovers {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            actions.push(Action::DeleteDriverPod { node: String::new(), name, uid });
        }
        actions
    }
}
