//! The conditions Accepted and Ready of every AcceleratorConfig, and the counts of nodes.

use std::sync::Arc;

use accelerator_api::contract::COMPONENTS;
use accelerator_api::{
    AcceleratorConfigStatus, NodeCounts, ObservedConfig, Reason, Rebellions, active_first, condition_types,
};
use accelerator_operand::condition;
use accelerator_runtime::{
    EventRequest, Runtime, Shared, StatusWrite, StatusWriter, Store, Urgency, now as wall_clock,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::exclusion::{Excluded, tolerations};
use crate::exclusion_look::{ExclusionLook, Uncounted};
use crate::index::Index;
use crate::summary::{Assignments, explains, left_out, ready, uncounted};

/// Says in the status what is known of nodes and what every component reports.
pub(crate) struct Reporter {
    pub index: Shared<Index>,
    pub configs: Shared<Store<Arc<ObservedConfig>>>,
    pub writer: StatusWriter,
    pub look: ExclusionLook,
}

impl Reporter {
    /// Brings the conditions Accepted and Ready of every config up to date. Returns when to come back.
    pub(crate) async fn report(
        &mut self,
        configs: &[Arc<ObservedConfig>],
        active: Option<usize>,
        runtime: &Runtime,
    ) -> Option<tokio::time::Instant> {
        if active.is_none() {
            runtime.metrics.conditions([]);
        }
        for index in active_first(configs.len(), active) {
            let config = &configs[index];
            let counts = active == Some(index);
            let (nodes, conditions) = match active.map(|active| &configs[active]) {
                Some(_) if counts => self.verdict(config),
                Some(active) if config.metadata.deletion_timestamp.is_none() => {
                    (None, superseded(config, &active.name_any()))
                }
                _ => continue,
            };
            if counts {
                runtime.metrics.conditions(&conditions);
            }
            let status = &config.status;
            let is_stalled = |condition: &Condition| condition.type_ == condition_types::STALLED;
            let written = status.nodes == nodes
                && status.observed_generation == config.metadata.generation
                && status.conditions.iter().any(is_stalled) == conditions.iter().any(is_stalled)
                && conditions.iter().all(|condition| status.condition(&condition.type_) == Some(condition));
            if written {
                continue;
            }
            let urgency = urgency(status, &conditions);
            if self.writer.ready_at(urgency) <= tokio::time::Instant::now() {
                let observed_generation = config.metadata.generation;
                let status = AcceleratorConfigStatus { observed_generation, nodes, conditions, components: vec![] };
                match self.writer.write(config, &json!(status)).await {
                    StatusWrite::Applied(written) => {
                        tell_superseded(config, &written, runtime);
                        self.configs.with(|store| store.answered(&config.name_any(), Arc::new(*written)));
                    }
                    StatusWrite::NotFound | StatusWrite::Deferred => {}
                }
            }
            if self.writer.ready_at(urgency) > tokio::time::Instant::now() {
                return Some(self.writer.ready_at(urgency));
            }
        }
        self.writer.up_to_date();
        None
    }

    /// Has nodes looked at that are assigned and not counted, if there are any. Returns when to come back.
    pub(crate) fn look_at_uncounted(&mut self, config: Option<&ObservedConfig>) -> Option<tokio::time::Instant> {
        let spec = config.and_then(|config| config.spec.as_ref().ok());
        let section = spec.and_then(|spec| spec.providers.rebellions.as_ref());
        let missing = config.zip(section).map(|(config, section)| {
            let (assigned, known) =
                self.index.with(|index| (index.assignments().assigned, self.excluded(index, Some(section))));
            // Those that settings leave out may stay so for ever, and nothing has to be looked at for them.
            let (missing, left_out) = (uncounted(section, &config.status, assigned), left_out(&known));
            let nodes = std::array::from_fn(|index| missing[index] - left_out[index]);
            Uncounted { nodes, is_explained: explains(&known, nodes) }
        });
        let tolerations = section.map(tolerations).unwrap_or_default();
        self.look.observe(missing.unwrap_or_default(), || self.index.with(|index| index.tainted()), tolerations)
    }

    /// Nodes that are known to keep pods off. While labels are being written nobody asks, and every change would cost a look at each node.
    fn excluded(&self, index: &Index, section: Option<&Rebellions>) -> Vec<Excluded> {
        index.excluded(self.look.found(), section.filter(|_| index.pending() == 0))
    }

    /// The conditions of the config that counts.
    fn verdict(&self, config: &ObservedConfig) -> (Option<NodeCounts>, Vec<Condition>) {
        let generation = config.metadata.generation;
        let section = config.spec.as_ref().ok().and_then(|spec| spec.providers.rebellions.as_ref());
        let (counts, nodes) = self.index.with(|index| {
            let excluded = self.excluded(index, section);
            (index.counts(), Assignments { excluded, ..index.assignments() })
        });
        let (accepted, readiness) = if let Err(why) = &config.spec {
            let message = format!("this version cannot read the spec, everything stays as it is: {why}");
            ((Reason::Unreadable, message.clone()), (Reason::Unreadable, message))
        } else {
            let message = "this is the AcceleratorConfig that counts".to_owned();
            ((Reason::Active, message), ready(section, &config.status, &nodes, generation))
        };
        (Some(counts), conditions(config, &accepted, &readiness))
    }

    /// Whether this config still says Ready although it no longer is.
    pub(crate) fn has_to_retract(&self, config: &ObservedConfig) -> bool {
        urgency(&config.status, &self.verdict(config).1) == Urgency::Retract
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

/// An event when a config that somebody made, or that counted until now, turns out not to count.
fn tell_superseded(before: &ObservedConfig, now: &ObservedConfig, runtime: &Runtime) {
    let reason = Reason::Superseded.as_str();
    let accepted = |config: &ObservedConfig| {
        let condition = config.status.condition(condition_types::ACCEPTED).filter(|one| one.reason == reason);
        condition.map(|condition| condition.message.clone())
    };
    if let (None, Some(note)) = (accepted(before), accepted(now)) {
        runtime.events.publish(EventRequest {
            regarding: now.object_ref(&()),
            warning: true,
            reason,
            action: "Accept",
            note,
        });
    }
}

/// The conditions of a config that does not count, because an older one does.
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

/// The reason why nothing goes on until somebody acts, if there is one: of the AcceleratorConfig itself, or of one of its
/// components.
fn stalled(config: &ObservedConfig, accepted: &(Reason, String)) -> Option<(Reason, String)> {
    let stalls = |reason: &str| Reason::ALL.iter().copied().find(|one| one.as_str() == reason && one.is_stalled());
    let of_component = || {
        COMPONENTS.iter().find_map(|component| {
            let condition = config.status.condition(component.condition_type)?;
            // A condition about an earlier generation says nothing about this one.
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

    /// What kstatus computes for a custom resource that is not being deleted: another generation is in progress; then the
    /// first of the conditions Reconciling and Stalled that is True decides, then the first Ready.
    /// Source: `Compute`, `checkGenericProperties` and `checkReadyCondition` of sigs.k8s.io/cli-utils/pkg/kstatus/status.
    /// The cluster test *gitops* asks that library itself about real objects.
    fn kstatus(generation: i64, status: &serde_json::Value) -> &'static str {
        if status["observedGeneration"].as_i64().is_some_and(|observed| observed != generation) {
            return "InProgress";
        }
        let conditions: Vec<_> = status["conditions"].as_array().into_iter().flatten().collect();
        let standard = conditions.iter().find_map(|one| match (one["type"].as_str()?, one["status"].as_str()?) {
            ("Reconciling", "True") => Some("InProgress"),
            ("Stalled", "True") => Some("Failed"),
            _ => None,
        });
        let ready = || {
            conditions.iter().find_map(|one| match (one["type"].as_str()?, one["status"].as_str()?) {
                ("Ready", "True") => Some("Current"),
                ("Ready", "False" | "Unknown") => Some("InProgress"),
                _ => None,
            })
        };
        standard.or_else(ready).unwrap_or("Current")
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
