//! The pods of nodes whose driver is being replaced: listed once and watched while, and only while, somebody wants to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use accelerator_runtime::{Ended, Retries, Shared, Source, Task, View};
use k8s_openapi::api::core::v1;
use kube::{Client, Resource};
use tokio::sync::{Notify, Semaphore};

use crate::pods::{Pod, PodName};

impl View for Pod {
    fn version(&self) -> &str {
        self.meta().resource_version.as_deref().unwrap_or_default()
    }
}

/// Lists in flight at once. A list is held as a whole while it is read, a watch event by event.
const LISTS_IN_FLIGHT: usize = 8;

/// The pods of some nodes.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Follower {
    client: Client,
    changed: Arc<Notify>,
    lists: Arc<Semaphore>,
    nodes: BTreeMap<String, Followed>,
}

struct Followed {
    known: Shared<Known>,
    _task: Task,
}

/// The pods of one node.
struct Known {
    is_listed: bool,
    pods: BTreeMap<PodName, Arc<Pod>>,
}

impl Follower {
    /// Follows no node so far. `changed` is notified after each change.
    #[must_use]
    pub fn new(client: Client, changed: Arc<Notify>) -> Self {
        Self { client, changed, lists: Arc::new(Semaphore::new(LISTS_IN_FLIGHT)), nodes: BTreeMap::new() }
    }

    /// Follows these nodes and no others.
    pub fn follow(&mut self, nodes: &[String]) {
        self.nodes.retain(|name, _| nodes.contains(name));
        for name in nodes {
            if !self.nodes.contains_key(name) {
                let known = Shared::new(Known { is_listed: false, pods: BTreeMap::new() });
                let pods = Source::all::<v1::Pod>(self.client.clone()).fields(&format!("spec.nodeName={name}"));
                let (lists, changed) = (Arc::clone(&self.lists), Arc::clone(&self.changed));
                let task = Task::spawn(keep_current(pods, known.clone(), lists, changed));
                self.nodes.insert(name.clone(), Followed { known, _task: task });
            }
        }
    }

    /// The pods of every node that is followed and has been listed.
    #[must_use]
    pub fn listed(&self) -> BTreeMap<String, Vec<Arc<Pod>>> {
        let pods = |known: &Shared<Known>| {
            known.with(|known| known.is_listed.then(|| known.pods.values().cloned().collect::<Vec<_>>()))
        };
        self.nodes.iter().filter_map(|(node, followed)| Some((node.clone(), pods(&followed.known)?))).collect()
    }
}

/// Lists and watches for ever.
async fn keep_current(source: Source, known: Shared<Known>, lists: Arc<Semaphore>, changed: Arc<Notify>) {
    let mut retries = Retries::of("pods");
    loop {
        let mut listed = BTreeMap::new();
        let permit = lists.acquire().await;
        let version = source.list(|pod: Pod| drop(listed.insert(pod.full_name(), Arc::new(pod)))).await;
        drop(permit);
        let mut version = match version {
            Ok(version) => version,
            Err(error) => {
                retries.failed(&error).await;
                continue;
            }
        };
        retries.succeeded();
        known.with(|known| *known = Known { is_listed: true, pods: listed });
        changed.notify_one();
        loop {
            let take = |pod: Pod, is_gone: bool| {
                known.with(|known| {
                    if is_gone {
                        known.pods.remove(&pod.full_name());
                    } else {
                        known.pods.insert(pod.full_name(), Arc::new(pod));
                    }
                });
                changed.notify_one();
            };
            match source.watch(&mut version, take).await {
                Ok(Ended::Again) => retries.succeeded(),
                Ok(Ended::Expired) => break,
                Err(error) => retries.failed(&error).await,
            }
        }
    }
}
