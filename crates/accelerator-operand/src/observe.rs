//! What a DaemonSet's status says about its rollout.

use accelerator_api::{Reason, count};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use crate::PodTrouble;
use crate::pods::summary;

/// Where an operand stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Its state.
    pub reason: Reason,
    /// What is missing, for people.
    pub message: String,
}

impl Observation {
    /// Whether pods should be looked at, because only they can tell what is missing.
    #[must_use]
    pub fn is_about_pods(&self) -> bool {
        matches!(self.reason, Reason::RolloutInProgress | Reason::PodsNotReady)
    }
}

/// Where an operand stands, from its DaemonSet and from what is known of its pods that are not ready.
///
/// Ready needs all of: the DaemonSet controller has seen the newest generation, every selected node runs the newest
/// revision and is available, and no pod is left on a node that should not have one.
#[must_use]
pub fn observe(daemon_set: &DaemonSet, troubles: &[PodTrouble]) -> Observation {
    let observation = |reason, message| Observation { reason, message };
    let no_status = DaemonSetStatus::default();
    let status = daemon_set.status.as_ref().unwrap_or(&no_status);
    let desired = i64::from(status.desired_number_scheduled);
    let updated = i64::from(status.updated_number_scheduled.unwrap_or(0));
    let available = i64::from(status.number_available.unwrap_or(0));
    let misplaced = i64::from(status.number_misscheduled);
    let on_delete = || {
        let strategy = daemon_set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"))
    };

    if daemon_set.metadata.deletion_timestamp.is_some() {
        observation(Reason::AwaitingObservation, "the DaemonSet is being deleted and will be made anew".into())
    } else if status.observed_generation < daemon_set.metadata.generation {
        observation(
            Reason::AwaitingObservation,
            "the DaemonSet controller has not seen the newest DaemonSet yet".into(),
        )
    } else if desired == 0 && misplaced == 0 {
        observation(Reason::NoNodesSelected, "no node carries the deploy label".into())
    } else if updated < desired {
        let how = if on_delete() { "; delete a node's pod to update it" } else { "" };
        let rest = summary(troubles, desired - available);
        // A rollout that cannot go on needs a person.
        let is_stuck = troubles.iter().any(PodTrouble::is_failure);
        let reason = if is_stuck { Reason::PodsNotReady } else { Reason::RolloutInProgress };
        observation(reason, format!("newest revision on {updated} of {}{how}{rest}", count(desired, "node")))
    } else if available < desired {
        let rest = summary(troubles, desired - available);
        observation(Reason::PodsNotReady, format!("ready on {available} of {}{rest}", count(desired, "node")))
    } else if misplaced > 0 {
        let rest = summary(troubles, misplaced);
        observation(
            Reason::RolloutInProgress,
            format!("{} of nodes that labels or taints no longer select still to go{rest}", count(misplaced, "pod")),
        )
    } else {
        observation(Reason::Ready, format!("ready on {desired} of {}", count(desired, "node")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    /// generation, observed, desired, updated, available, misscheduled
    fn seen(numbers: [i32; 6]) -> (Reason, String) {
        let [generation, observed, desired, updated, available, misplaced] = numbers;
        let daemon_set = DaemonSet {
            metadata: ObjectMeta { generation: Some(generation.into()), ..ObjectMeta::default() },
            status: Some(DaemonSetStatus {
                observed_generation: Some(observed.into()),
                desired_number_scheduled: desired,
                updated_number_scheduled: Some(updated),
                number_available: Some(available),
                number_misscheduled: misplaced,
                ..DaemonSetStatus::default()
            }),
            ..DaemonSet::default()
        };
        let Observation { reason, message } = observe(&daemon_set, &[]);
        (reason, message)
    }

    #[test]
    fn ready_needs_generation_revision_availability_and_no_leftover() {
        let cases = [
            ([2, 1, 3, 3, 3, 0], Reason::AwaitingObservation),
            ([2, 2, 0, 0, 0, 0], Reason::NoNodesSelected),
            ([2, 2, 3, 2, 3, 0], Reason::RolloutInProgress),
            ([2, 2, 3, 3, 2, 0], Reason::PodsNotReady),
            ([2, 2, 3, 3, 3, 1], Reason::RolloutInProgress),
            ([2, 2, 0, 0, 0, 1], Reason::RolloutInProgress),
            ([2, 2, 3, 3, 3, 0], Reason::Ready),
        ];
        for (numbers, reason) in cases {
            assert_eq!(seen(numbers).0, reason, "{numbers:?}");
        }
    }

    #[test]
    fn a_daemonset_that_nobody_has_looked_at_is_not_ready() {
        let fresh =
            DaemonSet { metadata: ObjectMeta { generation: Some(1), ..ObjectMeta::default() }, ..DaemonSet::default() };
        assert_eq!(observe(&fresh, &[]).reason, Reason::AwaitingObservation);
    }

    #[test]
    fn messages_carry_the_counts() {
        assert_eq!(seen([1, 1, 5, 5, 3, 0]).1, "ready on 3 of 5 nodes");
        assert_eq!(seen([1, 1, 5, 2, 5, 0]).1, "newest revision on 2 of 5 nodes");
    }
}
