//! Stores that know when something has changed that a decision could depend on. Nodes are written all the time, by heartbeats that
//! change nothing but their version.

use accelerator_runtime::{Event, Holder, Store, Stored};

use crate::node::{Node, NodeView};
use crate::pods::{DriverPod, Pod};

/// What is known of objects, and how often that has changed.
#[derive(Debug)]
pub struct Counted<T> {
    store: Store<T>,
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
    pub fn snapshot(&self) -> Option<Vec<T>> {
        self.store.snapshot()
    }

    /// An object, if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.store.get(name)
    }

    /// Takes over the answer to a write of ours.
    pub fn answered(&mut self, name: &str, object: T) {
        self.changes += 1;
        self.store.answered(name, object);
    }

    /// An object, if nothing but its version has changed since it was as given.
    #[must_use]
    pub fn still(&self, name: &str, before: &T) -> Option<&T> {
        self.store.get(name).filter(|now| now.is_same(before))
    }

    /// Returns whether something has changed.
    fn apply(&mut self, event: Event<T>) -> bool {
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
    type Value = NodeView;

    fn project(node: Node) -> NodeView {
        NodeView::of(node)
    }

    fn store(&mut self) -> &mut Store<NodeView> {
        &mut self.store
    }

    fn take(&mut self, event: Event<NodeView>) -> bool {
        self.apply(event)
    }
}

impl Holder<Pod> for Counted<DriverPod> {
    type Value = DriverPod;

    fn project(pod: Pod) -> DriverPod {
        DriverPod::of(pod, accelerator_runtime::now())
    }

    fn store(&mut self) -> &mut Store<DriverPod> {
        &mut self.store
    }

    fn take(&mut self, event: Event<DriverPod>) -> bool {
        self.apply(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(version: u64, is_ready: bool) -> NodeView {
        NodeView { name: "n".into(), version, is_ready, ..NodeView::default() }
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
