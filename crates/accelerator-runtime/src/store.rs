//! A copy of all objects of one kind, which a watch and the answers to our own writes keep current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

/// An object's version as a number, to tell which of two reads is newer; 0 when it is none. Comparing is sound within
/// one kind: Kubernetes promises it since 1.35 and has never done otherwise.
#[must_use]
pub fn version_of(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What a [`Store`] keeps of an object: all of it, or what somebody needs of it.
pub trait Stored {
    /// The object's version, as [`version_of`] says.
    fn version(&self) -> u64;
}

impl<K: Resource> Stored for Arc<K> {
    fn version(&self) -> u64 {
        version_of(self.meta())
    }
}

/// What a list and the watch that follows it say. Objects go by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// A list begins. It tells everything up to this version.
    ListBegun(u64),
    /// An object of the list.
    Listed(Box<str>, T),
    /// The list is complete: what it did not name did not exist at its version.
    ListEnded,
    /// An object was created or changed.
    Applied(Box<str>, T),
    /// An object was deleted, at this version.
    Deleted(Box<str>, u64),
    /// Everything up to this version has been told.
    Bookmark(u64),
}

/// A copy of the objects of one kind, by name. All of them live in one namespace or in none.
///
/// Watch events, pages of a list and answers to our own writes may arrive in any order; the newest version of each
/// object is the one that counts, and its deletion is a version like any other. Deletions need no memory: a watch tells
/// everything in the order of versions, so that what is unknown although the watch is past its version has been deleted.
#[derive(Debug)]
pub struct Store<T> {
    objects: BTreeMap<Box<str>, T>,
    /// The version up to which lists and watch events have told everything.
    complete: u64,
    listing: Option<Listing>,
    synced: bool,
    /// Names that were deleted since a comparison began, while one is under way.
    deleted: Option<BTreeSet<Box<str>>>,
}

/// A list that is under way.
#[derive(Debug)]
struct Listing {
    version: u64,
    names: BTreeSet<Box<str>>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), complete: 0, listing: None, synced: false, deleted: None }
    }
}

impl<T: Stored> Store<T> {
    /// Takes over what a watch says. Returns the names of the objects that are others than before.
    pub fn apply(&mut self, event: Event<T>) -> Vec<Box<str>> {
        match event {
            Event::ListBegun(version) => {
                self.listing = Some(Listing { version, names: BTreeSet::new() });
                vec![]
            }
            Event::Listed(name, object) => {
                let Some(listing) = &mut self.listing else { return vec![] };
                listing.names.insert(name.clone());
                // A list that is older than what has been told may name what was deleted since.
                let is_current = listing.version >= self.complete;
                self.take(name, object, is_current).into_iter().collect()
            }
            Event::ListEnded => self.end_list(),
            Event::Applied(name, object) => {
                let version = object.version();
                let is_new = version == 0 || version > self.complete;
                self.complete = self.complete.max(version);
                self.take(name, object, is_new).into_iter().collect()
            }
            Event::Deleted(name, version) => {
                self.complete = self.complete.max(version);
                let is_gone = self.objects.get(&name).is_some_and(|known| known.version() <= version || version == 0);
                if is_gone {
                    self.drop_object(&name);
                }
                is_gone.then_some(name).into_iter().collect()
            }
            Event::Bookmark(version) => {
                self.complete = self.complete.max(version);
                vec![]
            }
        }
    }

    /// Takes over the answer to a write of ours, which may be late. Returns whether it is news.
    pub fn answered(&mut self, name: &str, object: T) -> bool {
        let version = object.version();
        let is_ahead = version == 0 || version > self.complete;
        self.take(name.into(), object, is_ahead).is_some()
    }

    /// An object, if it is known.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.objects.get(name)
    }

    /// Every object that is known, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.objects.iter().map(|(name, object)| (name.as_ref(), object))
    }

    /// Whether everything has been listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The version up to which everything has been told.
    #[must_use]
    pub fn complete_up_to(&self) -> u64 {
        self.complete
    }

    /// A comparison with the API server begins.
    pub fn begin_comparison(&mut self) {
        self.deleted = Some(BTreeSet::new());
    }

    /// Ends a comparison: in what this store contradicts a list at that version which was asked for after the comparison
    /// had begun, and all of which must have been told by now. Each difference is a fault: ours, or of what is between us and
    /// the API server.
    pub fn compare(&mut self, listed: &BTreeMap<Box<str>, u64>, version: u64) -> Vec<String> {
        let deleted = self.deleted.take().unwrap_or_default();
        let missed = listed.iter().filter_map(|(name, version)| match self.objects.get(name) {
            None if deleted.contains(name) => None,
            None => Some(format!("{name} is not known")),
            Some(known) if known.version() < *version => Some(format!("{name} is known in an older version")),
            Some(_) => None,
        });
        let gone = self
            .objects
            .iter()
            .filter(|(name, known)| known.version() <= version && known.version() > 0 && !listed.contains_key(*name));
        missed.chain(gone.map(|(name, _)| format!("{name} does not exist any more"))).collect()
    }

    /// Keeps an object if it is newer than the one that is known, or if none is known and it `is_new` to us.
    fn take(&mut self, name: Box<str>, object: T, is_new: bool) -> Option<Box<str>> {
        let is_news = match self.objects.get(&name) {
            None => is_new,
            Some(known) => object.version() == 0 || object.version() > known.version(),
        };
        is_news.then(|| {
            self.objects.insert(name.clone(), object);
            name
        })
    }

    /// Removes the objects that the list did not name, unless an answer to a write of ours is newer than the list.
    fn end_list(&mut self) -> Vec<Box<str>> {
        let Some(Listing { version, names }) = self.listing.take() else { return vec![] };
        let gone = self.objects.iter().filter(|(name, known)| known.version() <= version && !names.contains(*name));
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in &gone {
            self.drop_object(name);
        }
        self.complete = self.complete.max(version);
        self.synced = true;
        gone
    }

    fn drop_object(&mut self, name: &str) {
        self.objects.remove(name);
        if let Some(deleted) = &mut self.deleted {
            deleted.insert(name.into());
        }
    }
}

impl<T: Stored + Clone> Store<T> {
    /// Everything that is known, in the order of names; `None` until all of it has been listed once.
    #[must_use]
    pub fn snapshot(&self) -> Option<Vec<T>> {
        self.synced.then(|| self.objects.values().cloned().collect())
    }
}

/// State that a watch writes and a loop reads.
#[derive(Debug)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    /// Shares this.
    #[must_use]
    pub fn new(value: T) -> Self {
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
mod tests;
