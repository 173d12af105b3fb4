//! When the state of a component is worth an event: at most one of each type a minute, a failure only when it lasts, and
//! recovery only when it lasts too, so that a crash loop does not make a row of them.

use std::time::Duration;

use accelerator_api::Reason;
use tokio::time::Instant;

/// The least time between two events of the same type.
const EVERY: Duration = Duration::from_mins(1);
/// How long pods have to fail before that is told.
const FAILING_FOR: Duration = Duration::from_secs(20);
/// How long a component has to be ready again after a warning before that is told.
const READY_FOR: Duration = Duration::from_mins(1);
/// When the same is told again, if it was over in between.
const SAME_AGAIN: Duration = Duration::from_mins(10);

/// What is observed of a component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) reason: Reason,
    pub(super) message: &'a str,
    /// Whether pods are known to fail.
    pub(super) needs_attention: bool,
}

/// An event to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tell {
    pub(super) warning: bool,
    pub(super) reason: Reason,
}

/// What was seen and told of one component in one AcceleratorConfig.
#[derive(Debug, Default)]
pub(super) struct Transitions {
    last: Option<Reason>,
    ready_since: Option<Instant>,
    /// Whether it became ready and that has not been told.
    owes_ready: bool,
    ready_told_at: Option<Instant>,
    failing_since: Option<Instant>,
    warned: Option<Warned>,
    due: Option<Instant>,
}

#[derive(Debug)]
struct Warned {
    at: Option<Instant>,
    reason: Reason,
    message: String,
    /// Whether it has been told, or seen, that this is over.
    is_over: bool,
}

impl Transitions {
    /// Goes on where the status that was read says that a predecessor stopped.
    pub(super) fn resume(reason: &str, message: &str) -> Self {
        let last = Reason::ALL.iter().copied().find(|one| one.as_str() == reason);
        let warned = last.filter(|last| last.status() == "False").map(|reason| Warned {
            at: None,
            reason,
            message: message.to_owned(),
            is_over: false,
        });
        Self { last, warned, ..Self::default() }
    }

    /// When to look again although nothing changes.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due
    }

    /// What to tell now, if anything.
    pub(super) fn observe(&mut self, seen: Seen<'_>, now: Instant) -> Option<Tell> {
        self.due = None;
        let changed = self.last.replace(seen.reason) != Some(seen.reason);
        if seen.reason == Reason::Ready {
            self.failing_since = None;
            return self.ready(changed, now);
        }
        (self.ready_since, self.owes_ready) = (None, false);
        if seen.reason.is_warning() {
            self.failing_since = None;
            return self.warn(seen.reason, seen.message, now);
        }
        if !seen.needs_attention {
            self.failing_since = None;
            return None;
        }
        let since = *self.failing_since.get_or_insert(now) + FAILING_FOR;
        if since > now {
            self.due = Some(since);
            return None;
        }
        self.warn(Reason::PodsNotReady, seen.message, now)
    }

    fn ready(&mut self, changed: bool, now: Instant) -> Option<Tell> {
        let since = *self.ready_since.get_or_insert(now);
        self.owes_ready |= changed;
        if !self.owes_ready {
            return None;
        }
        let warned = self.warned.as_ref().filter(|warned| !warned.is_over && warned.at.is_some());
        let last = self.ready_told_at.map(|at| at + EVERY);
        let at = [last, warned.map(|_| since + READY_FOR)].into_iter().flatten().max().unwrap_or(now);
        if at > now {
            self.due = Some(at);
            return None;
        }
        (self.owes_ready, self.ready_told_at) = (false, Some(now));
        if let Some(warned) = &mut self.warned {
            warned.is_over = true;
        }
        Some(Tell { warning: false, reason: Reason::Ready })
    }

    fn warn(&mut self, reason: Reason, message: &str, now: Instant) -> Option<Tell> {
        if let Some(warned) = &self.warned {
            let is_same = warned.reason == reason && (warned.message == message || warned.at.is_none());
            let again = match warned.at {
                // Another reason is told at once; the same after a while, if it was over in between.
                _ if warned.reason != reason => now,
                None => now + SAME_AGAIN,
                Some(at) if is_same && warned.is_over => at + SAME_AGAIN,
                Some(_) if is_same => return None,
                Some(at) => at + EVERY,
            };
            if warned.at.is_none() && is_same {
                // A predecessor has told it. From here on it is ours.
                self.warned = Some(Warned { at: Some(now), reason, message: message.to_owned(), is_over: false });
                return None;
            }
            if again > now {
                self.due = Some(again);
                return None;
            }
        }
        self.warned = Some(Warned { at: Some(now), reason, message: message.to_owned(), is_over: false });
        Some(Tell { warning: true, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds what is seen at each second and collects what is told, as `second:reason`.
    fn told(
        transitions: &mut Transitions,
        seen: impl Fn(u64) -> (Reason, &'static str, bool),
        seconds: u64,
    ) -> Vec<String> {
        let start = Instant::now();
        let mut told = vec![];
        for second in 0..seconds {
            let (reason, message, needs_attention) = seen(second);
            let seen = Seen { reason, message, needs_attention };
            if let Some(tell) = transitions.observe(seen, start + Duration::from_secs(second)) {
                let kind = if tell.warning { "Warning" } else { "Normal" };
                told.push(format!("{second}:{kind} {}", tell.reason.as_str()));
            }
        }
        told
    }

    const STARTING: (Reason, &str, bool) = (Reason::PodsNotReady, "a starts", false);
    const CRASHING: (Reason, &str, bool) = (Reason::PodsNotReady, "a crashes", true);
    const READY: (Reason, &str, bool) = (Reason::Ready, "", false);

    #[test]
    fn a_rollout_that_goes_well_ends_with_one_event() {
        let seen = |second| if second < 30 { STARTING } else { READY };
        assert_eq!(told(&mut Transitions::default(), seen, 200), ["30:Normal Ready"]);
    }

    #[test]
    fn a_failure_is_told_when_it_lasts_and_its_end_when_that_lasts() {
        let seen = |second| if second < 50 { CRASHING } else { READY };
        assert_eq!(told(&mut Transitions::default(), seen, 300), ["20:Warning PodsNotReady", "110:Normal Ready"]);
        let short = |second| if second < 15 { CRASHING } else { READY };
        assert_eq!(told(&mut Transitions::default(), short, 300), ["15:Normal Ready"]);
    }

    /// Twenty seconds up, forty seconds down, for twenty minutes.
    #[test]
    fn a_crash_loop_makes_no_row_of_events() {
        let seen = |second| if second % 60 < 20 { READY } else { CRASHING };
        let told = told(&mut Transitions::default(), seen, 1200);
        assert_eq!(told, ["0:Normal Ready", "40:Warning PodsNotReady"]);
    }

    /// One node joins and leaves every 4 s.
    #[test]
    fn a_cluster_that_always_changes_makes_one_event_a_minute() {
        let seen = |second| if second % 4 < 2 { READY } else { STARTING };
        let told = told(&mut Transitions::default(), seen, 181);
        assert_eq!(told, ["0:Normal Ready", "60:Normal Ready", "120:Normal Ready", "180:Normal Ready"]);
    }

    #[test]
    fn another_message_is_told_once_a_minute_and_another_reason_at_once() {
        let seen = |second| match second {
            0..30 => (Reason::PodsNotReady, "1", true),
            30..100 => (Reason::PodsNotReady, "2", true),
            _ => (Reason::ApplyFailed, "no", false),
        };
        let told = told(&mut Transitions::default(), seen, 300);
        assert_eq!(told, ["20:Warning PodsNotReady", "80:Warning PodsNotReady", "100:Warning ApplyFailed"]);
    }

    #[test]
    fn a_restart_tells_nothing_again() {
        let mut ready = Transitions::resume("Ready", "");
        assert_eq!(told(&mut ready, |_| READY, 100), Vec::<String>::new());
        let mut failing = Transitions::resume("PodsNotReady", "a crashes");
        assert_eq!(told(&mut failing, |_| CRASHING, 300), Vec::<String>::new());
        let mut refused = Transitions::resume("ApplyFailed", "no");
        assert_eq!(told(&mut refused, |_| (Reason::ApplyFailed, "no", false), 100), Vec::<String>::new());
    }
}
