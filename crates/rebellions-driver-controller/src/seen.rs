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

    fn apply(&mut self, event: Event<T>) {
        let is_new = match &event {
            Event::Applied(name, object) => self.store.get(name).is_none_or(|known| !known.is_same(object)),
            Event::Bookmark(_) => false,
            _ => true,
        };
        self.changes += u64::from(is_new);
        self.store.apply(event);
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

    fn take(&mut self, event: Event<NodeView>) {
        self.apply(event);
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

    fn take(&mut self, event: Event<DriverPod>) {
        self.apply(event);
    }
}
