//! Where the driver stands: what its DaemonSets say of themselves, put right by what is known of nodes and pods. A DaemonSet counts
//! revisions, and knows neither whether another revision installs another driver nor of pods that it has left behind.

use std::collections::BTreeMap;

use accelerator_api::contract::DRIVER_POOL_LABEL;
use accelerator_api::{Reason, count};
use accelerator_operand::{Observation, Outcome};

use crate::pods::DriverPod;
use crate::pool_status::{names, problem, running};
use crate::pools::{Pools, Target};
use crate::upgrade::Refusal;

/// Nodes by the driver that they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes that need a driver of which it is known which.
    pub desired: i64,
    /// Of these, nodes with a pod that installs the wanted one.
    pub updated: i64,
    /// Of these, nodes whose pod is ready.
    pub ready: i64,
    /// Nodes with a pod that installs another one.
    pub outdated: i64,
}

impl Counts {
    /// Counts nodes.
    #[must_use]
    pub fn of(pools: &Pools, pods: &[&DriverPod]) -> Self {
        let mut counts = Self::default();
        let running = running(pods);
        for (node, target) in &pools.targets {
            let Target::Install { digest, .. } = target else { continue };
            let pod = running.get(node.as_str());
            let is_right = pod.is_some_and(|pod| pod.install == *digest);
            counts.desired += 1;
            counts.updated += i64::from(is_right);
            counts.ready += i64::from(is_right && pod.is_some_and(|pod| pod.is_ready));
            counts.outdated += i64::from(pod.is_some() && !is_right);
        }
        counts
    }
}

/// What is known of upgrades.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upgrades<'a> {
    /// Whether drivers are replaced node by node.
    pub are_on: bool,
    /// How one that goes on stands, or why it stands still.
    pub progress: Option<&'a str>,
    /// What there is to say when the wanted driver was given up.
    pub rolled_back: Option<&'a str>,
    /// What there is to say when the API server refuses labels without which nodes get no driver.
    pub refused: Option<&'a str>,
}

/// What is to be said of nodes that get no driver because the API server refuses the label of their pool.
#[must_use]
pub fn refused(pools: &Pools, refused: &BTreeMap<String, Refusal>) -> Option<String> {
    let wanted = pools.moves.iter().filter(|change| change.pool.is_some());
    let nodes: Vec<_> = wanted.filter_map(|change| refused.get_key_value(&change.node)).collect();
    let words = &nodes.first()?.1.words;
    let names = names(&nodes.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>());
    Some(format!(
        "the API server refuses the label {DRIVER_POOL_LABEL}, without which no driver runs, on {names}: {words}"
    ))
}

/// Where the driver stands.
#[must_use]
pub fn refine(outcome: Outcome, pools: &Pools, pods: &[&DriverPod], upgrades: Upgrades<'_>) -> Outcome {
    let Outcome::Observed(seen) = outcome else { return outcome };
    if seen.reason == Reason::AwaitingObservation || seen.reason == Reason::Preinstalled {
        return Outcome::Observed(seen);
    }
    if let Some((reason, message)) = problem(pools, pods) {
        return Outcome::Observed(Observation { reason, message, needs_attention: true });
    }
    if let Some(message) = upgrades.refused {
        return Outcome::Observed(Observation {
            reason: Reason::ApplyFailed,
            message: message.into(),
            needs_attention: true,
        });
    }
    let counts = Counts::of(pools, pods);
    let is_settled = matches!(seen.reason, Reason::Ready | Reason::RolloutInProgress | Reason::NoNodesSelected);
    if !is_settled || seen.needs_attention || counts.desired == 0 {
        return Outcome::Observed(seen);
    }
    let nodes = count(counts.desired, "node");
    let (reason, message) = if counts.outdated > 0 {
        (Reason::RolloutInProgress, rollout(counts, &nodes, upgrades))
    } else if let Some(why) = upgrades.rolled_back {
        (Reason::RolloutInProgress, why.to_owned())
    } else if counts.ready == counts.desired && pods.iter().all(|pod| !pod.is_terminating) {
        (Reason::Ready, format!("ready on {} of {nodes}", counts.ready))
    } else {
        return Outcome::Observed(seen);
    };
    Outcome::Observed(Observation { reason, message, needs_attention: false })
}

fn rollout(counts: Counts, nodes: &str, upgrades: Upgrades<'_>) -> String {
    let done = format!("the wanted driver is on {} of {nodes}", counts.updated);
    match (upgrades.are_on, upgrades.rolled_back.or(upgrades.progress)) {
        (true, Some(progress)) => format!("{done}; {progress}"),
        (true, None) => done,
        (false, _) => format!(
            "{done}, {} wait; delete a node's driver pod to update it, or set upgradePolicy.autoUpgrade",
            counts.outdated
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::Move;

    fn pools(nodes: usize) -> Pools {
        let target = Target::Install { pool: None, digest: "new".into() };
        let targets = (0..nodes).map(|number| (format!("n{number}"), target.clone())).collect();
        Pools { targets, ..Pools::default() }
    }

    fn pod(node: usize, install: &str, is_ready: bool) -> DriverPod {
        DriverPod { node: format!("n{node}"), install: install.into(), is_ready, ..DriverPod::default() }
    }

    fn refined(seen: Reason, pods: &[DriverPod], upgrades: bool) -> (Reason, String) {
        let seen = Observation { reason: seen, message: "as seen".into(), needs_attention: false };
        let pods: Vec<_> = pods.iter().collect();
        let upgrades =
            Upgrades { are_on: upgrades, progress: upgrades.then_some("1 is under way"), ..Upgrades::default() };
        match refine(Outcome::Observed(seen), &pools(2), &pods, upgrades) {
            Outcome::Observed(seen) => (seen.reason, seen.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_revision_with_the_same_driver_is_ready() {
        let pods = [pod(0, "new", true), pod(1, "new", true)];
        let (reason, message) = refined(Reason::RolloutInProgress, &pods, false);
        assert_eq!((reason, message.as_str()), (Reason::Ready, "ready on 2 of 2 nodes"));
    }

    #[test]
    fn pods_with_another_driver_wait_for_a_person_or_for_the_upgrade() {
        let pods = [pod(0, "new", true), pod(1, "old", true)];
        let (reason, message) = refined(Reason::Ready, &pods, false);
        assert_eq!(reason, Reason::RolloutInProgress);
        assert_eq!(
            message,
            "the wanted driver is on 1 of 2 nodes, 1 wait; delete a node's driver pod to update it, or set \
             upgradePolicy.autoUpgrade"
        );
        let (_, message) = refined(Reason::RolloutInProgress, &pods, true);
        assert_eq!(message, "the wanted driver is on 1 of 2 nodes; 1 is under way");
    }

    /// Who waits for Ready must not take the driver before for the one that was asked for.
    #[test]
    fn a_driver_that_was_given_up_is_not_ready() {
        let pods = [pod(0, "new", true), pod(1, "new", true)];
        let pods: Vec<_> = pods.iter().collect();
        let seen = Observation { reason: Reason::Ready, message: String::new(), needs_attention: false };
        let upgrades = Upgrades { are_on: true, rolled_back: Some("given up"), ..Upgrades::default() };
        let Outcome::Observed(seen) = refine(Outcome::Observed(seen), &pools(2), &pods, upgrades) else { panic!() };
        assert_eq!((seen.reason, seen.message.as_str()), (Reason::RolloutInProgress, "given up"));
    }

    /// Its DaemonSet does not count it: all that it says is that the others are ready.
    #[test]
    fn a_node_whose_label_is_refused_is_not_ready() {
        let mut pools = pools(2);
        let refusal = Refusal { words: "a policy says no".into(), retry_at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH };
        let by_node = BTreeMap::from([("n1".to_owned(), refusal)]);
        assert_eq!(refused(&pools, &by_node), None, "it is to be written for another reason");
        pools.moves = vec![Move { node: "n1".into(), pool: Some("p".into()) }];
        let why = refused(&pools, &by_node).expect("something to say");
        assert_eq!(
            why,
            "the API server refuses the label rebellions.ai/npu-driver-pool, without which no driver runs, on n1: a policy says no"
        );
        let seen = Observation { reason: Reason::Ready, message: String::new(), needs_attention: false };
        let upgrades = Upgrades { refused: Some(&why), ..Upgrades::default() };
        let pod = pod(0, "new", true);
        let Outcome::Observed(seen) = refine(Outcome::Observed(seen), &pools, &[&pod], upgrades) else { panic!() };
        assert_eq!((seen.reason, seen.message, seen.needs_attention), (Reason::ApplyFailed, why.clone(), true));
    }

    #[test]
    fn what_pods_lack_is_for_the_daemon_set_to_say() {
        let pods = [pod(0, "new", true), pod(1, "new", false)];
        for seen in [Reason::PodsNotReady, Reason::NodesNotReady, Reason::RolloutInProgress] {
            assert_eq!(refined(seen, &pods, true), (seen, "as seen".into()));
        }
        assert_eq!(refined(Reason::AwaitingObservation, &[], true).0, Reason::AwaitingObservation);
    }

    #[test]
    fn an_image_that_is_missing_comes_first() {
        let mut pools = pools(1);
        pools.targets.insert("x".into(), Target::Unknown(Reason::KernelUnknown, "its kernel is not known".into()));
        let seen = Observation { reason: Reason::Ready, message: String::new(), needs_attention: false };
        let refined = refine(Outcome::Observed(seen), &pools, &[], Upgrades::default());
        let Outcome::Observed(seen) = refined else { panic!("{refined:?}") };
        assert_eq!((seen.reason, seen.message.as_str()), (Reason::KernelUnknown, "x: its kernel is not known"));
    }
}
