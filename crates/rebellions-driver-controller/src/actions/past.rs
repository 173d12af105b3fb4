//! What became of our own requests, so that none is made again before its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use accelerator_runtime::Backoff;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::upgrade::{Action, EVICTION_RETRY, Refusal};

/// When to look again after a write that somebody else's was faster than.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// How long the end of a pod that was deleted is waited for before it is deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

/// Where many nodes cannot be written, all of them together are tried so often: each rests for this long, times their number, and
/// at most for as long as the other says.
const SPACING: Duration = Duration::from_millis(500);
const LONGEST_SPACING: Duration = Duration::from_mins(5);

/// Past requests, of those that a plan still asks for.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// By the pod's identity.
    evictions: BTreeMap<String, Eviction>,
    /// Driver pods that were deleted, by identity, and when to delete them again.
    deleted: BTreeMap<String, Instant>,
    /// Nodes that could not be written.
    failing: BTreeMap<String, Failing>,
    /// Nodes of which it is not known how they are now.
    unread: BTreeSet<String>,
    /// Nodes that the API server did not know, until somebody asks.
    gone: Vec<String>,
}

#[derive(Debug)]
enum Eviction {
    /// The pod is going to end.
    Accepted,
    /// It was refused in these words, and is asked for again then.
    Refused(String, Instant),
}

#[derive(Debug)]
struct Failing {
    backoff: Backoff,
    until: Instant,
    why: String,
    /// Whether the API server said no, and not only nothing.
    is_refused: bool,
}

/// When something is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    At(Instant),
    /// It was done already.
    Never,
}

/// Why a node was not written.
#[derive(Debug)]
pub(super) enum NotPatched {
    /// The API server knows no such node.
    Gone,
    /// Somebody else wrote it meanwhile; whether the watch shows how it is now.
    Conflict { is_watched: bool },
    /// The API server said no, in these words.
    Refused(String),
    /// It may have been written.
    Unanswered,
}

impl Past {
    /// Forgets what became of requests that a plan does not make any more: they wake nobody. What it holds back it still wants.
    pub(super) fn retain(&mut self, actions: &[Action], held_back: &[String]) {
        let (mut pods, mut nodes) = (BTreeSet::new(), BTreeSet::new());
        nodes.extend(held_back.iter().map(String::as_str));
        for action in actions {
            match action {
                Action::Patch { node, .. } => nodes.insert(node.as_str()),
                Action::Evict { uid, .. } | Action::DeleteDriverPod { uid, .. } => pods.insert(uid.as_str()),
            };
        }
        self.evictions.retain(|uid, _| pods.contains(uid.as_str()));
        self.deleted.retain(|uid, _| pods.contains(uid.as_str()));
        self.failing.retain(|node, _| nodes.contains(node.as_str()));
    }

    /// When to ask for this.
    pub(super) fn turn(&self, action: &Action, now: Instant) -> Turn {
        let at = match action {
            Action::Patch { node, .. } => self.failing.get(node).map(|failing| failing.until),
            Action::Evict { uid, .. } => match self.evictions.get(uid) {
                Some(Eviction::Accepted) => return Turn::Never,
                Some(Eviction::Refused(_, retry_at)) => Some(*retry_at),
                None => None,
            },
            Action::DeleteDriverPod { uid, .. } => self.deleted.get(uid).copied(),
        };
        at.filter(|at| *at > now).map_or(Turn::Now, Turn::At)
    }

    /// Whether a write to this node is asked for now.
    pub(super) fn is_due(&self, node: &str, now: Instant) -> bool {
        self.failing.get(node).is_none_or(|failing| failing.until <= now)
    }

    /// What the API server last said to the eviction of a pod, when that was no.
    pub(super) fn refusal(&self, uid: &str) -> Option<&str> {
        match self.evictions.get(uid)? {
            Eviction::Refused(words, _) => Some(words),
            Eviction::Accepted => None,
        }
    }

    /// An eviction was answered, with words when it was refused.
    pub(super) fn evicted(&mut self, uid: String, refusal: Option<String>, now: Instant) {
        let retry_at = now + Duration::try_from(EVICTION_RETRY).unwrap_or_default();
        let eviction = refusal.map_or(Eviction::Accepted, |words| Eviction::Refused(words, retry_at));
        self.evictions.insert(uid, eviction);
    }

    /// A driver pod was deleted, or could not be. Returns when to ask again.
    pub(super) fn deleted(&mut self, uid: String, now: Instant) -> Instant {
        self.deleted.insert(uid, now + DELETE_AGAIN);
        now + DELETE_AGAIN
    }

    /// A node was written. Returns when to look again: what the answer told already, no watch event is news of.
    pub(super) fn patched(&mut self, node: &str, now: Instant) -> Instant {
        self.failing.remove(node);
        now
    }

    /// A node was not written. `random` is from 0 to 1. Returns when to ask again, and whether there is news in why.
    pub(super) fn not_patched(&mut self, node: &str, why: NotPatched, now: Instant, random: f64) -> (Instant, bool) {
        let (words, is_refused) = match why {
            NotPatched::Gone => {
                self.gone.push(node.to_owned());
                return (now + AFTER_CONFLICT, false);
            }
            NotPatched::Conflict { is_watched } => {
                if !is_watched {
                    self.unread.insert(node.to_owned());
                }
                return (now + AFTER_CONFLICT, false);
            }
            NotPatched::Refused(words) => (words, true),
            NotPatched::Unanswered => {
                self.unread.insert(node.to_owned());
                ("the API server did not answer".into(), false)
            }
        };
        let together =
            SPACING.saturating_mul(u32::try_from(self.failing.len()).unwrap_or(u32::MAX)).min(LONGEST_SPACING);
        let failing = self.failing.entry(node.to_owned()).or_insert_with(|| Failing {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
            until: now,
            why: String::new(),
            is_refused,
        });
        let is_news = failing.why != words;
        (failing.why, failing.is_refused) = (words, is_refused);
        failing.until = now + failing.backoff.fail(random).max(together);
        (failing.until, is_news)
    }

    /// Nodes that the API server refuses to write, and in which words. `time` and `now` are the same moment.
    pub(super) fn refused(&self, time: Timestamp, now: Instant) -> BTreeMap<String, Refusal> {
        let refused = self.failing.iter().filter(|(_, failing)| failing.is_refused);
        let refusal = |failing: &Failing| {
            let wait = SignedDuration::try_from(failing.until.saturating_duration_since(now)).unwrap_or_default();
            Refusal { words: failing.why.clone(), retry_at: time.checked_add(wait).unwrap_or(time) }
        };
        refused.map(|(node, failing)| (node.clone(), refusal(failing))).collect()
    }

    /// Nodes that must be read before the next plan.
    pub(super) fn unread(&self) -> Vec<String> {
        self.unread.iter().cloned().collect()
    }

    /// A node was read.
    pub(super) fn read(&mut self, node: &str) {
        self.unread.remove(node);
    }

    /// Nodes that the API server did not know.
    pub(super) fn take_gone(&mut self) -> Vec<String> {
        std::mem::take(&mut self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::PodName;
    use serde_json::Value;

    fn delete(uid: &str) -> Action {
        Action::DeleteDriverPod { node: "n".into(), name: "driver".into(), uid: uid.into() }
    }

    fn evict(uid: &str) -> Action {
        Action::Evict { node: "n".into(), pod: PodName::default(), uid: uid.into() }
    }

    fn patch(node: &str) -> Action {
        Action::Patch { node: node.into(), patch: Value::Null, tell: None }
    }

    #[test]
    fn a_deletion_is_repeated_when_the_pod_stays_and_wakes_nobody_when_it_is_gone() {
        let (mut past, now) = (Past::default(), Instant::now());
        assert_eq!(past.turn(&delete("a"), now), Turn::Now);
        let again = past.deleted("a".into(), now);
        past.retain(&[delete("a")], &[]);
        assert_eq!(past.turn(&delete("a"), now), Turn::At(again));
        assert_eq!(past.turn(&delete("a"), again), Turn::Now);
        past.retain(&[], &[]);
        assert!(past.deleted.is_empty(), "the plan asks for it no more");
    }

    #[test]
    fn an_eviction_that_was_accepted_is_not_asked_for_again_and_one_that_was_refused_rests() {
        let (mut past, now) = (Past::default(), Instant::now());
        past.evicted("a".into(), None, now);
        past.evicted("b".into(), Some("a budget".into()), now);
        assert_eq!(past.turn(&evict("a"), now), Turn::Never);
        assert_eq!(past.turn(&evict("b"), now), Turn::At(now + Duration::from_secs(10)));
        assert_eq!((past.refusal("a"), past.refusal("b")), (None, Some("a budget")));
    }

    #[test]
    fn a_node_that_cannot_be_written_is_tried_ever_more_rarely_and_told_of_once() {
        let (mut past, now) = (Past::default(), Instant::now());
        let refused = || NotPatched::Refused("no".into());
        let (first, is_news) = past.not_patched("n", refused(), now, 0.5);
        assert!(is_news && first > now);
        let (second, is_news) = past.not_patched("n", refused(), first, 0.5);
        assert!(!is_news && second - first > first - now);
        assert_eq!(past.turn(&patch("n"), first), Turn::At(second));
        assert!(!past.is_due("n", first) && past.is_due("n", second) && past.is_due("other", first));
        assert!(past.unread().is_empty(), "it is known that it was not written");
        assert_eq!(past.patched("n", first), first, "the next step is due");
        assert_eq!(past.turn(&patch("n"), first), Turn::Now);
    }

    #[test]
    fn what_a_node_was_refused_with_is_known_as_long_as_it_is_to_be_written() {
        let (mut past, now, time) = (Past::default(), Instant::now(), Timestamp::UNIX_EPOCH);
        past.not_patched("n", NotPatched::Refused("a policy".into()), now, 0.5);
        let (until, _) = past.not_patched("down", NotPatched::Unanswered, now, 0.5);
        let refused = past.refused(time, now);
        assert_eq!(refused.keys().collect::<Vec<_>>(), ["n"], "the other may have been written");
        assert!(refused["n"].words == "a policy" && refused["n"].retry_at > time);
        assert_eq!(past.refused(time, until + Duration::from_mins(1))["n"].retry_at, time, "it may be tried");
        past.retain(&[patch("n")], &[]);
        past.retain(&[], &["n".into()]);
        assert_eq!(past.refused(time, now).len(), 1);
        past.retain(&[], &[]);
        assert!(past.refused(time, now).is_empty());
    }

    /// Where a right is missing, every node of a large cluster is refused.
    #[test]
    fn many_nodes_that_are_refused_are_tried_a_few_in_a_second() {
        let (mut past, now) = (Past::default(), Instant::now());
        let mut tries = 0;
        for number in 0..200 {
            past.not_patched(&number.to_string(), NotPatched::Refused("no".into()), now, 0.5);
        }
        for second in 1..=600 {
            let now = now + Duration::from_secs(second);
            let due: Vec<_> =
                past.failing.iter().filter(|(_, one)| one.until <= now).map(|(node, _)| node.clone()).collect();
            tries += due.len();
            for node in due {
                past.not_patched(&node, NotPatched::Refused("no".into()), now, 0.5);
            }
        }
        assert!((600..=1400).contains(&tries), "{tries} in ten minutes");
    }

    /// A node that has left the driver is in no watch: its version is as old as the last read, and its end is not told.
    #[test]
    fn a_node_that_no_watch_shows_is_read_again_after_a_conflict_and_forgotten_when_it_is_gone() {
        let (mut past, now) = (Past::default(), Instant::now());
        past.not_patched("watched", NotPatched::Conflict { is_watched: true }, now, 0.5);
        past.not_patched("stray", NotPatched::Conflict { is_watched: false }, now, 0.5);
        past.not_patched("perhaps", NotPatched::Unanswered, now, 0.5);
        past.not_patched("gone", NotPatched::Gone, now, 0.5);
        assert_eq!(past.unread(), ["perhaps", "stray"]);
        past.read("stray");
        assert_eq!(past.unread(), ["perhaps"]);
        assert_eq!(past.take_gone(), ["gone"]);
        assert_eq!(past.take_gone(), Vec::<String>::new());
    }
}
