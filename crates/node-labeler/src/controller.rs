//! The labeler's loop: looks at configs and nodes, has labels written and the status brought up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use accelerator_api::contract::{NODE_LABELER, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{ObservedConfig, Reason, active};
use accelerator_runtime::{AbsenceCheck, Event, EventRequest, Holder, Reconcile, Runtime, Shared, StatusWriter, Store};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::exclusion_look::ExclusionLook;
use crate::index::{Index, InvalidMode};
use crate::queue::Trouble;
use crate::rules::Policy;
use crate::status::Reporter;
use crate::view::NodeView;
use crate::writer::{Writer, log_ended};

/// Writes under way at once. More gains nothing: 16 keep an API server on two cores busy.
const IN_FLIGHT: usize = 16;

/// How long labels wait for Ready to be taken back when that cannot be written.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
const HOLD_STEP: Duration = Duration::from_millis(100);

/// Runs until told to stop.
pub async fn run(mut runtime: Runtime, hold_down: Duration) -> anyhow::Result<()> {
    let index = Shared::new(Index::new(hold_down));
    // Metadata only: heartbeats and images of thousands of nodes never reach us.
    let nodes = Api::<PartialObjectMeta<Node>>::all(runtime.client.clone());
    runtime.watch(nodes, ListParams::default(), index.clone());
    let configs = runtime.store(Api::all(runtime.client.clone()), ListParams::default());
    let reporter = Reporter {
        index: index.clone(),
        configs: configs.clone(),
        writer: StatusWriter::new(runtime.client.clone(), NODE_LABELER, runtime.events.clone()),
        look: ExclusionLook::new(Api::all(runtime.client.clone()), Arc::clone(&runtime.changed)),
    };
    let labeler = Labeler {
        index,
        configs,
        nodes: Api::all(runtime.client.clone()),
        permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        reporter,
        started: false,
        holding: None,
        absence: AbsenceCheck::new(runtime.client.clone()),
    };
    runtime.run(labeler).await
}

struct Labeler {
    index: Shared<Index>,
    configs: Shared<Store<Arc<ObservedConfig>>>,
    nodes: Api<Node>,
    permits: Arc<Semaphore>,
    reporter: Reporter,
    /// Whether a first look at the whole cluster has been taken.
    started: bool,
    /// Since when labels have waited for Ready to be taken back.
    holding: Option<Instant>,
    absence: AbsenceCheck,
}

impl Holder<PartialObjectMeta<Node>> for Index {
    type Value = NodeView;

    fn project(node: PartialObjectMeta<Node>) -> NodeView {
        NodeView::of(&node.metadata)
    }

    fn store(&mut self) -> &mut Store<NodeView> {
        self.store()
    }

    fn take(&mut self, event: Event<NodeView>) {
        self.take(event, Instant::now());
    }
}

impl Reconcile for Labeler {
    async fn reconcile(&mut self, runtime: &Runtime) -> Option<tokio::time::Instant> {
        let configs = self.configs.with(|store| store.snapshot())?;
        if !self.index.with(|index| index.store().is_synced()) {
            return None;
        }
        let started = Instant::now();
        let active = active(configs.iter().map(|config| &config.metadata));
        let vacant = self.absence.look(configs.is_empty()).await;
        let policy = match active {
            None if !vacant => Policy::Frozen,
            active => Policy::of(active.map(|index| configs[index].spec.as_ref())),
        };
        self.index.with(|index| {
            index.set_policy(policy, Instant::now());
            index.advance(Instant::now());
        });
        // By an event: the labels were written all the same, or are no longer wanted.
        if self.index.with(Index::take_trouble) == Some(Trouble::Ended) {
            log_ended();
        }
        self.tell_invalid_modes(active.map(|index| configs[index].as_ref()), runtime);
        if let (Some(why), Some(active)) = (self.index.with(Index::take_contest), active) {
            tell_contest(&configs[active], why, runtime);
        }
        let look = self.reporter.look_at_uncounted(active.map(|index| configs[index].as_ref()));
        // First, so that nobody sees Ready together with labels whose pods are not there yet.
        let mut next = self.reporter.report(&configs, active, runtime).await;
        if self.may_label() {
            self.label(runtime);
        } else {
            let soon = tokio::time::Instant::now() + HOLD_STEP;
            next = Some(next.map_or(soon, |next| next.min(soon)));
        }
        runtime.metrics.reconciled(self.index.with(|index| index.failing()) == 0, started.elapsed());
        let due = self.index.with(|index| index.due_at()).map(tokio::time::Instant::from_std);
        [next, due, look, self.absence.due_at()].into_iter().flatten().min()
    }

    fn on_leadership_lost(&mut self) {
        self.index.with(|index| index.on_leadership_lost(Instant::now()));
        self.absence.forget();
        self.reporter.look_at_uncounted(None);
        self.started = false;
        self.holding = None;
    }
}

impl Labeler {
    /// Whether nothing says Ready that the labels to be written would give the lie: what is about to be taken back is waited
    /// for, but not for ever.
    fn may_label(&mut self) -> bool {
        let configs = self.configs.with(|store| store.snapshot()).unwrap_or_default();
        let active = active(configs.iter().map(|config| &config.metadata)).map(|active| &configs[active]);
        let outstanding = self.index.with(|index| index.pending()) > 0
            && active.is_some_and(|config| self.reporter.has_to_retract(config));
        if !outstanding {
            self.holding = None;
            return true;
        }
        self.holding.get_or_insert_with(Instant::now).elapsed() >= HOLD_LIMIT
    }

    /// Starts as many writers as may be at work. Each goes on until there is nothing left to write.
    fn label(&self, runtime: &Runtime) {
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let Some(work) = self.index.with(|index| index.next_work(Instant::now())) else {
                return;
            };
            let writer = Writer {
                nodes: self.nodes.clone(),
                index: self.index.clone(),
                changed: Arc::clone(&runtime.changed),
                metrics: runtime.metrics.clone(),
            };
            tokio::spawn(async move {
                writer.run(work).await;
                drop(permit);
                writer.changed.notify_one();
            });
        }
    }

    /// Tells the admins of nodes whose workload label is no mode. After a restart, those that were told of before, as
    /// the counts in the status say, are not told of again.
    fn tell_invalid_modes(&mut self, active: Option<&ObservedConfig>, runtime: &Runtime) {
        let invalid = self.index.with(Index::take_invalid_modes);
        let counted = active.and_then(|config| config.status.nodes.as_ref()).map_or(0, |nodes| nodes.invalid_mode);
        let known = !std::mem::replace(&mut self.started, true) && usize::try_from(counted) == Ok(invalid.len());
        for InvalidMode { node, value } in invalid.into_iter().filter(|_| !known) {
            warn!(node, value, "Node has a workload label that is no mode");
            runtime.events.publish(EventRequest {
                regarding: ObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Node".into()),
                    // As the kubelet does: kubectl describe finds a node's events by its name in place of the uid.
                    uid: Some(node.clone()),
                    name: Some(node),
                    ..ObjectReference::default()
                },
                warning: true,
                reason: Reason::WorkloadConfigInvalid.as_str(),
                action: "Label",
                note: format!(
                    "label {WORKLOAD_CONFIG_LABEL}={value} is no mode; the node is left as it is; use container or \
                     vm-passthrough"
                ),
            });
        }
    }
}

/// One event when somebody begins to undo what is written, however many nodes it is about.
fn tell_contest(config: &ObservedConfig, note: String, runtime: &Runtime) {
    let reason = Reason::Contested.as_str();
    warn!(acceleratorConfig = config.name_any(), reason, err = note, "What is written to a node does not last");
    let regarding = config.object_ref(&());
    runtime.events.publish(EventRequest { regarding, warning: true, reason, action: "Label", note });
}
