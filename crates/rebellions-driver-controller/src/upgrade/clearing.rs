//! Freeing a node of jobs and of pods that use NPUs.

use k8s_openapi::jiff::Timestamp;

use super::record::later;
use super::{Action, EVICTION_RETRY, Member, Policy, Reason};
use crate::pods::{NodePods, WorkloadPod};

/// How far that is.
pub(super) enum Clearing {
    /// Nothing is left.
    Clear,
    /// Something is left, for this reason. `due` is when time alone changes something.
    Waits { reason: Reason, evictions: Vec<Action>, due: Option<Timestamp> },
    /// It cannot be done.
    Failed(Reason),
}

/// What to do about the pods of a node that has been at it since then.
pub(super) fn clearing(member: &Member<'_>, since: Timestamp, policy: &Policy, now: Timestamp) -> Clearing {
    let Some(pods) = member.pods else {
        let limit = later(since, policy.eviction_timeout);
        return if limit <= now { Clearing::Failed(Reason::PodsUnknown) } else { waits(Reason::PodsUnknown, limit) };
    };
    let last_for_jobs = policy.job_timeout.map(|timeout| later(since, timeout));
    let waits_for_jobs = !pods.jobs.is_empty() && last_for_jobs.is_none_or(|last| now < last);
    if pods.to_evict.iter().any(|pod| is_obstacle(pod) && !(waits_for_jobs && pods.jobs.contains(&pod.pod))) {
        return Clearing::Failed(Reason::PodNotEvictable);
    }
    if waits_for_jobs {
        return Clearing::Waits { reason: Reason::JobsRunning, evictions: Vec::new(), due: last_for_jobs };
    }
    if pods.to_evict.is_empty() {
        return Clearing::Clear;
    }
    let through = jobs_through(member, pods, since, last_for_jobs, policy);
    let limit = later(through, policy.eviction_timeout);
    if limit <= now {
        return Clearing::Failed(Reason::EvictionTimedOut);
    }
    let is_refused = pods.to_evict.iter().any(|pod| pod.refusal.is_some() && !pod.is_terminating);
    let due = if is_refused { later(now, EVICTION_RETRY).min(limit) } else { limit };
    Clearing::Waits { reason: Reason::EvictingPods, evictions: evictions(member, pods), due: Some(due) }
}

/// Whether nothing but its own end makes it leave. Then no other pod is disturbed in vain, and the node does not stay cordoned.
pub(super) fn is_obstacle(pod: &WorkloadPod) -> bool {
    pod.obstacle.is_some() && !pod.is_terminating
}

/// Since when no job holds up evictions any more. That jobs are gone is only remembered by the process that saw it: one that is
/// started again gives evictions their time once more.
fn jobs_through(
    member: &Member<'_>,
    pods: &NodePods,
    since: Timestamp,
    last_for_jobs: Option<Timestamp>,
    policy: &Policy,
) -> Timestamp {
    let gone = if !policy.job_selector.is_empty() && pods.jobs.is_empty() { member.jobs_gone } else { None };
    let through = match (gone, last_for_jobs) {
        (Some(gone), Some(last)) => gone.min(last),
        (Some(gone), None) => gone,
        (None, Some(last)) if !pods.jobs.is_empty() => last,
        (None, _) => since,
    };
    through.max(since)
}

fn evictions(member: &Member<'_>, pods: &NodePods) -> Vec<Action> {
    let leaving = pods.to_evict.iter().filter(|pod| !pod.is_terminating);
    leaving
        .map(|pod| Action::Evict { node: member.node.name.clone(), pod: pod.pod.clone(), uid: pod.uid.clone() })
        .collect()
}

fn waits(reason: Reason, due: Timestamp) -> Clearing {
    Clearing::Waits { reason, evictions: Vec::new(), due: Some(due) }
}
