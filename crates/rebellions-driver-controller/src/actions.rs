//! Carries out what an upgrade plan asks for. What is remembered here is only about our own requests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use accelerator_runtime::chain;
use accelerator_runtime::{Backoff, EventRequest, Events, Shared, random};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::metrics::UpgradeMetrics;
use crate::node::{Node, NodeView};
use crate::pods::PodName;
use crate::seen::Counted;
use crate::upgrade::{Action, EVICTION_RETRY, Tell};

/// Requests in flight at once.
const IN_FLIGHT: usize = 16;

/// When to look again after a write that somebody else's was faster than.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// How long the end of a pod that was deleted is waited for before it is deleted again.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

/// Sends requests and knows what became of them.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Actor {
    client: Client,
    manager: &'static str,
    namespace: String,
    nodes: Shared<Counted<NodeView>>,
    events: Events,
    /// What became of evictions, by the pod's identity.
    evictions: BTreeMap<String, Eviction>,
    /// Driver pods that were deleted, by identity, and when to delete them again.
    deleted: BTreeMap<String, Instant>,
    /// Nodes that could not be written, and when to try again.
    failing: BTreeMap<String, Failing>,
    /// Nodes of which it is not known whether they were written.
    unread: BTreeSet<String>,
    /// Nodes as they are after writes of ours, until somebody asks.
    answers: Vec<NodeView>,
    /// Nodes that the API server did not know, until somebody asks.
    gone: Vec<String>,
    metrics: UpgradeMetrics,
}

enum Eviction {
    /// The pod is going to end.
    Accepted,
    /// It was refused in these words, and is asked for again then.
    Refused(String, Timestamp),
}

struct Failing {
    backoff: Backoff,
    until: Instant,
    why: String,
}

/// What became of one request.
enum Answer {
    Patched { node: String, view: Result<Box<NodeView>, kube::Error>, tell: Option<Tell> },
    Evicted { uid: String, refusal: Option<String> },
    Deleted { uid: String, error: Option<kube::Error> },
}

impl Actor {
    /// An actor that writes as `manager`, and driver pods in `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        manager: &'static str,
        namespace: &str,
        nodes: Shared<Counted<NodeView>>,
        events: Events,
        metrics: UpgradeMetrics,
    ) -> Self {
        Self {
            client,
            manager,
            namespace: namespace.to_owned(),
            nodes,
            events,
            evictions: BTreeMap::new(),
            deleted: BTreeMap::new(),
            failing: BTreeMap::new(),
            unread: BTreeSet::new(),
            answers: vec![],
            gone: vec![],
            metrics,
        }
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.evictions.clear();
        self.deleted.clear();
        self.failing.clear();
        self.unread.clear();
    }

    /// What the API server last said to the eviction of a pod, when that was no.
    #[must_use]
    pub fn refusal(&self, uid: &str) -> Option<&str> {
        match self.evictions.get(uid)? {
            Eviction::Refused(words, _) => Some(words),
            Eviction::Accepted => None,
        }
    }

    /// Why a node cannot be written, if it cannot.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.failing.iter().map(|(node, failing)| (node.as_str(), failing.why.as_str()))
    }

    /// Nodes that must be read before the next plan, because no answer came to a write.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        self.unread.iter().cloned().collect()
    }

    /// A node was read.
    pub fn read(&mut self, node: &str) {
        self.unread.remove(node);
    }

    /// Nodes as they are after writes of ours.
    pub fn take_answers(&mut self) -> Vec<NodeView> {
        std::mem::take(&mut self.answers)
    }

    /// Nodes that the API server did not know.
    pub fn take_gone(&mut self) -> Vec<String> {
        std::mem::take(&mut self.gone)
    }

    /// Carries out what can be carried out now. Returns when to come back.
    pub async fn carry_out(&mut self, actions: Vec<Action>, now: Timestamp) -> Option<Instant> {
        let is_due = |action: &Action| self.is_due(action, now);
        let due: Vec<_> = actions.into_iter().filter(is_due).collect();
        let requests: Vec<_> = due.into_iter().map(|action| self.request(action)).collect();
        let answers: Vec<_> = stream::iter(requests).buffer_unordered(IN_FLIGHT).collect().await;
        let mut again = None;
        for answer in answers {
            let due = self.take(answer, now);
            again = [again, due].into_iter().flatten().min();
        }
        let waiting = self.failing.values().map(|failing| failing.until);
        let deletions = self.deleted.values().copied();
        again.into_iter().chain(waiting).chain(deletions).min()
    }

    /// Whether this is to be asked for now, and not again already.
    fn is_due(&self, action: &Action, now: Timestamp) -> bool {
        match action {
            Action::Patch { node, .. } => self.failing.get(node).is_none_or(|failing| failing.until <= Instant::now()),
            Action::Evict { uid, .. } => match self.evictions.get(uid) {
                Some(Eviction::Accepted) => false,
                Some(Eviction::Refused(_, retry_at)) => *retry_at <= now,
                None => true,
            },
            Action::DeleteDriverPod { uid, .. } => self.deleted.get(uid).is_none_or(|again| *again <= Instant::now()),
        }
    }

    fn request(&self, action: Action) -> impl Future<Output = Answer> + use<> {
        let (client, manager, namespace) = (self.client.clone(), self.manager, self.namespace.clone());
        async move {
            match action {
                Action::Patch { node, patch, tell } => {
                    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
                    let api = Api::<Node>::all(client);
                    let view = api.patch(&node, &params, &Patch::Merge(&patch)).await;
                    Answer::Patched { node, view: view.map(|node| Box::new(NodeView::of(node))), tell }
                }
                Action::Evict { pod, uid, .. } => {
                    let refusal = evict(client, &pod, &uid).await;
                    Answer::Evicted { uid, refusal }
                }
                Action::DeleteDriverPod { name, uid, .. } => {
                    let api = Api::<Pod>::namespaced(client, &namespace);
                    let only = Preconditions { uid: Some(uid.clone()), resource_version: None };
                    let error = api.delete(&name, &DeleteParams::default().preconditions(only)).await.err();
                    Answer::Deleted { uid, error: error.filter(|error| !is_gone(error)) }
                }
            }
        }
    }

    /// Takes note of an answer. Returns when to look again because of it.
    fn take(&mut self, answer: Answer, now: Timestamp) -> Option<Instant> {
        match answer {
            Answer::Patched { node, view: Ok(view), tell } => {
                self.failing.remove(&node);
                if let Some(tell) = tell {
                    info!(node = view.name, reason = tell.reason, "{}", tell.note);
                    self.publish(&view, tell);
                }
                self.measure(&node, &view, now);
                self.answers.push((*view).clone());
                if view.carries_deploy_label {
                    self.nodes.with(|store| store.answered(&node, *view));
                }
                None
            }
            Answer::Patched { node, view: Err(error), .. } => Some(self.not_patched(&node, &error)),
            Answer::Evicted { uid, refusal } => {
                if refusal.is_some() {
                    self.metrics.eviction_refused();
                }
                let retry_at = now.checked_add(EVICTION_RETRY).unwrap_or(now);
                let eviction = refusal.map_or(Eviction::Accepted, |words| Eviction::Refused(words, retry_at));
                self.evictions.insert(uid, eviction);
                None
            }
            Answer::Deleted { uid, error: None } => {
                self.deleted.insert(uid, Instant::now() + DELETE_AGAIN);
                None
            }
            Answer::Deleted { uid, error: Some(error) } => {
                warn!(uid, err = chain(&error), "Could not delete a pod of the driver; trying again");
                let again = Instant::now() + DELETE_AGAIN;
                self.deleted.insert(uid, again);
                Some(again)
            }
        }
    }

    /// Measures how long the node was in the state that it left by this write.
    fn measure(&self, node: &str, after: &NodeView, now: Timestamp) {
        let before = self.nodes.with(|store| store.get(node).cloned());
        let Some(before) = before.filter(|before| before.state != after.state) else { return };
        if let (Some(state), Some(since)) = (before.state, before.record.and_then(|record| record.since)) {
            self.metrics.left(state, now.duration_since(since).as_secs_f64());
        }
    }

    fn not_patched(&mut self, node: &str, error: &kube::Error) -> Instant {
        match error {
            // Somebody else wrote it meanwhile, or it is gone; the watch tells.
            kube::Error::Api(status) if status.code == 409 || status.code == 404 => Instant::now() + AFTER_CONFLICT,
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                self.fail(node, status.message.clone(), error)
            }
            // It may have been written.
            _ => {
                self.unread.insert(node.to_owned());
                self.fail(node, "the API server did not answer".into(), error)
            }
        }
    }

    fn fail(&mut self, node: &str, why: String, error: &kube::Error) -> Instant {
        let failing = self.failing.entry(node.to_owned()).or_insert_with(|| Failing {
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
            until: Instant::now(),
            why: String::new(),
        });
        if failing.why != why {
            warn!(node, err = chain(error), "Could not write node; trying again");
        }
        failing.why = why;
        failing.until = Instant::now() + failing.backoff.fail(random());
        failing.until
    }

    fn publish(&self, node: &NodeView, tell: Tell) {
        self.events.publish(EventRequest {
            regarding: reference(node),
            warning: tell.warning,
            reason: tell.reason,
            action: "Upgrade",
            note: tell.note,
        });
    }

    /// Forgets pods that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.evictions.retain(|uid, _| is_there(uid));
    }

    /// Forgets driver pods that are gone.
    pub fn retain_driver_pods(&mut self, is_there: impl Fn(&str) -> bool) {
        self.deleted.retain(|uid, _| is_there(uid));
    }
}

/// How events refer to a node.
fn reference(node: &NodeView) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.name.clone()),
        uid: Some(node.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Asks for the eviction of exactly this pod. Returns the API server's words when it refused.
async fn evict(client: Client, pod: &PodName, uid: &str) -> Option<String> {
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let delete_options = Some(DeleteParams::default().preconditions(only));
    let params = EvictParams { delete_options, ..EvictParams::default() };
    let answer = Api::<Pod>::namespaced(client, &pod.namespace).evict(&pod.name, &params).await;
    match answer {
        Ok(_) => None,
        Err(error) if is_gone(&error) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => Some(chain(&error)),
    }
}

/// Whether a pod is not there any more, or another is by its name.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}
