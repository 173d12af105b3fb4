//! `give-back` as the init container of a component that needs NPUs on their native driver: waits for the end of those who
//! use one, and sees to it that the kubelet tells whom it waits for.
//!
//! What a container says reaches the API server only when the container ends, and each end doubles the time until the kubelet
//! starts it again. So it ends for a cause that was not told yet, and waits inside for one that was.

use std::time::{Duration, Instant};

use tracing::info;

use crate::commands::{Outcome, act, print};
use crate::decide::Goal;
use crate::options::{Common, GiveBack};
use crate::schedule::next_look;
use crate::stop::Stop;
use crate::verdict::State;

/// How many causes are told one soon after the other: the kubelet waits 10 s after the first, then 20 s and 40 s.
const TOLD_AT_ONCE: usize = 3;

/// What follows a look that found NPUs in use.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// End, and remember that these causes were told.
    End(Vec<String>),
    /// Look again.
    Wait,
}

/// Decides whether a cause is worth an end. `told` are the causes that were, since the kubelet last forgot earlier ends.
fn next(told: &[String], cause: &str, waited: Duration, limit: Duration) -> Next {
    if waited >= limit {
        return Next::End(vec![cause.to_owned()]);
    }
    if told.len() >= TOLD_AT_ONCE || told.iter().any(|one| one == cause) {
        return Next::Wait;
    }
    Next::End(told.iter().cloned().chain([cause.to_owned()]).collect())
}

/// Gives back what is free, and waits for the rest as long as it may.
pub fn give_back(common: &Common, GiveBack { once, wait_in_use }: GiveBack) -> anyhow::Result<Outcome> {
    let (begun, limit) = (Instant::now(), Duration::from_secs(wait_in_use));
    let records = common.worker().records;
    let pod = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let stop = Stop::listen()?;
    let mut waits_for = String::new();
    loop {
        let acted = act(common, Goal::GiveBack, once, &stop)?;
        let is_held = acted.report.as_ref().is_some_and(|report| report.waits_for_users(Goal::GiveBack));
        if limit.is_zero() || once.dry_run || !is_held {
            if acted.outcome == Outcome::Done && !limit.is_zero() {
                records.forget_told()?;
            }
            print(&acted.text)?;
            return Ok(acted.outcome);
        }
        let cause = acted.report.map(|report| report.message).unwrap_or_default();
        match next(&records.told(&pod), &cause, begun.elapsed(), limit) {
            Next::End(told) => {
                records.set_told(&pod, &told)?;
                print(&acted.text)?;
                return Ok(acted.outcome);
            }
            Next::Wait if stop.wait(next_look(State::Busy, 0)) => {
                print(&acted.text)?;
                return Ok(acted.outcome);
            }
            Next::Wait if waits_for != cause => {
                info!(message = %cause, "Waiting for the end of those who use NPUs");
                waits_for = cause;
            }
            Next::Wait => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(11);

    fn told(causes: &[&str]) -> Vec<String> {
        causes.iter().map(|cause| (*cause).to_owned()).collect()
    }

    #[test]
    fn a_cause_is_told_once_and_then_waited_for() {
        let soon = Duration::from_secs(1);
        assert_eq!(next(&[], "a", soon, LIMIT), Next::End(told(&["a"])));
        assert_eq!(next(&told(&["a"]), "a", soon, LIMIT), Next::Wait);
        assert_eq!(next(&told(&["a"]), "b", soon, LIMIT), Next::End(told(&["a", "b"])));
    }

    /// Users who come and go would have the kubelet wait ever longer.
    #[test]
    fn after_some_causes_the_next_one_is_told_when_the_kubelet_has_forgotten_the_others() {
        let many = told(&["a", "b", "c"]);
        assert_eq!(next(&many, "d", Duration::from_mins(10), LIMIT), Next::Wait);
        assert_eq!(next(&many, "d", LIMIT, LIMIT), Next::End(told(&["d"])));
        assert_eq!(next(&told(&["d"]), "e", Duration::ZERO, LIMIT), Next::End(told(&["d", "e"])));
    }
}
