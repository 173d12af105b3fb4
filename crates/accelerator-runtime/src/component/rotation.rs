//! Whose pods are looked at: those of a few of a component's DaemonSets at once, however many are in trouble, each in its turn.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::Shared;

/// How many DaemonSets' pods are looked at at once. Each costs a list, and two watches.
const AT_ONCE: usize = 8;

/// How long pods are looked at while others wait. Longer than it takes to find out why one is not ready.
const TURN: Duration = Duration::from_mins(1);

/// The rotation of a component's DaemonSets.
#[derive(Clone)]
pub(super) struct Rotation(Shared<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Whose turn it is, since when.
    current: BTreeMap<String, Instant>,
    /// Who waits, the longest first.
    waiting: VecDeque<String>,
}

impl Default for Rotation {
    fn default() -> Self {
        Self(Shared::new(Queue::default()))
    }
}

impl Rotation {
    /// Whether the pods of this DaemonSet may be looked at now. Whoever may not waits for its turn from now on.
    pub(super) fn has(&self, name: &str, now: Instant) -> bool {
        self.0.with(|queue| queue.has(name, now))
    }

    /// Nobody needs to look at the pods of this DaemonSet any more.
    pub(super) fn leave(&self, name: &str) {
        self.0.with(|queue| queue.leave(name));
    }

    /// Whether somebody waits.
    pub(super) fn has_waiting(&self) -> bool {
        self.0.with(|queue| !queue.waiting.is_empty())
    }
}

impl Queue {
    fn has(&mut self, name: &str, now: Instant) -> bool {
        if let Some(since) = self.current.get(name) {
            if self.waiting.is_empty() || now < *since + TURN {
                return true;
            }
            self.current.remove(name);
        }
        if !self.waiting.iter().any(|one| one == name) {
            self.waiting.push_back(name.to_owned());
        }
        let free = AT_ONCE.saturating_sub(self.current.len());
        let place = self.waiting.iter().position(|one| one == name).filter(|place| *place < free);
        if let Some(place) = place {
            self.waiting.remove(place);
            self.current.insert(name.to_owned(), now);
        }
        place.is_some()
    }

    fn leave(&mut self, name: &str) {
        self.current.remove(name);
        self.waiting.retain(|one| one != name);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_few_are_looked_at_at_once_and_everybody_has_a_turn() {
        let (rotation, begun) = (Rotation::default(), Instant::now());
        let (mut names, mut seen) =
            ((0..30).map(|number| format!("d{number:02}")).collect::<Vec<_>>(), BTreeSet::new());
        for second in 0..300 {
            let now = begun + Duration::from_secs(second);
            let current: Vec<_> = names.iter().filter(|name| rotation.has(name, now)).cloned().collect();
            assert!(current.len() <= AT_ONCE, "{current:?}");
            assert!(current.len() == AT_ONCE || second % 60 == 0, "a turn that is free is taken: {current:?}");
            seen.extend(current);
        }
        assert_eq!(seen.len(), 30);
        let now = begun + Duration::from_mins(5);
        for name in names.drain(AT_ONCE..) {
            rotation.leave(&name);
        }
        assert!(names.iter().all(|name| rotation.has(name, now)) && !rotation.has_waiting());
        let later = now + TURN * 9;
        assert!(names.iter().all(|name| rotation.has(name, later)), "nobody else wants to look");
        assert!(!rotation.has("late", later) && rotation.has_waiting());
        rotation.leave("d00");
        assert!(rotation.has("late", later));
    }
}
