//! How often to put right what somebody else undoes, or what has no effect: at once the first time, and then ever less
//! often. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::Backoff;

/// The longest pause after the first repair; it doubles.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause of all.
const LIMIT: Duration = Duration::from_mins(10);
/// A repair that has lasted for so long beyond its pause was accepted.
const ACCEPTED_AFTER: Duration = Duration::from_mins(2);

/// A number between 0 and 1, for the jitter of a [`Backoff`].
#[must_use]
pub fn random() -> f64 {
    rand::random()
}

/// Repairs of one thing, one after another.
#[derive(Clone, Debug)]
pub struct RepairBackoff {
    pauses: Backoff,
    /// When the next repair may be made.
    next: Option<Instant>,
}

impl Default for RepairBackoff {
    fn default() -> Self {
        Self { pauses: Backoff::new(FIRST, LIMIT), next: None }
    }
}

impl RepairBackoff {
    /// Until when a repair has to wait, if it has to.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// A repair was made. `random` is between 0 and 1.
    pub fn repaired(&mut self, now: Instant, random: f64) {
        if self.forgotten_at().is_none_or(|at| now >= at) {
            self.pauses.succeed();
        }
        self.next = Some(now + self.pauses.fail(random));
    }

    /// How many repairs in a row there have been.
    #[must_use]
    pub fn repairs(&self) -> u32 {
        self.pauses.failures()
    }

    /// When the repairs so far no longer count, unless another is needed until then.
    #[must_use]
    pub fn forgotten_at(&self) -> Option<Instant> {
        self.next.map(|next| next + ACCEPTED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repair_is_made_at_once_and_the_later_ones_ever_less_often() {
        let (mut repairs, mut now) = (RepairBackoff::default(), Instant::now());
        let mut waits = vec![];
        for _ in 0..9 {
            let until = repairs.wait(now);
            waits.push(until.map_or(0, |until| (until - now).as_secs()));
            now = until.unwrap_or(now);
            assert_eq!(repairs.wait(now), None);
            repairs.repaired(now, 1.0);
        }
        assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 320, 600]);
    }

    #[test]
    fn a_repair_that_lasts_makes_forget() {
        let (mut repairs, now) = (RepairBackoff::default(), Instant::now());
        for _ in 0..9 {
            repairs.repaired(now, 1.0);
        }
        assert!(repairs.wait(now).is_some());
        assert_eq!(repairs.wait(now + LIMIT), None);
        let later = now + LIMIT + ACCEPTED_AFTER;
        repairs.repaired(later, 1.0);
        assert_eq!(repairs.wait(later), Some(later + FIRST));
    }
}
