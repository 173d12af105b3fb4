//! What a DaemonSet's status says about its rollout.

use accelerator_api::{Reason, count};
use k8s_openapi::api::apps::v1::DaemonSet;

use crate::{Findings, ProblemKind};

/// Where an operand stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Its state.
    pub reason: Reason,
    /// What is missing, for people.
    pub message: String,
    /// Whether a pod is known to fail, so that somebody may have to act if it lasts.
    pub needs_attention: bool,
}

impl Default for Observation {
    /// No node is to run it.
    fn default() -> Self {
        let message = "no node carries the deploy label and could run a pod".into();
        Self { reason: Reason::NoNodesSelected, message, needs_attention: false }
    }
}

impl Observation {
    /// Whether pods should be looked at, because only they can tell what is missing.
    #[must_use]
    pub fn is_about_pods(&self) -> bool {
        matches!(self.reason, Reason::RolloutInProgress | Reason::PodsNotReady | Reason::NodesNotReady)
    }
}

/// The counts of a DaemonSet's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes that should run a pod.
    pub desired: i64,
    /// Of these, nodes that have one.
    pub current: i64,
    /// Of these, nodes whose pod is of the newest revision.
    pub updated: i64,
    /// Of these, nodes whose pod is ready.
    pub ready: i64,
    /// Of these, nodes whose pod has been ready for `minReadySeconds`.
    pub available: i64,
    /// Nodes that should not run a pod and have one.
    pub misplaced: i64,
}

impl Counts {
    /// The counts of this DaemonSet; all zero before its controller has observed it.
    #[must_use]
    pub fn of(daemon_set: &DaemonSet) -> Self {
        let Some(status) = &daemon_set.status else { return Self::default() };
        Self {
            desired: status.desired_number_scheduled.into(),
            current: status.current_number_scheduled.into(),
            updated: status.updated_number_scheduled.unwrap_or(0).into(),
            ready: status.number_ready.into(),
            available: status.number_available.unwrap_or(0).into(),
            misplaced: status.number_misscheduled.into(),
        }
    }

    /// Pods that do not exist although they should.
    #[must_use]
    pub fn missing(self) -> i64 {
        (self.desired - self.current).max(0)
    }

    /// Pods that exist and are not as they should be: not ready, or where none should be. Only they can tell why.
    #[must_use]
    pub fn unready(self) -> i64 {
        (self.desired - self.ready - self.missing()).max(0) + self.misplaced
    }
}

/// Where an operand stands, from its DaemonSet and from what is known of its pods that are not ready.
///
/// Ready needs all of: the DaemonSet controller has seen the newest generation, every selected node runs the newest
/// revision and is available, no pod is left on a node that should not have one, and no pod is known to be ending. A pod
/// that is left on a node that does not answer is not waited for: nobody can end it before the node is back or gone.
#[must_use]
pub fn observe(daemon_set: &DaemonSet, pods: &Findings) -> Observation {
    let counts = Counts::of(daemon_set);
    let seen = daemon_set.status.as_ref().and_then(|status| status.observed_generation);
    let (reason, message) = if daemon_set.metadata.deletion_timestamp.is_some() {
        (Reason::AwaitingObservation, "the DaemonSet is being deleted and will be made anew".into())
    } else if seen < daemon_set.metadata.generation {
        (Reason::AwaitingObservation, "the DaemonSet controller has not seen the newest DaemonSet yet".into())
    } else if counts.updated < counts.desired {
        rollout(counts, pods, is_on_delete(daemon_set))
    } else if counts.available < counts.desired && counts.ready >= counts.desired {
        let waiting = count(counts.ready - counts.available, "pod");
        let nodes = count(counts.desired, "node");
        let message = format!("ready on {} of {nodes}, {waiting} for less than minReadySeconds", counts.ready);
        (Reason::RolloutInProgress, message)
    } else if counts.available < counts.desired {
        let unready = counts.desired - counts.available;
        let reason = if is_about_nodes(unready, pods) { Reason::NodesNotReady } else { Reason::PodsNotReady };
        let nodes = count(counts.desired, "node");
        (reason, format!("ready on {} of {nodes}{}", counts.available, pods.sentence(unready)))
    } else {
        leftovers(counts, pods)
    };
    let needs_attention = matches!(reason, Reason::RolloutInProgress | Reason::PodsNotReady)
        && pods.worst().is_some_and(|worst| worst >= ProblemKind::NotReady);
    Observation { reason, message, needs_attention }
}

/// Pods are missing, or of an older revision.
fn rollout(counts: Counts, pods: &Findings, on_delete: bool) -> (Reason, String) {
    let outdated = (counts.current - counts.updated).max(0);
    let is_failing = pods.worst().is_some_and(ProblemKind::is_failure);
    let reason = if is_failing {
        // A rollout that cannot go on needs a person.
        Reason::PodsNotReady
    } else if is_about_nodes(counts.desired - counts.updated, pods) {
        Reason::NodesNotReady
    } else {
        Reason::RolloutInProgress
    };
    let nodes = count(counts.desired, "node");
    let what = if outdated > 0 {
        format!("newest revision on {} of {nodes}", counts.updated)
    } else {
        format!("a pod on {} of {nodes}", counts.current)
    };
    // Not while the newest revision fails, which would then fail on one more node, and not for pods that end already.
    let advise = on_delete && !is_failing && outdated > pods.count(ProblemKind::Terminating);
    let how = if advise { "; delete a node's pod to update it" } else { "" };
    (reason, format!("{what}{how}{}", pods.sentence(counts.desired - counts.available)))
}

/// Every node that is selected has what it should have; pods may be left where none should be.
fn leftovers(counts: Counts, pods: &Findings) -> (Reason, String) {
    let lost = pods.count(ProblemKind::NodeNotReady);
    let to_go = counts.misplaced - lost;
    let ending = pods.count(ProblemKind::Terminating);
    if to_go > 0 {
        let what = count(to_go, "pod");
        let message = format!("{what} of nodes that labels or taints no longer select still to go");
        return (Reason::RolloutInProgress, message + &pods.sentence(counts.misplaced));
    }
    if ending > 0 && counts.misplaced == 0 {
        // The DaemonSet controller counts a pod as available until its containers have ended.
        let message = format!("{} that the DaemonSet counts as available still to end", count(ending, "pod"));
        return (Reason::RolloutInProgress, message + &pods.sentence_of(ProblemKind::Terminating));
    }
    let apart =
        if lost > 0 { format!("; not counted{}", pods.sentence_of(ProblemKind::NodeNotReady)) } else { String::new() };
    match counts.desired {
        0 => (Reason::NoNodesSelected, format!("no node carries the deploy label and could run a pod{apart}")),
        desired => (Reason::Ready, format!("ready on {desired} of {}{apart}", count(desired, "node"))),
    }
}

/// Whether all that is missing is on nodes that do not answer.
fn is_about_nodes(unready: i64, pods: &Findings) -> bool {
    pods.worst() == Some(ProblemKind::NodeNotReady) && pods.count(ProblemKind::NodeNotReady) >= unready
}

fn is_on_delete(daemon_set: &DaemonSet) -> bool {
    let strategy = daemon_set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"))
}

#[cfg(test)]
mod tests;
