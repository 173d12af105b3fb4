//! Carries out what an upgrade plan asks for.

mod effect;
mod past;

use std::collections::BTreeMap;
use std::pin::pin;

use accelerator_runtime::{EventRequest, Events, Shared, chain, node_reference, random};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{info, warn};

use self::effect::without_effect;
use self::past::{NotPatched, Past, Turn};
use crate::metrics::UpgradeMetrics;
use crate::node::{Node, NodeView};
use crate::pods::PodName;
use crate::seen::{Counted, Kept};
use crate::upgrade::{Action, Refusal, Tell};

/// Requests in flight at once.
const IN_FLIGHT: usize = 16;

/// Sends requests and knows what became of them.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Actor {
    client: Client,
    manager: &'static str,
    namespace: String,
    nodes: Shared<Counted<NodeView>>,
    events: Events,
    metrics: UpgradeMetrics,
    past: Past,
    /// Nodes as they are after writes of ours, until somebody asks.
    answers: Vec<Kept<NodeView>>,
}

/// What became of one request.
enum Answer {
    Patched { node: String, view: Result<Kept<NodeView>, kube::Error>, dropped: Option<String>, tell: Option<Tell> },
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
        let namespace = namespace.to_owned();
        Self { client, manager, namespace, nodes, events, metrics, past: Past::default(), answers: vec![] }
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.past = Past::default();
    }

    /// What the API server last said to the eviction of a pod, when that was no.
    #[must_use]
    pub fn refusal(&self, uid: &str) -> Option<&str> {
        self.past.refusal(uid)
    }

    /// Nodes that the API server refuses to write, of those that are still to be written.
    #[must_use]
    pub fn refused(&self, now: Timestamp) -> BTreeMap<String, Refusal> {
        self.past.refused(now, Instant::now())
    }

    /// Whether a write to this node would be sent now.
    #[must_use]
    pub fn is_due(&self, node: &str) -> bool {
        self.past.is_due(node, Instant::now())
    }

    /// Nodes that must be read before the next plan: no answer came to a write, or the watch does not show them.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        self.past.unread()
    }

    /// A node was read.
    pub fn read(&mut self, node: &str) {
        self.past.read(node);
    }

    /// Nodes as they are after writes of ours.
    pub fn take_answers(&mut self) -> Vec<Kept<NodeView>> {
        std::mem::take(&mut self.answers)
    }

    /// Nodes that the API server did not know.
    pub fn take_gone(&mut self) -> Vec<String> {
        self.past.take_gone()
    }

    /// Carries out what can be carried out now. `seen` is what the actions were planned from. Returns when to come back.
    pub async fn carry_out(
        &mut self,
        actions: Vec<Action>,
        held_back: &[String],
        seen: &BTreeMap<&str, &NodeView>,
        now: Timestamp,
    ) -> Option<Instant> {
        self.past.retain(&actions, held_back);
        let (mut due, mut again) = (vec![], None);
        for action in actions {
            match self.past.turn(&action, Instant::now()) {
                Turn::Now => due.push(action),
                Turn::At(time) => again = again.into_iter().chain([time]).min(),
                Turn::Never => {}
            }
        }
        let sender = Sender {
            client: self.client.clone(),
            manager: self.manager,
            namespace: self.namespace.clone(),
            nodes: self.nodes.clone(),
        };
        // A request is made when it is sent, and its answer is taken when it comes: a look may ask for thousands.
        let mut answers = pin!(stream::iter(due).map(|action| sender.send(action, seen)).buffer_unordered(IN_FLIGHT));
        while let Some(answer) = answers.next().await {
            again = again.into_iter().chain(self.take(answer, seen, now)).min();
        }
        again
    }

    /// Takes note of an answer. Returns when to look again because of it.
    fn take(&mut self, answer: Answer, seen: &BTreeMap<&str, &NodeView>, now: Timestamp) -> Option<Instant> {
        match answer {
            Answer::Patched { node, view: Ok(view), dropped, tell } => {
                let again = match (dropped, tell) {
                    (Some(words), _) => self.without_effect(&node, &words),
                    (None, tell) => {
                        if let Some(tell) = tell {
                            self.publish(&view, tell);
                        }
                        self.past.patched(&node, Instant::now())
                    }
                };
                self.measure(seen.get(node.as_str()).copied(), &view, now);
                if view.carries_deploy_label {
                    self.nodes.with(|store| store.answered(&node, view.clone()));
                }
                self.answers.push(view);
                Some(again)
            }
            Answer::Patched { node, view: Err(error), .. } => Some(self.not_patched(&node, &error)),
            Answer::Evicted { uid, refusal } => {
                if refusal.is_some() {
                    self.metrics.eviction_refused();
                }
                self.past.evicted(uid, refusal, Instant::now());
                None
            }
            Answer::Deleted { uid, error } => {
                if let Some(error) = error {
                    warn!(uid, err = chain(&error), "Could not delete a pod of the driver; trying again");
                }
                Some(self.past.deleted(uid, Instant::now()))
            }
        }
    }

    /// Measures how long the node was in the state that it left by this write. What it was before is what the write was planned
    /// from: the watch may be faster than the answer.
    fn measure(&self, before: Option<&NodeView>, after: &NodeView, now: Timestamp) {
        let Some(before) = before.filter(|before| before.state != after.state) else { return };
        if let (Some(state), Some(since)) = (before.state, before.record.as_ref().and_then(|record| record.since)) {
            self.metrics.left(state, now.duration_since(since).as_secs_f64());
        }
    }

    /// A write that would have no effect again is as good as refused. Returns when to look again.
    fn without_effect(&mut self, node: &str, words: &str) -> Instant {
        let (again, is_news) =
            self.past.not_patched(node, NotPatched::Refused(words.to_owned()), Instant::now(), random());
        if is_news {
            warn!(node, err = words, "Could not write node; trying again");
        }
        again
    }

    /// Returns when to look again.
    fn not_patched(&mut self, node: &str, error: &kube::Error) -> Instant {
        let why = match error {
            kube::Error::Api(status) if status.code == 404 => NotPatched::Gone,
            kube::Error::Api(status) if status.code == 409 => {
                NotPatched::Conflict { is_watched: self.nodes.with(|nodes| nodes.get(node).is_some()) }
            }
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                NotPatched::Refused(status.message.clone())
            }
            _ => NotPatched::Unanswered,
        };
        let (again, is_news) = self.past.not_patched(node, why, Instant::now(), random());
        if is_news {
            warn!(node, err = chain(error), "Could not write node; trying again");
        }
        again
    }

    fn publish(&self, node: &NodeView, tell: Tell) {
        info!(node = node.name, reason = tell.reason, "{}", tell.note);
        self.events.publish(EventRequest {
            regarding: node_reference(&node.name),
            warning: tell.warning,
            reason: tell.reason,
            action: "Upgrade",
            note: tell.note,
        });
    }
}

/// Sends one request.
struct Sender {
    client: Client,
    manager: &'static str,
    namespace: String,
    nodes: Shared<Counted<NodeView>>,
}

impl Sender {
    async fn send(&self, action: Action, seen: &BTreeMap<&str, &NodeView>) -> Answer {
        match action {
            Action::Patch { node, mut patch, tell } => {
                if let Some(version) = seen.get(node.as_str()).and_then(|before| self.newest(before)) {
                    patch["metadata"]["resourceVersion"] = version.to_string().into();
                }
                let params = PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() };
                let api = Api::<Node>::all(self.client.clone());
                match api.patch(&node, &params, &Patch::Merge(&patch)).await {
                    Ok(answer) => {
                        let dropped = without_effect(&patch, &answer);
                        Answer::Patched { node, view: Ok(Kept::new(NodeView::of(answer))), dropped, tell }
                    }
                    Err(error) => Answer::Patched { node, view: Err(error), dropped: None, tell },
                }
            }
            Action::Evict { pod, uid, .. } => {
                let refusal = evict(self.client.clone(), &pod, &uid).await;
                Answer::Evicted { uid, refusal }
            }
            Action::DeleteDriverPod { name, uid, .. } => {
                let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
                let error = api.delete(&name, &exactly(&uid)).await.err();
                Answer::Deleted { uid, error: error.filter(|error| !is_gone(error)) }
            }
        }
    }

    /// The newest version of a node on which only heartbeats have come since it was looked at: a plan is made from what was seen
    /// when something had changed last, and the last of its requests is sent long after the first.
    fn newest(&self, before: &NodeView) -> Option<u64> {
        self.nodes.with(|nodes| nodes.still(&before.name, before).map(|now| now.version))
    }
}

/// Deletes exactly the pod of this identity.
fn exactly(uid: &str) -> DeleteParams {
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams::default().preconditions(only)
}

/// Asks for the eviction of exactly this pod. Returns the API server's words when it refused.
async fn evict(client: Client, pod: &PodName, uid: &str) -> Option<String> {
    let params = EvictParams { delete_options: Some(exactly(uid)), ..EvictParams::default() };
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
