//! Keeps a [`Store`] current: lists, then watches, for ever. It says once when that breaks and once when it is back.
//!
//! kube's `watcher` does the same but does not tell the version of a list, without which an answer to a write of ours
//! cannot be put in order with it.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::health::HealthHandle;
use crate::store::{Event, Shared, Store, Stored, version_of};
use crate::{Backoff, Metrics, random};
use accelerator_process::chain;

/// Objects per page of a list. Small pages bound the memory that a list of thousands of nodes needs at once.
pub const PAGE_SIZE: u32 = 100;

/// Seconds after which the API server ends a watch and we open the next. Below the idle limits of common load balancers
/// (240 s and more).
const WATCH_SECONDS: u32 = 180;

/// A watch that has been silent for this long, bookmarks included, is dead: the API server should have ended it.
const DEAD_AFTER: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);

/// After a failure, a watch that has not failed again for this long is back, although nothing may have happened that it
/// could have told. Longer than a request's deadline and the longest wait between tries together.
const RECOVERED_AFTER: Duration = Duration::from_secs(45);

/// Failures in a row to open a watch after which the list is taken anew. A server that answers 410, or knows no such
/// version because it was restored from a backup, would refuse the old version for ever.
const RELIST_AFTER: u32 = 5;

/// A cache that a watch keeps current: a [`Store`] of what is needed of objects of kind `K`, and whatever is derived from it.
pub trait Holder<K>: Send + 'static {
    /// What is kept of an object.
    type Value: Stored + Send;

    /// What to keep of an object.
    fn project(object: K) -> Self::Value;

    /// The store.
    fn store(&mut self) -> &mut Store<Self::Value>;

    /// Takes over what the watch says. Returns whether the controller has to look because of it.
    fn take(&mut self, event: Event<Self::Value>) -> bool;
}

impl<K: Resource + Send + Sync + 'static> Holder<K> for Store<Arc<K>> {
    type Value = Arc<K>;

    fn project(object: K) -> Arc<K> {
        Arc::new(object)
    }

    fn store(&mut self) -> &mut Store<Arc<K>> {
        self
    }

    fn take(&mut self, event: Event<Arc<K>>) -> bool {
        self.apply(event);
        true
    }
}

/// One list and watch that never ends.
pub(crate) struct Watch<K, H> {
    pub api: Api<K>,
    /// Which objects.
    pub selector: ListParams,
    pub kind: String,
    pub holder: Shared<H>,
    /// Wakes the controller's loop.
    pub changed: Arc<Notify>,
    /// Asks for a new list.
    pub relist: Arc<Notify>,
    pub health: HealthHandle,
    pub metrics: Metrics,
    pub backoff: Backoff,
}

/// Why a list or watch failed.
enum WatchError {
    /// The API server no longer knows what came after our version.
    Expired(String),
    Other(String),
}

impl WatchError {
    fn why(&self) -> &str {
        match self {
            Self::Expired(why) | Self::Other(why) => why,
        }
    }
}

impl From<kube::Error> for WatchError {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Expired(chain(&error)),
            _ => Self::Other(chain(&error)),
        }
    }
}

impl<K, H> Watch<K, H>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    H: Holder<K>,
{
    pub(crate) const fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(10))
    }

    pub(crate) async fn run(mut self) {
        loop {
            match self.list().await {
                Ok(version) => self.follow(version).await,
                Err(error) => self.failed(&error.into()).await,
            }
        }
    }

    /// Lists everything, page by page. Returns the list's version.
    async fn list(&mut self) -> Result<String, kube::Error> {
        let mut params = self.selector.clone().limit(PAGE_SIZE);
        let mut version = None;
        loop {
            let page = self.api.list(&params).await?;
            if version.is_none() {
                let listed = page.metadata.resource_version.unwrap_or_default();
                self.tell(Event::ListBegun(listed.parse().unwrap_or(0)));
                version = Some(listed);
            }
            for object in page.items {
                self.tell(Event::Listed(object.name_any().into(), H::project(object)));
            }
            self.recovered();
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break;
            }
        }
        self.tell(Event::ListEnded);
        self.health.synced();
        Ok(version.unwrap_or_default())
    }

    /// Watches from this version on, until a new list is needed.
    async fn follow(&mut self, mut version: String) {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.field_selector.clone_from(&self.selector.field_selector);
        params.label_selector.clone_from(&self.selector.label_selector);
        let mut refused = 0;
        while refused < RELIST_AFTER {
            let broken = match self.api.watch(&params, &version).await {
                Ok(stream) => {
                    refused = 0;
                    match self.read(stream, &mut version).await {
                        Ok(Ended::Closed) => continue,
                        Ok(Ended::Relist) => return,
                        Err(broken) => broken,
                    }
                }
                Err(error) => {
                    refused += 1;
                    error.into()
                }
            };
            self.failed(&broken).await;
            if matches!(broken, WatchError::Expired(_)) {
                return;
            }
        }
    }

    /// Reads one watch to its end.
    async fn read(
        &mut self,
        stream: impl Stream<Item = kube::Result<WatchEvent<K>>>,
        version: &mut String,
    ) -> Result<Ended, WatchError> {
        let mut stream = pin!(stream);
        let relist = Arc::clone(&self.relist);
        let mut heard = Instant::now();
        loop {
            let item = tokio::select! {
                item = timeout(RECOVERED_AFTER, stream.next()) => item,
                () = relist.notified() => return Ok(Ended::Relist),
            };
            match item {
                Ok(Some(event)) => {
                    self.hear(event?, version)?;
                    heard = Instant::now();
                }
                Ok(None) => return Ok(Ended::Closed),
                Err(_silent) if heard.elapsed() >= DEAD_AFTER => return Ok(Ended::Closed),
                Err(_silent) => {}
            }
            self.health.beat();
            self.recovered();
        }
    }

    fn hear(&mut self, event: WatchEvent<K>, version: &mut String) -> Result<(), WatchError> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *version = object.resource_version().unwrap_or_default();
                self.tell(Event::Applied(object.name_any().into(), H::project(object)));
            }
            WatchEvent::Deleted(object) => {
                *version = object.resource_version().unwrap_or_default();
                self.tell(Event::Deleted(object.name_any().into(), version_of(object.meta())));
            }
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                let version = version.parse().unwrap_or(0);
                self.holder.with(|holder| holder.take(Event::Bookmark(version)));
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        }
        Ok(())
    }

    fn tell(&self, event: Event<H::Value>) {
        if self.holder.with(|holder| holder.take(event)) {
            self.changed.notify_one();
        }
    }

    async fn failed(&mut self, broken: &WatchError) {
        self.metrics.watch_failed(&self.kind);
        self.health.failing();
        if !self.backoff.is_failing() {
            warn!(kind = self.kind, err = broken.why(), "Watch broke; trying again until it is back");
        }
        tokio::time::sleep(self.backoff.fail(random())).await;
    }

    fn recovered(&mut self) {
        if self.backoff.is_failing() {
            info!(kind = self.kind, "Watch is back");
            self.backoff.succeed();
            self.health.recovered();
        }
    }
}

/// How a watch ended without trouble.
enum Ended {
    /// Its time was over.
    Closed,
    /// A new list was asked for.
    Relist,
}
