//! Acts on what the rules decide: one PATCH per node per decision, many at once, and the summary in the status.

use std::sync::Arc;
use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, NODE_LABELER, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{
    AcceleratorConfigStatus, NodeCounts, ObservedConfig, Reason, active, active_first, condition_types,
};
use accelerator_operand::condition;
use accelerator_runtime::{
    AbsenceCheck, Announcement, Event, Holder, Reconcile, Runtime, Shared, StatusWrite, StatusWriter, Store, Urgency,
    now as wall_clock,
};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::index::{Index, InvalidMode};
use crate::queue::Trouble;
use crate::rules::Policy;
use crate::summary::ready;
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
    let labeler = Labeler {
        index,
        configs,
        nodes: Api::all(runtime.client.clone()),
        permits: Arc::new(Semaphore::new(IN_FLIGHT)),
        status: StatusWriter::new(runtime.client.clone(), NODE_LABELER, runtime.events.clone()),
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
    status: StatusWriter,
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
        self.announce(active.map(|index| configs[index].as_ref()), runtime);
        if let (Some(why), Some(active)) = (self.index.with(Index::take_contest), active) {
            tell_contest(&configs[active], why, runtime);
        }
        // First, so that nobody sees Ready together with labels whose pods are not there yet.
        let mut next = self.report(&configs, active, runtime).await;
        if self.may_label() {
            self.label(runtime);
        } else {
            let soon = tokio::time::Instant::now() + HOLD_STEP;
            next = Some(next.map_or(soon, |next| next.min(soon)));
        }
        runtime.metrics.reconciled(self.index.with(|index| index.failing()) == 0, started.elapsed());
        let due = self.index.with(|index| index.due_at()).map(tokio::time::Instant::from_std);
        [next, due, self.absence.due_at()].into_iter().flatten().min()
    }

    fn on_leadership_lost(&mut self) {
        self.index.with(|index| index.on_leadership_lost(Instant::now()));
        self.absence.forget();
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
            && active.is_some_and(|config| urgency(&config.status, &self.standing(config).1) == Urgency::Retract);
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
    fn announce(&mut self, active: Option<&ObservedConfig>, runtime: &Runtime) {
        let invalid = self.index.with(Index::take_announcements);
        let counted = active.and_then(|config| config.status.nodes.as_ref()).map_or(0, |nodes| nodes.invalid_mode);
        let known = !std::mem::replace(&mut self.started, true) && usize::try_from(counted) == Ok(invalid.len());
        for InvalidMode { node, value } in invalid.into_iter().filter(|_| !known) {
            warn!(node, value, "Node has a workload label that is no mode");
            runtime.events.announce(Announcement {
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

    /// Brings the conditions Accepted and Ready of every config up to date. Returns when to come back.
    async fn report(
        &mut self,
        configs: &[Arc<ObservedConfig>],
        active: Option<usize>,
        runtime: &Runtime,
    ) -> Option<tokio::time::Instant> {
        for index in active_first(configs.len(), active) {
            let config = &configs[index];
            let counts = active == Some(index);
            let (nodes, conditions) = match active.map(|active| &configs[active]) {
                Some(_) if counts => self.standing(config),
                Some(active) if config.metadata.deletion_timestamp.is_none() => {
                    (None, superseded(config, &active.name_any()))
                }
                _ => continue,
            };
            let status = &config.status;
            let is_stalled = |condition: &&Condition| condition.type_ == condition_types::STALLED;
            let written = status.nodes == nodes
                && status.observed_generation == config.metadata.generation
                && conditions.iter().all(|condition| status.condition(&condition.type_) == Some(condition))
                && status.conditions.iter().any(|one| is_stalled(&one))
                    == conditions.iter().any(|one| is_stalled(&one));
            if written {
                continue;
            }
            let urgency = urgency(status, &conditions);
            if self.status.ready_at(urgency) <= tokio::time::Instant::now() {
                let status = AcceleratorConfigStatus {
                    observed_generation: config.metadata.generation,
                    nodes,
                    conditions,
                    components: vec![],
                };
                match self.status.write(config, &json!(status)).await {
                    StatusWrite::Applied(written) => {
                        tell_superseded(config, &written, runtime);
                        self.configs.with(|store| store.answered(&config.name_any(), Arc::new(*written)));
                    }
                    StatusWrite::NotFound | StatusWrite::Deferred => {}
                }
            }
            if self.status.ready_at(urgency) > tokio::time::Instant::now() {
                return Some(self.status.ready_at(urgency));
            }
        }
        self.status.up_to_date();
        None
    }

    /// What to say of the config that counts.
    fn standing(&self, config: &ObservedConfig) -> (Option<NodeCounts>, Vec<Condition>) {
        let generation = config.metadata.generation;
        let (counts, nodes) = self.index.with(|index| (index.counts(), index.assignments()));
        let (accepted, readiness) = match &config.spec {
            Err(why) => {
                let message = format!("this version cannot read the spec, everything stays as it is: {why}");
                ((Reason::Unreadable, message.clone()), (Reason::Unreadable, message))
            }
            Ok(spec) => {
                let message = "this is the AcceleratorConfig that counts".to_owned();
                let section = spec.providers.rebellions.as_ref();
                ((Reason::Active, message), ready(section, &config.status, &nodes, generation))
            }
        };
        (Some(counts), conditions(config, &accepted, &readiness))
    }
}

/// How soon these conditions have to be told.
fn urgency(told: &AcceleratorConfigStatus, conditions: &[Condition]) -> Urgency {
    let is_ready = |condition: &Condition| condition.type_ == condition_types::READY && condition.status == "True";
    if told.conditions.iter().any(is_ready) && !conditions.iter().any(is_ready) {
        return Urgency::Retract;
    }
    let each: Vec<_> = conditions.iter().map(|new| Urgency::of(told.condition(&new.type_), new)).collect();
    let most = [Urgency::Edit, Urgency::Transition].into_iter().find(|urgency| each.contains(urgency));
    most.unwrap_or(Urgency::Progress)
}

/// One event when somebody begins to undo what is written, however many nodes it is about.
fn tell_contest(config: &ObservedConfig, note: String, runtime: &Runtime) {
    let reason = Reason::Contested.as_str();
    warn!(acceleratorConfig = config.name_any(), reason, err = note, "What is written to a node does not last");
    let regarding = config.object_ref(&());
    runtime.events.announce(Announcement { regarding, warning: true, reason, action: "Label", note });
}

/// An event when a config that somebody made, or that counted until now, turns out not to count.
fn tell_superseded(before: &ObservedConfig, now: &ObservedConfig, runtime: &Runtime) {
    let reason = Reason::Superseded.as_str();
    let accepted = |config: &ObservedConfig| {
        let condition = config.status.condition(condition_types::ACCEPTED).filter(|one| one.reason == reason);
        condition.map(|condition| condition.message.clone())
    };
    if let (None, Some(note)) = (accepted(before), accepted(now)) {
        runtime.events.announce(Announcement {
            regarding: now.object_ref(&()),
            warning: true,
            reason,
            action: "Accept",
            note,
        });
    }
}

/// What to say of a config that an older one keeps from counting.
fn superseded(config: &ObservedConfig, by: &str) -> Vec<Condition> {
    let message = format!("the older AcceleratorConfig {by} counts; this one takes over when that one is deleted");
    let verdict = (Reason::Superseded, message);
    conditions(config, &verdict, &verdict)
}

fn conditions(config: &ObservedConfig, accepted: &(Reason, String), ready: &(Reason, String)) -> Vec<Condition> {
    let stalled = stalled(config, accepted);
    let told = [(condition_types::ACCEPTED, accepted), (condition_types::READY, ready)];
    let told = told.into_iter().chain(stalled.iter().map(|stalled| (condition_types::STALLED, stalled)));
    let each = told.map(|(kind, (reason, message))| {
        let previous = config.status.condition(kind);
        let one = condition(previous, kind, *reason, message, config.metadata.generation, wall_clock());
        // Unlike the others it is true when something is wrong.
        let status = if kind == condition_types::STALLED { "True".into() } else { one.status.clone() };
        let since = previous.filter(|previous| previous.status == status);
        let since = since.map_or_else(|| one.last_transition_time.clone(), |one| one.last_transition_time.clone());
        Condition { status, last_transition_time: since, ..one }
    });
    each.collect()
}

/// What nothing goes on without, if there is something: of the AcceleratorConfig itself, or of one of its components.
fn stalled(config: &ObservedConfig, accepted: &(Reason, String)) -> Option<(Reason, String)> {
    let stalls = |reason: &str| Reason::ALL.iter().copied().find(|one| one.as_str() == reason && one.is_stalled());
    let of_component = || {
        COMPONENTS.iter().find_map(|component| {
            let condition = config.status.condition(component.condition_type)?;
            // What was wrong with the spec before says nothing of this one.
            let is_current = condition.observed_generation == config.metadata.generation;
            Some((
                stalls(&condition.reason).filter(|_| is_current)?,
                format!("{}: {}", component.name, condition.message),
            ))
        })
    };
    if accepted.0.is_stalled() { Some(accepted.clone()) } else { of_component() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kstatus computes for a custom resource, by its documentation: another generation is in progress, then the
    /// conditions Reconciling, Stalled and Ready are asked in this order.
    /// Source: sigs.k8s.io/cli-utils/pkg/kstatus, README and `checkGenericProperties`.
    fn kstatus(generation: i64, status: &serde_json::Value) -> &'static str {
        let is = |kind: &str, value: &str| {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.clone().any(|one| one["type"] == kind && one["status"] == value)
        };
        let observed = status["observedGeneration"].as_i64();
        if observed.is_some_and(|observed| observed != generation) || is("Reconciling", "True") {
            "InProgress"
        } else if is("Stalled", "True") {
            "Failed"
        } else if is("Ready", "False") || is("Ready", "Unknown") {
            "InProgress"
        } else {
            "Current"
        }
    }

    fn config(status: &serde_json::Value) -> ObservedConfig {
        serde_json::from_value(json!({"metadata": {"name": "x", "generation": 4}, "spec": {}, "status": status}))
            .expect("a config")
    }

    fn told(config: &ObservedConfig, accepted: Reason, ready: Reason) -> serde_json::Value {
        let conditions = conditions(config, &(accepted, "words".into()), &(ready, "words".into()));
        let observed_generation = config.metadata.generation;
        json!(AcceleratorConfigStatus { observed_generation, conditions, ..AcceleratorConfigStatus::default() })
    }

    #[test]
    fn tools_that_follow_kstatus_see_what_is_so() {
        // As the API server fills in the CRD's default.
        let unseen = json!({"observedGeneration": -1});
        assert_eq!(kstatus(4, &unseen), "InProgress");
        let empty = config(&unseen);
        let ready = told(&empty, Reason::Active, Reason::AllComponentsReady);
        assert_eq!(kstatus(4, &ready), "Current");
        assert_eq!(kstatus(5, &ready), "InProgress", "edited, and nobody has looked");
        assert_eq!(kstatus(4, &told(&empty, Reason::Active, Reason::ComponentsNotReady)), "InProgress");
        assert_eq!(kstatus(4, &told(&empty, Reason::Superseded, Reason::Superseded)), "Failed");
        assert_eq!(kstatus(4, &told(&empty, Reason::Unreadable, Reason::Unreadable)), "Failed");
        for (generation, expected) in [(4, "Failed"), (3, "InProgress")] {
            let component = COMPONENTS[0].condition_type;
            let now = accelerator_runtime::now();
            let contested = condition(None, component, Reason::Contested, "words", Some(generation), now);
            let contested = config(&json!({"conditions": [contested]}));
            let status = told(&contested, Reason::Active, Reason::ComponentsNotReady);
            assert_eq!(kstatus(4, &status), expected, "contested in generation {generation}");
        }
    }
}
