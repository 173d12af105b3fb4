//! Events: what happened, told to whoever describes the object. Published in the background; no reconcile waits for one
//! or fails because of one.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::Metrics;
use crate::token_bucket::TokenBucket;
use accelerator_process::{chain, clock};

/// Events about cluster-scoped objects live here: the API server accepts them nowhere else.
const NAMESPACE: &str = "default";

/// How many events wait for a slow API server before new ones are dropped. They are advice, not state.
const QUEUE: usize = 256;

/// Per object: so many events at once, then one per [`REFILL`]. A flapping object must not fill etcd.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(30);

/// Kubernetes refuses longer notes.
const NOTE_BYTES: usize = 1024;

/// Kubernetes refuses longer names of events.
const NAME_BYTES: usize = 253;

/// How an event refers to a node: with its name in place of its uid, as the kubelet does, because that is what
/// `kubectl describe node` looks for.
#[must_use]
pub fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(name.into()),
        uid: Some(name.into()),
        ..ObjectReference::default()
    }
}

/// An event to publish about an object.
#[derive(Clone, Debug)]
pub struct EventRequest {
    /// The object. Cluster-scoped.
    pub regarding: ObjectReference,
    /// Whether somebody may have to act.
    pub warning: bool,
    /// Why, as one word of our vocabulary.
    pub reason: &'static str,
    /// What we did, as a verb: `Apply`, `Delete`, `Label`, `Observe`.
    pub action: &'static str,
    /// For people.
    pub note: String,
}

/// Where event requests go.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<EventRequest>,
    metrics: Metrics,
}

impl Events {
    /// The sending end, and the future that publishes.
    pub(crate) fn new(client: Client, controller: &'static str, metrics: Metrics) -> (Self, impl Future<Output = ()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let publisher = send(Api::namespaced(client, NAMESPACE), controller, waiting, metrics.clone());
        (Self { queue, metrics }, publisher)
    }

    /// Publishes soon, or drops the request when too many wait.
    pub fn publish(&self, request: EventRequest) {
        if self.queue.try_send(request).is_err() {
            self.metrics.event("dropped");
        }
    }
}

async fn send(api: Api<Event>, controller: &'static str, mut waiting: mpsc::Receiver<EventRequest>, metrics: Metrics) {
    let mut buckets: HashMap<String, TokenBucket> = HashMap::new();
    let mut failing = false;
    while let Some(request) = waiting.recv().await {
        let now = Instant::now();
        buckets.retain(|_, bucket| !bucket.is_full(now));
        let object = request.regarding.uid.clone().unwrap_or_default();
        let bucket = buckets.entry(object).or_insert_with(|| TokenBucket::full(BURST, REFILL, now));
        if !bucket.try_take(now) {
            metrics.event("dropped");
            continue;
        }
        match api.create(&PostParams::default(), &event(request, controller)).await {
            Ok(_) => {
                failing = false;
                metrics.event("published");
            }
            Err(error) => {
                if !failing {
                    warn!(err = chain(&error), "Could not publish event");
                }
                failing = true;
                metrics.event("failed");
            }
        }
    }
}

fn event(request: EventRequest, controller: &'static str) -> Event {
    let EventRequest { regarding, warning, reason, action, mut note } = request;
    let now = clock::now();
    note.truncate(note.floor_char_boundary(NOTE_BYTES));
    Event {
        metadata: ObjectMeta {
            name: Some(event_name(regarding.name.as_deref().unwrap_or("object"), rand::random())),
            namespace: Some(NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if warning { "Warning" } else { "Normal" }.into()),
        reason: Some(reason.into()),
        action: Some(action.into()),
        note: Some(note),
        regarding: Some(regarding),
        reporting_controller: Some(controller.into()),
        reporting_instance: Some(controller.into()),
        ..Event::default()
    }
}

/// The object's name and a number, as client-go names events. The number is random, because two programs may tell of one
/// object in the same nanosecond; a name that would get too long is cut.
fn event_name(object: &str, number: u64) -> String {
    let suffix = format!(".{number:016x}");
    let kept = object.floor_char_boundary(NAME_BYTES - suffix.len());
    // A dot or a dash in front of the suffix's dot is no valid name.
    object[..kept].trim_end_matches(['.', '-']).to_owned() + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node may have a name of 253 characters.
    #[test]
    fn the_name_of_an_event_about_a_long_name_is_still_a_name() {
        let long = event_name(&"a.b-".repeat(63), 7);
        assert!(long.len() <= NAME_BYTES, "{} bytes", long.len());
        assert!(long.ends_with("a.b.0000000000000007") || long.ends_with("a.0000000000000007"), "{long}");
        assert_eq!(event_name("default", 7), "default.0000000000000007");
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let request = EventRequest {
            regarding: ObjectReference::default(),
            warning: true,
            reason: "ApplyFailed",
            action: "Apply",
            note: "é".repeat(NOTE_BYTES),
        };
        assert_eq!(event(request, "x").note.expect("a note").len(), NOTE_BYTES);
    }
}
