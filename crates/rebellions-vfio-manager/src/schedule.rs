//! When to look at a device again. Pure: no clock is read here.

use std::time::Duration;

use crate::verdict::State;

/// A safety net, for what the kernel's news did not tell: everything that is well is looked at this often.
pub const RESCAN: Duration = Duration::from_mins(1);

/// Nothing tells when a process lets go of a device.
const BUSY: Duration = Duration::from_secs(10);

/// What the host does not allow, somebody may have allowed meanwhile.
const BLOCKED: Duration = Duration::from_secs(30);

/// The first wait after a failure; it doubles.
const RETRY: Duration = Duration::from_secs(2);
/// The longest wait, for this many failures in a row.
const RETRY_LIMIT: Duration = Duration::from_mins(5);
const FAILURES: u32 = 10;
/// After that many, somebody has to do something, and may have.
const LONG_RETRY: Duration = Duration::from_hours(1);

/// How long until the next look at a device in this state, after so many failures in a row.
#[must_use]
pub fn next_look(state: State, failures: u32) -> Duration {
    match state {
        State::Bound | State::Native | State::Excluded => RESCAN,
        State::Busy => BUSY,
        State::Blocked | State::Unbound => BLOCKED,
        State::Failed | State::Stuck if failures > FAILURES => LONG_RETRY,
        State::Failed | State::Stuck => {
            RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(RETRY_LIMIT)
        }
    }
}

/// A device that stayed bound for so long was not fought for.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);

/// How long to wait before a device is bound again that somebody took away, for the n-th time in a row: not at all at
/// first, and longer and longer when they go on.
#[must_use]
pub fn rebind_delay(losses: u32) -> Duration {
    /// Losses that are made good at once.
    const AT_ONCE: u32 = 3;
    losses.checked_sub(AT_ONCE).filter(|more| *more > 0).map_or(Duration::ZERO, |more| next_look(State::Failed, more))
}

/// Whether the kernel's news of a device are a reason to look at it at once. A device on which something failed makes news
/// itself, each time.
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
    fn a_failing_device_is_not_woken_by_the_news_that_its_failing_makes() {
        assert!(event_matters(State::Bound, false));
        assert!(!event_matters(State::Failed, false));
        assert!(event_matters(State::Failed, true));
    }
}
