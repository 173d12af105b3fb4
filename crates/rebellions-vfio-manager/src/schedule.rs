//! When to look at a device again. Pure: no clock is read here.

use std::time::Duration;

use accelerator_process::Backoff;

use crate::verdict::State;

/// How often a device that is well is looked at, in case a uevent was lost.
pub const RESCAN: Duration = Duration::from_mins(1);

/// How often a device in use is looked at: no event tells when a process closes it.
const BUSY: Duration = Duration::from_secs(10);

/// How often a blocked device is looked at.
const BLOCKED: Duration = Duration::from_secs(30);

/// The first wait after a failure; it doubles.
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait, for this many failures in a row.
const RETRY_LIMIT: Duration = Duration::from_mins(5);
const FAILURES: u32 = 10;
/// The wait after more failures than that.
const LONG_RETRY: Duration = Duration::from_hours(1);

/// How long until the next look at a device in this state, after so many failures in a row.
#[must_use]
pub fn next_look(state: State, failures: u32) -> Duration {
    match state {
        State::Bound | State::Native | State::Excluded => RESCAN,
        State::Busy => BUSY,
        State::Blocked | State::Unbound => BLOCKED,
        State::Failed | State::Stuck if failures > FAILURES => LONG_RETRY,
        State::Failed | State::Stuck => Backoff::new(RETRY, RETRY_LIMIT).step(failures),
    }
}

/// A device that stays bound for so long starts over with counting losses.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);

/// How long to wait before binding a device again that another process unbound for the n-th time in a row: not at all at
/// first, then doubling.
#[must_use]
pub fn rebind_delay(losses: u32) -> Duration {
    /// So many losses are answered at once.
    const AT_ONCE: u32 = 3;
    losses.checked_sub(AT_ONCE).filter(|more| *more > 0).map_or(Duration::ZERO, |more| next_look(State::Failed, more))
}

/// Whether a uevent is a reason to look at a device at once. Attempts that fail cause uevents themselves.
#[must_use]
pub fn event_matters(state: State, is_new: bool) -> bool {
    is_new || !matches!(state, State::Failed | State::Stuck)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_seldom() {
        let waits: Vec<_> = (1..=12).map(|failures| next_look(State::Failed, failures).as_secs()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 3600, 3600]);
    }

    #[test]
    fn what_somebody_takes_again_and_again_is_not_fought_for_without_end() {
        let waits: Vec<_> = (1..=7).map(|losses| rebind_delay(losses).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 2, 4, 8, 16]);
    }

    #[test]
    fn a_failing_device_is_not_woken_by_the_uevents_that_its_failing_causes() {
        assert!(event_matters(State::Bound, false));
        assert!(!event_matters(State::Failed, false));
        assert!(event_matters(State::Failed, true));
    }
}
