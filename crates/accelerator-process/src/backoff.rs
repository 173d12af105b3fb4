//! How long to wait before the next try.

use std::time::Duration;

/// Exponential backoff with jitter: each wait is between half and all of a step that doubles up to a limit, so that
/// controllers that failed together do not try again together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits that begin at `first` and never exceed `limit`.
    #[must_use]
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, failures: 0 }
    }

    /// Notes a failure and says how long to wait; `random` is between 0 and 1.
    pub fn fail(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.step(self.failures).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// The longest wait after the n-th failure in a row, counted from 1; without jitter, for who is alone.
    #[must_use]
    pub fn step(&self, nth: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(nth.saturating_sub(1))).min(self.limit)
    }

    /// Notes a success.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }

    /// How many tries in a row have failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the last try failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<_> = (0..6).map(|_| backoff.fail(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert!(backoff.is_failing());
        backoff.succeed();
        assert_eq!(backoff.fail(1.0), Duration::from_secs(1));
    }

    #[test]
    fn jitter_is_at_most_half_of_the_step() {
        let mut backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(4));
        assert_eq!(backoff.fail(0.0), Duration::from_secs(2));
        assert_eq!(backoff.fail(0.5), Duration::from_secs(3));
    }

    #[test]
    fn very_many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        backoff.failures = u32::MAX;
        assert_eq!(backoff.fail(1.0), Duration::from_secs(10));
    }
}
