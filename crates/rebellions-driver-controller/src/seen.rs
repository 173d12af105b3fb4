//! Stores that know when something has changed that a decision could depend on. Nodes are written all the time, by heartbeats that
//! change nothing but their version.

use std::ops::Deref;
use std::sync::Arc;

use accelerator_runtime::{Event, Holder, Store, Stored};

use crate::node::{Node, NodeView};
use crate::pods::{DriverPod, Pod};

/// An object of a store, shared by all who look at it: thousands are there once.
#[derive(Debug)]
pub struct Kept<T>(Arc<T>);

impl<T> Kept<T> {
    /// Keeps this.
    #[must_use]
    pub fn new(object: T) -> Self {
        Self(Arc::new(object))
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Stored> Stored for Kept<T> {
    fn version(&self) -> u64 {
        self.0.version()
    }
}

/// What is known of objects, and how often that has changed.
#[derive(Debug)]
pub struct Counted<T> {
    store: Store<Kept<T>>,
    changes: u64,
}

/// What can be compared apart from its version.
pub trait Comparable: Stored + Clone {
    /// Whether nothing but the version differs.
    fn is_same(&self, other: &Self) -> bool;
}

impl Comparable for NodeView {
    fn is_same(&self, other: &Self) -> bool {
        Self { version: other.version, ..self.clone() } == *other
    }
}

impl Comparable for DriverPod {
    fn is_same(&self, other: &Self) -> bool {
        Self { version: other.version, ..self.clone() } == *other
    }
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self { store: Store::default(), changes: 0 }
    }
}

impl<T: Comparable> Counted<T> {
    /// How often something has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All objects; `None` as long as they have not been listed.
    #[must_use]
    pub fn snapshot(&self) -> Option<Vec<Kept<T>>> {
        self.store.snapshot()
    }

    /// An object, if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Kept<T>> {
        self.store.get(name)
    }

    /// Takes over the answer to a write of ours.
    pub fn answered(&mut self, name: &str, object: Kept<T>) {
        self.changes += 1;
        self.store.answered(name, object);
    }

    /// An object, if nothing but its version has changed since it was as given.
    #[must_use]
    pub fn still(&self, name: &str, before: &T) -> Option<&Kept<T>> {
        self.store.get(name).filter(|now| now.is_same(before))
    }

    /// Returns whether something has changed.
    fn apply(&mut self, event: Event<Kept<T>>) -> bool {
        let is_new = match &event {
            Event::Applied(name, object) => self.store.get(name).is_none_or(|known| !known.is_same(object)),
            Event::Bookmark(_) => false,
            _ => true,
        };
        self.changes += u64::from(is_new);
        self.store.apply(event);
        is_new
    }
}

impl Holder<Node> for Counted<NodeView> {
    type Value = Kept<NodeView>;

    fn project(node: Node) -> Kept<NodeView> {
        Kept::new(NodeView::of(node))
    }

    fn store(&mut self) -> &mut Store<Kept<NodeView>> {
        &mut self.store
    }

    fn take(&mut self, event: Event<Kept<NodeView>>) -> bool {
        self.apply(event)
    }
}

impl Holder<Pod> for Counted<DriverPod> {
    type Value = Kept<DriverPod>;

    fn project(pod: Pod) -> Kept<DriverPod> {
        Kept::new(DriverPod::of(pod, accelerator_runtime::now()))
    }

    fn store(&mut self) -> &mut Store<Kept<DriverPod>> {
        &mut self.store
    }

    fn take(&mut self, event: Event<Kept<DriverPod>>) -> bool {
        self.apply(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(version: u64, is_ready: bool) -> Kept<NodeView> {
        Kept::new(NodeView { name: "n".into(), version, is_ready, ..NodeView::default() })
    }

    #[test]
    fn a_heartbeat_changes_nothing_and_its_version_is_known() {
        let mut nodes = Counted::default();
        assert!(nodes.apply(Event::ListBegun(1)));
        nodes.apply(Event::Listed("n".into(), node(1, true)));
        nodes.apply(Event::ListEnded);
        let changes = nodes.changes();
        assert!(!nodes.apply(Event::Applied("n".into(), node(2, true))));
        assert_eq!(nodes.changes(), changes);
        assert_eq!(nodes.still("n", &node(1, true)).map(Stored::version), Some(2));
        assert!(nodes.apply(Event::Applied("n".into(), node(3, false))));
        assert_eq!(nodes.changes(), changes + 1);
        assert!(nodes.still("n", &node(1, true)).is_none());
        assert!(!nodes.apply(Event::Bookmark(9)));
        assert!(nodes.apply(Event::Deleted("n".into(), 10)));
    }
}
