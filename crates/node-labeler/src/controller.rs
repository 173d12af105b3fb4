//! The labeler's loop: looks at configs and nodes, has labels written and the status brought up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use accelerator_api::contract::NODE_LABELER;
use accelerator_api::{ObservedConfig, active};
use accelerator_runtime::{
    AbsenceCheck, Event, Holder, Reconcile, Runtime, Shared, StatusWriter, Store, now as wall_clock,
};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, PartialObjectMeta};
use tokio::sync::Semaphore;

use crate::exclusion_look::ExclusionLook;
use crate::index::Index;
use crate::node::{Clock, HoldDowns};
use crate::queue::Trouble;
use crate::rules::Policy;
use crate::status::Reporter;
use crate::tell;
use crate::view::NodeView;
use crate::writer::{Writer, log_ended};

/// Writes under way at once. More gains nothing: 16 keep an API server on two cores busy.
const IN_FLIGHT: usize = 16;

/// How long labels wait for Ready to be taken back when that cannot be written.
const HOLD_LIMIT: Duration = Duration::from_secs(10);
const HOLD_STEP: Duration = Duration::from_millis(100);

/// Runs until told to stop.
pub async fn run(mut runtime: Runtime, hold_downs: HoldDowns) -> anyhow::Result<()> {
    let index = Shared::new(Index::new(hold_downs, clock()));
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

fn clock() -> Clock {
    Clock { instant: Instant::now(), wall: wall_clock() }
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

    fn take(&mut self, event: Event<NodeView>) -> bool {
        self.take(event, Instant::now());
        true
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
            index.set_clock(clock());
            index.set_policy(policy, Instant::now());
            index.advance(Instant::now());
        });
        // By an event: the labels were written all the same, or are no longer wanted.
        if self.index.with(Index::take_trouble) == Some(Trouble::Ended) {
            log_ended();
        }
        let config = active.map(|index| configs[index].as_ref());
        let invalid = self.index.with(Index::take_invalid_modes);
        let is_first = !std::mem::replace(&mut self.started, true);
        tell::invalid_modes(invalid, config, is_first, runtime);
        tell::notices(self.index.with(Index::take_notices), runtime);
        if let (Some(why), Some(config)) = (self.index.with(Index::take_contest), config) {
            tell::contest(config, why, runtime);
        }
        let look = self.reporter.look_at_uncounted(config);
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
}
