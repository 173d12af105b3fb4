//! How often to put right what somebody else changes: at once at first, and less and less often when they go on. Pure:
//! time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Repairs that are made at once.
const PATIENCE: u32 = 3;
/// The wait after those; it doubles.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait.
const LIMIT: Duration = Duration::from_mins(5);
/// A repair that has lasted for so long beyond the last wait was accepted.
const PEACE: Duration = Duration::from_mins(2);

/// Repairs in a row.
#[derive(Debug, Default)]
pub(super) struct Contest {
    repairs: u32,
    last: Option<Instant>,
}

impl Contest {
    /// Whether a repair has to wait, and until when.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        let next = self.last? + self.pause();
        if now >= next + PEACE {
            *self = Self::default();
        }
        (now < next).then_some(next)
    }

    /// A repair was made.
    pub(super) fn repaired(&mut self, now: Instant) {
        self.repairs = self.repairs.saturating_add(1);
        self.last = Some(now);
    }

    fn pause(&self) -> Duration {
        match self.repairs.checked_sub(PATIENCE) {
            None => Duration::ZERO,
            Some(more) => FIRST.saturating_mul(2_u32.saturating_pow(more)).min(LIMIT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repairs_are_made_at_once_and_the_later_ones_ever_more_seldom() {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        let mut waits = vec![];
        for _ in 0..7 {
            let until = contest.wait(now);
            waits.push(until.map_or(0, |until| (until - now).as_secs()));
            now = until.unwrap_or(now);
            assert_eq!(contest.wait(now), None);
            contest.repaired(now);
        }
        assert_eq!(waits, [0, 0, 0, 5, 10, 20, 40]);
    }

    #[test]
    fn peace_makes_forget() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        for _ in 0..5 {
            contest.repaired(now);
        }
        assert!(contest.wait(now).is_some());
        assert_eq!(contest.wait(now + LIMIT), None);
        assert_eq!(contest.wait(now + LIMIT + PEACE), None);
        contest.repaired(now + LIMIT + PEACE);
        assert_eq!(contest.wait(now + LIMIT + PEACE), None);
    }
}
