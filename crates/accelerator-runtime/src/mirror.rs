//! What we know of a kind of objects: a copy kept current by a watch and by the answers to our own writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// An object's version as a number, to tell which of two reads is newer; 0 when it is none. Comparing is sound within
/// one kind: Kubernetes promises it since 1.35 and has never done otherwise.
#[must_use]
pub fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// A copy of the objects of one kind, by name. All of them live in one namespace or in none.
///
/// It never goes back: an event that is older than what we know, because we have seen the answer to our own write, is
/// ignored. So a decision is never made on a state that we ourselves have already changed.
#[derive(Debug)]
pub struct Mirror<K> {
    objects: BTreeMap<String, Arc<K>>,
    listed: Option<BTreeMap<String, Arc<K>>>,
    synced: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: None, synced: false }
    }
}

impl<K: Resource> Mirror<K> {
    /// Takes over what a watch says. A list replaces everything at its end, so that what was deleted meanwhile goes.
    pub fn apply(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.listed = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let name = object.name_any();
                let object = self.newest(&name, object);
                self.listed.get_or_insert_default().insert(name, object);
            }
            Event::InitDone => {
                self.objects = self.listed.take().unwrap_or_default();
                self.synced = true;
            }
            Event::Apply(object) => self.insert(object),
            Event::Delete(object) => self.remove(&object),
        }
    }

    /// Takes over an object, unless a newer version of it is known.
    pub fn insert(&mut self, object: K) {
        let name = object.name_any();
        let object = self.newest(&name, object);
        self.objects.insert(name, object);
    }

    /// Forgets an object that turned out not to exist: only this one, not a successor of the same name.
    pub fn remove(&mut self, gone: &K) {
        let name = gone.name_any();
        if self.objects.get(&name).is_some_and(|known| known.uid() == gone.uid()) {
            self.objects.remove(&name);
        }
    }

    /// Everything that is known, in the order of names; `None` until all of it has been listed once.
    #[must_use]
    pub fn snapshot(&self) -> Option<Vec<Arc<K>>> {
        self.synced.then(|| self.objects.values().cloned().collect())
    }

    fn newest(&self, name: &str, object: K) -> Arc<K> {
        let known = self
            .objects
            .get(name)
            .filter(|known| known.uid() == object.uid() && version_of(known.meta()) > version_of(object.meta()));
        known.map_or_else(|| Arc::new(object), Arc::clone)
    }
}

/// A mirror that a watch writes and a loop reads.
#[derive(Debug)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    /// Reads or changes it. Never held across an await.
    pub fn with<R>(&self, access: impl FnOnce(&mut T) -> R) -> R {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn object(name: &str, uid: &str, version: u32) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(uid.into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn known(mirror: &Mirror<ConfigMap>) -> Vec<(String, u64)> {
        let objects = mirror.snapshot().expect("synced");
        objects.iter().map(|object| (object.name_any(), version_of(&object.metadata))).collect()
    }

    fn synced(objects: Vec<ConfigMap>) -> Mirror<ConfigMap> {
        let mut mirror = Mirror::default();
        mirror.apply(Event::Init);
        for object in objects {
            mirror.apply(Event::InitApply(object));
        }
        mirror.apply(Event::InitDone);
        mirror
    }

    #[test]
    fn nothing_is_known_before_the_first_list_is_complete() {
        let mut mirror = Mirror::default();
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(object("a", "1", 5)));
        assert!(mirror.snapshot().is_none());
        mirror.apply(Event::InitDone);
        assert_eq!(known(&mirror), [("a".into(), 5)]);
    }

    #[test]
    fn a_new_list_drops_what_is_gone() {
        let mut mirror = synced(vec![object("a", "1", 5), object("b", "2", 6)]);
        mirror.apply(Event::Init);
        mirror.apply(Event::InitApply(object("b", "2", 6)));
        assert_eq!(known(&mirror).len(), 2, "until the list is complete");
        mirror.apply(Event::InitDone);
        assert_eq!(known(&mirror), [("b".into(), 6)]);
    }

    #[test]
    fn our_own_newer_write_is_not_undone_by_an_older_event() {
        let mut mirror = synced(vec![object("a", "1", 5)]);
        mirror.insert(object("a", "1", 9));
        mirror.apply(Event::Apply(object("a", "1", 7)));
        assert_eq!(known(&mirror), [("a".into(), 9)]);
        mirror.apply(Event::Apply(object("a", "1", 10)));
        assert_eq!(known(&mirror), [("a".into(), 10)]);
    }

    #[test]
    fn an_object_made_anew_replaces_its_predecessor_whatever_the_order() {
        let mut mirror = synced(vec![object("a", "old", 50)]);
        mirror.insert(object("a", "new", 60));
        mirror.apply(Event::Delete(object("a", "old", 55)));
        assert_eq!(known(&mirror), [("a".into(), 60)]);
        mirror.apply(Event::Delete(object("a", "new", 61)));
        assert_eq!(known(&mirror), []);
    }
}
