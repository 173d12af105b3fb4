//! Whether the process is alive and whether it sees the cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A part that has not moved for this long is taken for dead. Every wait in this crate is far shorter, an unreachable
/// API server included: its death must not restart every controller.
const STUCK: Duration = Duration::from_mins(10);

/// A watch that fails for this long makes the process unready.
const BLIND: Duration = Duration::from_mins(1);

/// The last report of every part of the process about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    parts: Arc<Mutex<BTreeMap<String, Part>>>,
}

#[derive(Debug)]
struct Part {
    moved: Instant,
    synced: bool,
    failing_since: Option<Instant>,
}

impl Health {
    /// Notes that a part exists. It is unready until [`HealthHandle::synced`].
    pub(crate) fn part(&self, name: impl Into<String>) -> HealthHandle {
        let name = name.into();
        let part = Part { moved: Instant::now(), synced: false, failing_since: None };
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), part);
        HealthHandle { health: self.clone(), name }
    }

    /// Why the process should be restarted; empty when it should not.
    pub(crate) fn dead(&self, now: Instant) -> Vec<String> {
        self.complain(|name, part| {
            let still = now.duration_since(part.moved);
            (still > STUCK).then(|| format!("{name} has not moved for {} s", still.as_secs()))
        })
    }

    /// Why the process does not see the cluster; empty when it does.
    pub(crate) fn unready(&self, now: Instant) -> Vec<String> {
        self.complain(|name, part| match part.failing_since {
            _ if !part.synced => Some(format!("{name} has not been read yet")),
            Some(since) if now.duration_since(since) > BLIND => Some(format!("{name} cannot be watched")),
            _ => None,
        })
    }

    fn complain(&self, complaint: impl Fn(&str, &Part) -> Option<String>) -> Vec<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(name, part)| complaint(name, part)).collect()
    }
}

/// The handle by which one part reports to [`Health`].
#[derive(Clone, Debug)]
pub(crate) struct HealthHandle {
    health: Health,
    name: String,
}

impl HealthHandle {
    /// The part does something, successfully or not.
    pub(crate) fn beat(&self) {
        self.with(|part| part.moved = Instant::now());
    }

    /// The part has seen all that it needs and goes on seeing it.
    pub(crate) fn synced(&self) {
        self.with(|part| *part = Part { moved: Instant::now(), synced: true, failing_since: None });
    }

    /// The part sees nothing new.
    pub(crate) fn failing(&self) {
        self.with(|part| {
            part.moved = Instant::now();
            part.failing_since.get_or_insert(part.moved);
        });
    }

    /// The part sees again.
    pub(crate) fn recovered(&self) {
        self.with(|part| {
            part.moved = Instant::now();
            part.failing_since = None;
        });
    }

    fn with(&self, change: impl FnOnce(&mut Part)) {
        let mut parts = self.health.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(&self.name) {
            change(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unready_until_read_and_when_blind_for_long() {
        let health = Health::default();
        let handle = health.part("nodes");
        let now = Instant::now();
        assert_eq!(health.unready(now), ["nodes has not been read yet"]);
        handle.synced();
        assert_eq!(health.unready(now), Vec::<String>::new());
        handle.failing();
        assert_eq!(health.unready(now + BLIND / 2), Vec::<String>::new());
        assert_eq!(health.unready(now + BLIND * 2), ["nodes cannot be watched"]);
        handle.recovered();
        assert_eq!(health.unready(now + BLIND * 2), Vec::<String>::new());
    }

    #[test]
    fn dead_when_nothing_moved_for_long() {
        let health = Health::default();
        let _pulse = health.part("loop");
        let now = Instant::now();
        assert_eq!(health.dead(now), Vec::<String>::new());
        assert_eq!(health.dead(now + STUCK * 2).len(), 1);
    }
}
