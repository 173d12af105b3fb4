//! The watches behind a diagnosis: an operand's own pods, and warnings of the operands' namespace.

use std::sync::Arc;
use std::time::Duration;

use accelerator_operand::{EventView, PodProblems, PodView};
use accelerator_process::clock;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Client;
use tokio::sync::Notify;

use crate::Shared;
use crate::follow::{Ended, Retries, Source, View};

/// How often the loop is woken, at most, however much changes.
const WAKE_EVERY: Duration = Duration::from_millis(500);

impl View for PodView {
    fn version(&self) -> &str {
        self.resource_version()
    }
}

impl View for EventView {
    fn version(&self) -> &str {
        self.resource_version()
    }
}

/// What a watch feeds.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) problems: Shared<PodProblems>,
    pub(super) changed: Arc<Notify>,
}

impl Target {
    /// Changes what is known and wakes the loop if that made a difference: soon, and once for many changes.
    fn update(&self, change: impl FnOnce(&mut PodProblems) -> bool, wake: &Notify) {
        if self.problems.with(change) {
            wake.notify_one();
        }
    }

    async fn wake_loop(&self, wake: &Notify) {
        loop {
            wake.notified().await;
            self.changed.notify_one();
            tokio::time::sleep(WAKE_EVERY).await;
        }
    }
}

/// How much of the pods is listed before they are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Those that do not run, which the server can tell; the others only if these are fewer than so many.
    AtLeast(i64),
    /// All of them: only who reads a pod can tell that it runs and is not ready.
    All,
}

/// Follows the pods of a DaemonSet for ever; they carry its name as their label `name`. `listed` hears what has been listed, once a list is complete.
pub(super) async fn pods(
    client: Client,
    namespace: String,
    daemon_set: String,
    extent: Extent,
    target: Target,
    listed: impl Fn(Extent) + Send,
) {
    let wake = Notify::new();
    let own = Source::of::<Pod>(client, &namespace).labels(format!("name={daemon_set}"));
    let follow = async {
        let mut retries = Retries::of("pods");
        let mut extent = extent;
        loop {
            let mut version = match first_look(&own, extent, &target, &wake).await {
                Ok((version, seen)) => {
                    listed(seen);
                    target.changed.notify_one();
                    version
                }
                Err(error) => {
                    retries.failed(&error).await;
                    continue;
                }
            };
            retries.succeeded();
            loop {
                let take = |pod: PodView, gone: bool| {
                    let now = clock::now();
                    target.update(|known| if gone { known.remove(pod.name()) } else { known.apply(&pod, now) }, &wake);
                };
                match own.watch(&mut version, take).await {
                    Ok(Ended::Again) => retries.succeeded(),
                    Ok(Ended::Expired) => break,
                    Err(error) => retries.failed(&error).await,
                }
            }
            extent = Extent::All;
        }
    };
    tokio::select! { () = follow => {}, () = target.wake_loop(&wake) => {} }
}

/// Lists pods. Returns the version to watch from, and how much has been seen.
async fn first_look(
    own: &Source,
    extent: Extent,
    target: &Target,
    wake: &Notify,
) -> Result<(String, Extent), kube::Error> {
    if let Extent::AtLeast(expected) = extent {
        let mut found = 0;
        let take = |pod: PodView| {
            found += 1;
            target.update(|known| known.apply(&pod, clock::now()), wake);
        };
        let version = own.clone().fields("status.phase!=Running").list(take).await?;
        if found >= expected {
            return Ok((version, extent));
        }
    }
    let mut names = std::collections::BTreeSet::new();
    let take = |pod: PodView| {
        names.insert(pod.name().to_owned());
        target.update(|known| known.apply(&pod, clock::now()), wake);
    };
    let version = own.list(take).await?;
    target.update(|known| known.retain(|pod| names.contains(pod)), wake);
    Ok((version, Extent::All))
}

/// Follows what events warn of, for ever. They are listed once: a list with a selector makes the API server read every
/// event of the namespace. What is missed later, while a version is too old, is said again by whoever said it.
pub(super) async fn warnings(client: Client, namespace: String, target: Target) {
    let wake = Notify::new();
    let warnings = Source::of::<Event>(client, &namespace).fields("type=Warning");
    let take = |event: EventView, gone: bool| target.update(|known| !gone && known.apply_event(&event), &wake);
    let follow = async {
        let mut retries = Retries::of("events");
        let mut is_listed = false;
        loop {
            let version =
                if is_listed { warnings.version().await } else { warnings.list(|one| take(one, false)).await };
            let mut version = match version {
                Ok(version) => version,
                Err(error) => {
                    retries.failed(&error).await;
                    continue;
                }
            };
            is_listed = true;
            loop {
                match warnings.watch(&mut version, take).await {
                    Ok(Ended::Again) => retries.succeeded(),
                    Ok(Ended::Expired) => break,
                    Err(error) => retries.failed(&error).await,
                }
            }
        }
    };
    tokio::select! { () = follow => {}, () = target.wake_loop(&wake) => {} }
}
