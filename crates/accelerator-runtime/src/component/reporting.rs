//! Our entries in every AcceleratorConfig's status, and the events about what became of the component.

use accelerator_api::contract::Component;
use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Reason, active_first, condition_types};
use accelerator_operand::{Outcome, Parts, Report, ReportContext, report};
use accelerator_process::clock;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;

use super::transitions::{Seen, Transitions};
use super::{Controller, Extension};
use crate::{EventRequest, Runtime, StatusWrite, Urgency};

impl<E: Extension> Controller<E> {
    /// Brings our entries in every AcceleratorConfig up to date: the active one has them, the others have none. Returns
    /// when to come back.
    pub(super) async fn report(
        &mut self,
        outcome: Option<&Outcome>,
        configs: &[&ObservedConfig],
        active: Option<usize>,
        runtime: &Runtime,
    ) -> Option<Instant> {
        if active.is_none() {
            runtime.metrics.conditions([]);
        }
        for index in active_first(configs.len(), active) {
            let config = configs[index];
            let report = match (outcome, active == Some(index)) {
                (None, true) => continue,
                (_, false) if config.metadata.deletion_timestamp.is_some() => continue,
                (_, false) => None,
                (Some(outcome), true) => Some(self.compose(outcome, config, runtime)),
            };
            if let Some(report) = &report {
                runtime.metrics.conditions(std::iter::once(&report.condition).chain(&report.further));
            }
            let observed = report.as_ref().and_then(|report| observed_generation(config, &report.condition));
            if report.as_ref().map(Report::parts) == self.reported(config)
                && has_observed(config, observed, self.component().controller)
            {
                self.tell_transition(config, report.as_ref(), outcome, runtime);
                continue;
            }
            let urgency = report.as_ref().map_or(Urgency::Transition, |report| urgency(config, report));
            if self.status.ready_at(urgency) <= Instant::now()
                && self.write_report(config, report.as_ref(), observed).await
            {
                self.tell_transition(config, report.as_ref(), outcome, runtime);
            }
            if self.status.ready_at(urgency) > Instant::now() {
                return Some(self.status.ready_at(urgency));
            }
        }
        if outcome.is_some() {
            self.status.up_to_date();
        }
        self.transitions.as_ref().and_then(|(_, transitions)| transitions.due_at())
    }

    fn compose(&self, outcome: &Outcome, config: &ObservedConfig, runtime: &Runtime) -> Report {
        let (generation, now) = (config.metadata.generation, clock::now());
        let context = ReportContext {
            component: self.component(),
            previous: &config.status,
            generation,
            controller_version: runtime.program.version,
            now,
        };
        let mut report = report(context, outcome, &self.own());
        self.extension.complete(&mut report, &config.status, generation, now);
        report
    }

    /// What the status says of this component. Half an entry is as good as a wrong one, and is written anew.
    fn reported<'a>(&self, config: &'a ObservedConfig) -> Option<Parts<'a>> {
        let component = self.component();
        let entry = config.status.component(component.operand);
        let condition = config.status.condition(component.condition_type);
        let further = further(&config.status, self.extension.condition_types());
        let is_there = entry.is_some() || condition.is_some() || !further.is_empty();
        is_there.then_some((entry, condition, further))
    }

    /// Returns whether it is written.
    async fn write_report(&mut self, config: &ObservedConfig, report: Option<&Report>, observed: Option<i64>) -> bool {
        let mut body = report.map_or_else(
            || json!({}),
            |report| {
                let conditions: Vec<_> = std::iter::once(&report.condition).chain(&report.further).collect();
                json!({"components": [&report.entry], "conditions": conditions})
            },
        );
        if let Some(observed) = observed {
            body["observedGeneration"] = observed.into();
        }
        match self.status.write(config, &body).await {
            StatusWrite::Applied(written) => {
                self.configs.with(|store| store.answered(&config.name_any(), Arc::new(*written)));
                return true;
            }
            StatusWrite::NotFound | StatusWrite::Deferred => {}
        }
        false
    }

    /// An event when the component became ready, and when somebody may have to act. `config` is as it was before this
    /// report.
    fn tell_transition(
        &mut self,
        config: &ObservedConfig,
        report: Option<&Report>,
        outcome: Option<&Outcome>,
        runtime: &Runtime,
    ) {
        let Some(report) = report else { return };
        let uid = config.metadata.uid.clone().unwrap_or_default();
        if self.transitions.as_ref().is_none_or(|(known, _)| *known != uid) {
            let told = config.status.condition(self.component().condition_type);
            let transitions = told.map(|told| Transitions::resume(&told.reason, &told.message)).unwrap_or_default();
            self.transitions = Some((uid, transitions));
        }
        let needs_attention = matches!(outcome, Some(Outcome::Observed(seen)) if seen.needs_attention);
        let seen = Seen { reason: report.reason, message: &report.condition.message, needs_attention };
        let tell = self.transitions.as_mut().and_then(|(_, transitions)| transitions.observe(seen, Instant::now()));
        if let Some(tell) = tell {
            runtime.events.publish(EventRequest {
                regarding: config.object_ref(&()),
                warning: tell.warning,
                reason: tell.reason.as_str(),
                action: "Observe",
                note: format!("{}: {}", self.component().operand, report.condition.message),
            });
        }
    }
}

/// The conditions of these types, in the order in which a report has them. A status keeps them in the order in which they came.
fn further<'a>(status: &'a AcceleratorConfigStatus, types: &[&str]) -> Vec<&'a Condition> {
    types.iter().filter_map(|kind| status.condition(kind)).collect()
}

/// The most urgent of what a report says anew.
fn urgency(config: &ObservedConfig, report: &Report) -> Urgency {
    let told = |one: &Condition| Urgency::of(config.status.condition(&one.type_), one);
    match told(&report.condition) {
        Urgency::Progress if report.further.iter().any(|one| told(one) != Urgency::Progress) => Urgency::Transition,
        urgency => urgency,
    }
}

/// The observed generation that this controller vouches for. That is node-labeler's to say; where there is none, the
/// controllers say it together: only when every component that reports is as this generation asks for, because tools that
/// follow kstatus take an observed generation without a condition Ready for success.
fn observed_generation(config: &ObservedConfig, own: &Condition) -> Option<i64> {
    if config.status.condition(condition_types::ACCEPTED).is_some() {
        return None;
    }
    let generation = config.metadata.generation;
    let settled = |one: &Condition| {
        one.observed_generation == generation && (one.status == "True" || one.reason == Reason::Disabled.as_str())
    };
    let others = config.status.conditions.iter().filter(|one| one.type_ != own.type_);
    generation.filter(|_| settled(own) && others.clone().all(settled))
}

/// Whether the status says of the observed generation what this controller has to say: this one, or nothing.
fn has_observed(config: &ObservedConfig, observed: Option<i64>, manager: &str) -> bool {
    if observed.is_some() {
        return config.status.observed_generation == observed;
    }
    let entries = config.metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| entry.manager.as_deref() == Some(manager));
    !ours.any(|entry| entry.fields_v1.as_ref().is_some_and(|f| f.0["f:status"].get("f:observedGeneration").is_some()))
}

/// The component that a controller is for.
impl<E: Extension> Controller<E> {
    pub(super) fn component(&self) -> &'static Component {
        self.template.component()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_that_came_in_another_order_are_none_to_write_again() {
        let condition = |kind: &str| {
            serde_json::from_value::<Condition>(json!({
            "type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"
        })).expect("a condition")
        };
        let mut status = AcceleratorConfigStatus::default();
        status.conditions.extend(["Progressing", "Ready", "Blocked"].map(condition));
        let found: Vec<_> =
            further(&status, &["Blocked", "Progressing"]).iter().map(|one| one.type_.as_str()).collect();
        assert_eq!(found, ["Blocked", "Progressing"]);
    }
}
