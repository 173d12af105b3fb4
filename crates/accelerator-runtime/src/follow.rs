//! Lists and watches of which only some fields are read, for as long as somebody wants to know: unlike the watches that a
//! controller lives on, these end, and nothing depends on them but a message.

use std::pin::pin;
use std::time::Duration;

use accelerator_process::chain;
use futures::TryStreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::api::{ListParams, Request, WatchParams};
use kube::core::WatchEvent;
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::{Backoff, PAGE_SIZE};

/// Seconds after which the API server ends a watch and the next is opened.
const WATCH_SECONDS: u32 = 180;

/// Objects of one kind, in one namespace or all of them.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Source {
    client: Client,
    path: String,
    labels: Option<String>,
    fields: Option<String>,
}

/// A view of an object, with its version.
pub trait View: Clone + DeserializeOwned {
    /// Its resource version.
    fn version(&self) -> &str;
}

#[derive(Deserialize)]
struct Page<T> {
    metadata: ListMeta,
    items: Vec<T>,
}

/// Why a watch is over.
#[derive(Debug)]
pub enum Ended {
    /// Its version is too old: what happened since is lost.
    Expired,
    /// Of itself, or by a failure that the next may not meet.
    Again,
}

impl Source {
    /// Those of one namespace.
    #[must_use]
    pub fn of<K>(client: Client, namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self { client, path: K::url_path(&(), Some(namespace)), labels: None, fields: None }
    }

    /// All of them: those of every namespace, or those that live in none.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()>>(client: Client) -> Self {
        Self { client, path: K::url_path(&(), None), labels: None, fields: None }
    }

    /// Only those that this label selector selects.
    #[must_use]
    pub fn labels(self, selector: String) -> Self {
        Self { labels: Some(selector), ..self }
    }

    /// Only those that this field selector selects.
    #[must_use]
    pub fn fields(self, selector: &str) -> Self {
        Self { fields: Some(selector.to_owned()), ..self }
    }

    /// Feeds every object to `take`, page by page. Returns the version to watch from.
    pub async fn list<T: DeserializeOwned>(&self, mut take: impl FnMut(T)) -> Result<String, kube::Error> {
        let mut params = self.list_params(PAGE_SIZE);
        loop {
            let page: Page<T> = self.page(&params).await?;
            page.items.into_iter().for_each(&mut take);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// The version as of now. Reads one object, whatever the selectors, because a selector may make the server read all.
    pub async fn version(&self) -> Result<String, kube::Error> {
        let page: Page<serde::de::IgnoredAny> = self.page(&ListParams::default().limit(1)).await?;
        Ok(page.metadata.resource_version.unwrap_or_default())
    }

    /// Feeds every change since `version` to `take`, which gets `true` with an object that is gone, until the watch is
    /// over. `version` moves on.
    pub async fn watch<T: View>(
        &self,
        version: &mut String,
        mut take: impl FnMut(T, bool),
    ) -> Result<Ended, kube::Error> {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector.clone_from(&self.labels);
        params.field_selector.clone_from(&self.fields);
        let mut request = Request::new(&self.path).watch(&params, version).map_err(kube::Error::BuildRequest)?;
        // As kube marks its own requests, for the metrics.
        request.extensions_mut().insert("watch");
        let stream = match self.client.request_events::<T>(request).await {
            Err(kube::Error::Api(status)) if status.code == 410 => return Ok(Ended::Expired),
            stream => stream?,
        };
        let mut stream = pin!(stream);
        while let Some(event) = stream.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    object.version().clone_into(version);
                    take(object, false);
                }
                WatchEvent::Deleted(object) => {
                    object.version().clone_into(version);
                    take(object, true);
                }
                WatchEvent::Bookmark(bookmark) => *version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Expired),
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(Ended::Again)
    }

    fn list_params(&self, limit: u32) -> ListParams {
        let mut params = ListParams::default().limit(limit);
        params.label_selector.clone_from(&self.labels);
        params.field_selector.clone_from(&self.fields);
        params
    }

    async fn page<T: DeserializeOwned>(&self, params: &ListParams) -> Result<Page<T>, kube::Error> {
        let mut request = Request::new(&self.path).list(params).map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert("list");
        self.client.request(request).await
    }
}

/// Tells of trouble once when it begins and once when it ends, and waits before the next try.
#[derive(Debug)]
pub struct Retries {
    kind: &'static str,
    backoff: Backoff,
}

impl Retries {
    /// None so far, for objects of this kind.
    #[must_use]
    pub fn of(kind: &'static str) -> Self {
        Self { kind, backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)) }
    }

    /// Waits; says what went wrong if it did not before.
    pub async fn failed(&mut self, error: &kube::Error) {
        if !self.backoff.is_failing() {
            warn!(kind = self.kind, err = chain(error), "Could not look at what is not ready; trying again");
        }
        tokio::time::sleep(self.backoff.fail(rand::random())).await;
    }

    /// It went well.
    pub fn succeeded(&mut self) {
        if self.backoff.is_failing() {
            info!(kind = self.kind, "What is not ready can be looked at again");
        }
        self.backoff.succeed();
    }
}

/// A task that ends when nobody wants it any more.
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Starts it.
    pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
