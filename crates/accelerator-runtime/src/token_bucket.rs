//! A token bucket: so many at once, then one per interval.

use std::time::Duration;

use tokio::time::Instant;

/// The bucket, as the time at which it is full again: each token that is taken moves it on by one interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    burst: u32,
    refill: Duration,
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens that gets one back per `refill`.
    pub(crate) fn full(burst: u32, refill: Duration, now: Instant) -> Self {
        Self { burst, refill, full_at: now }
    }

    /// Takes a token, whether there is one or not: later ones wait for it.
    pub(crate) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.refill;
    }

    /// Takes a token if there is one. Returns whether there was.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        let granted = self.ready_at() <= now;
        if granted {
            self.take(now);
        }
        granted
    }

    /// When there is a token again.
    pub(crate) fn ready_at(&self) -> Instant {
        self.full_at.checked_sub(self.refill * (self.burst - 1)).unwrap_or(self.full_at)
    }

    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: u32 = 20;
    const REFILL: Duration = Duration::from_secs(30);

    /// Far enough from the start of the clock for an earlier time to exist.
    fn start() -> Instant {
        Instant::now() + REFILL * BURST
    }

    #[test]
    fn a_burst_is_followed_by_a_trickle() {
        let start = start();
        let mut bucket = TokenBucket::full(BURST, REFILL, start);
        assert_eq!((0..BURST + 5).filter(|_| bucket.try_take(start)).count(), BURST as usize);
        assert!(!bucket.try_take(start + REFILL / 2));
        assert!(bucket.try_take(start + REFILL));
        assert!(!bucket.try_take(start + REFILL));
        assert!(bucket.is_full(start + REFILL * (BURST + 1)));
    }

    #[test]
    fn a_token_that_is_taken_in_any_case_is_missing_later() {
        let start = start();
        let mut bucket = TokenBucket::full(2, REFILL, start);
        (0..3).for_each(|_| bucket.take(start));
        assert_eq!(bucket.ready_at(), start + REFILL * 2);
    }
}
