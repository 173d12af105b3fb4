//! Conditions as Kubernetes wants them.

use accelerator_api::Reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The next state of a condition. Its transition time moves only when its status does, so that a condition that says the
/// same again is equal to the one before and need not be written.
#[must_use]
pub fn condition(
    previous: Option<&Condition>,
    kind: &str,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    stated(previous, kind, (reason.status(), reason.as_str()), message, generation, now)
}

/// As [`condition`], of a condition that is there only while it is true, with a reason of the component's own.
#[must_use]
pub fn present(
    previous: Option<&Condition>,
    kind: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    stated(previous, kind, ("True", reason), message, generation, now)
}

fn stated(
    previous: Option<&Condition>,
    kind: &str,
    (status, reason): (&str, &str),
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let since =
        previous.filter(|previous| previous.status == status).map(|previous| previous.last_transition_time.clone());
    Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        // Stored with a precision of seconds: anything finer would differ from what comes back.
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number of seconds")
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = condition(None, "X", Reason::RolloutInProgress, "1 of 2", Some(1), at(10));
        let same_status = condition(Some(&first), "X", Reason::PodsNotReady, "2 of 2", Some(1), at(20));
        assert_eq!(same_status.last_transition_time.0, at(10));
        let other_status = condition(Some(&same_status), "X", Reason::Ready, "", Some(1), at(30));
        assert_eq!(other_status.last_transition_time.0, at(30));
        assert_eq!(condition(Some(&other_status), "X", Reason::Ready, "", Some(1), at(40)), other_status);
    }
}
