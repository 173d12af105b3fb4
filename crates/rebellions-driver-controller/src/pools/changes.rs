//! What has to change for the pools: labels of nodes, DaemonSets, and pods that nobody else ends.

use std::collections::{BTreeSet, HashMap};

use accelerator_api::contract::DRIVER_POOL_LABEL;
use serde_json::{Value, json};

use super::{Existing, Leftover, Move, Pool, Pools, Removal, Request, Target};
use crate::node::NodeView;
use crate::pods::DriverPod;
use crate::pool::daemon_set_name;

/// DaemonSets that serve nobody. That of all nodes goes as soon as there are pools, and leaves its pods.
pub(super) fn removals(
    request: Option<&Request>,
    wanted: &[Pool],
    nodes: &[&NodeView],
    pods: &[&DriverPod],
    existing: &[Existing],
) -> Vec<Removal> {
    let wanted: BTreeSet<_> = wanted.iter().map(|pool| pool.name.as_deref()).collect();
    let used = nodes.iter().map(|node| node.pool.as_deref()).chain(pods.iter().map(|pod| pod.pool.as_deref()));
    let used: BTreeSet<_> = used.collect();
    let is_over =
        |pool: Option<&str>| request.is_none() || !wanted.contains(&pool) && (pool.is_none() || !used.contains(&pool));
    let over = existing.iter().map(|one| one.pool.as_deref()).filter(|pool| is_over(*pool));
    over.map(|pool| Removal { name: daemon_set_name(pool), keeps_pods: request.is_some() }).collect()
}

/// Labels that can change now, and pods that have to go because no DaemonSet ends them.
pub(super) fn moves(
    pools: &Pools,
    nodes: &[&NodeView],
    pods: &[&DriverPod],
    existing: &[Existing],
) -> (Vec<Move>, Vec<Leftover>) {
    let removed: BTreeSet<_> = pools.removals.iter().map(|removal| removal.name.as_str()).collect();
    let kept = existing
        .iter()
        .filter(|one| !one.is_ending)
        .map(|one| &one.pool)
        .filter(|pool| !removed.contains(daemon_set_name(pool.as_deref()).as_str()));
    let served: BTreeSet<_> = pools.wanted.iter().map(|pool| &pool.name).chain(kept).collect();
    // A pod whose DaemonSet is gone and that is still owned is ended by Kubernetes.
    let is_ended = |pod: &DriverPod| pod.is_owned && !existing.iter().any(|one| one.pool == pod.pool);
    let is_left = |pod: &DriverPod| !served.contains(&pod.pool) && !is_ended(pod);
    let by_name: HashMap<_, _> = nodes.iter().map(|node| (node.name.as_str(), *node)).collect();
    let mut on_node: HashMap<&str, Vec<&DriverPod>> = HashMap::new();
    let mut leftovers = vec![];
    for pod in pods {
        on_node.entry(&pod.node).or_default().push(pod);
        let is_over = match (by_name.get(pod.node.as_str()), pools.targets.get(&pod.node)) {
            (Some(node), Some(Target::Install { .. })) => is_idle(pod, node),
            (_, Some(Target::Unknown(..))) => false,
            // No driver is wanted there, or the node has lost its deploy label.
            _ => true,
        };
        if is_over && is_left(pod) && !pod.is_terminating {
            leftovers.push(Leftover { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }
    let moves = nodes.iter().filter_map(|node| {
        let wanted = match pools.targets.get(&node.name)? {
            Target::Install { pool, .. } => pool.clone(),
            Target::Nothing => None,
            Target::Unknown(..) => return None,
        };
        // Two drivers must not run on a node: what another DaemonSet ends may be there, what nobody ends may not.
        let is_free = |pod: &&DriverPod| is_idle(pod, node) && !is_left(pod);
        let is_free = on_node.get(node.name.as_str()).is_none_or(|pods| pods.iter().all(is_free));
        (wanted != node.pool && is_free).then(|| Move { node: node.name.clone(), pool: wanted })
    });
    (moves.collect(), leftovers)
}

/// Whether the driver of this pod is not in use: it has never been loaded, or is for another kernel than the node runs.
pub(super) fn is_idle(pod: &DriverPod, node: &NodeView) -> bool {
    let is_for_another_kernel = pod.kernel.as_ref().zip(node.kernel.as_ref()).is_some_and(|(pod, node)| pod != node);
    !pod.has_begun || is_for_another_kernel
}

/// The merge patch that a move is.
#[must_use]
pub fn patch(change: &Move, version: u64) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string(), "labels": {DRIVER_POOL_LABEL: change.pool}}})
}
