//! How long a node's NPUs have been missing. Discovery flaps, and restarts; NPUs hardly ever leave.

use std::time::{Duration, Instant};

/// Since when no NPU has been discovered on a node that has its labels by default. It runs on until an NPU is back or the
/// labels are gone: a write that fails, or an event of the node, does not start it anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldDown {
    since: Option<Instant>,
}

impl HoldDown {
    /// Takes note of whether an NPU is missing now.
    pub fn observe(&mut self, is_missing: bool, now: Instant) {
        self.since = if is_missing { self.since.or(Some(now)) } else { None };
    }

    /// For how long it has been missing; `None` when it is not.
    #[must_use]
    pub fn elapsed(self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// When it will have been missing for this long, if that is still to come.
    #[must_use]
    pub fn ends_at(self, hold_down: Duration, now: Instant) -> Option<Instant> {
        self.since.map(|since| since + hold_down).filter(|end| *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_mins(10);

    #[test]
    fn it_runs_until_the_npu_is_back_and_then_starts_anew() {
        let (mut hold_down, now) = (HoldDown::default(), Instant::now());
        assert_eq!((hold_down.elapsed(now), hold_down.ends_at(TIME, now)), (None, None));
        hold_down.observe(true, now);
        hold_down.observe(true, now + TIME);
        assert_eq!(hold_down.elapsed(now + TIME), Some(TIME));
        assert_eq!(hold_down.ends_at(TIME, now + TIME / 2), Some(now + TIME));
        assert_eq!(hold_down.ends_at(TIME, now + TIME), None, "nothing that has passed is waited for");
        hold_down.observe(false, now + TIME);
        hold_down.observe(true, now + TIME * 2);
        assert_eq!(hold_down.elapsed(now + TIME * 2), Some(Duration::ZERO));
    }
}
