//! Takes down what happens.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

use super::History;
use super::moment::Seen;
use crate::Cluster;
use crate::audit::Mark;
use crate::wait::{Wait, eventually};

/// What has been seen of one kind of object.
#[derive(Default)]
struct Log {
    has_begun: bool,
    first: Vec<Seen>,
    then: Vec<Seen>,
}

type Shared = Arc<Mutex<Log>>;

fn with<T>(log: &Shared, look: impl FnOnce(&mut Log) -> T) -> T {
    look(&mut log.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A run that is being recorded.
pub struct Recording {
    mark: Mark,
    logs: [Shared; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Recording {
    /// Begins to record, from the state that the cluster is in.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let logs = [Shared::default(), Shared::default()];
        let tasks = [
            tokio::spawn(follow(cluster.all::<Node>(), logs[0].clone(), Seen::of_node)),
            tokio::spawn(follow(cluster.all::<Pod>(), logs[1].clone(), Seen::of_pod)),
        ];
        eventually("the first list of nodes and pods", async || {
            let begun = logs.iter().filter(|log| with(log, |log| log.has_begun)).count();
            Wait::until(begun, |begun| *begun == 2)
        })
        .await;
        Ok(Self { mark: cluster.mark()?, logs, tasks })
    }

    /// Ends when everything has been heard of that is so by now.
    pub async fn stop(self, cluster: &Cluster) -> anyhow::Result<History> {
        let all = ListParams::default();
        let version = |version: Option<String>| version.and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        let nodes = cluster.all::<Node>().list_metadata(&all).await?.items;
        let pods = cluster.all::<Pod>().list_metadata(&all).await?.items;
        let newest = [
            nodes.iter().map(|node| version(node.resource_version())).max(),
            pods.iter().map(|pod| version(pod.resource_version())).max(),
        ];
        for (log, newest) in self.logs.iter().zip(newest) {
            eventually("the news of nodes and pods to arrive", async || {
                let heard = with(log, |log| log.first.iter().chain(&log.then).map(Seen::version).max());
                Wait::until((heard, newest), |(heard, newest)| heard >= newest)
            })
            .await;
        }
        let requests = self.mark.requests()?;
        let mut all = Log::default();
        for log in &self.logs {
            with(log, |log| {
                all.first.append(&mut log.first);
                all.then.append(&mut log.then);
            });
        }
        Ok(History::new(all.first, all.then, requests))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn follow<K>(api: Api<K>, log: Shared, seen: fn(&K, bool) -> Seen)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        with(&log, |log| match event {
            Ok(watcher::Event::InitApply(object)) if !log.has_begun => log.first.push(seen(&object, false)),
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                log.then.push(seen(&object, false));
            }
            Ok(watcher::Event::Delete(object)) => log.then.push(seen(&object, true)),
            Ok(watcher::Event::InitDone) => log.has_begun = true,
            Ok(watcher::Event::Init) | Err(_) => {}
        });
    }
}
