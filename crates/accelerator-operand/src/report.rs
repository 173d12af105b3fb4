//! What a component's controller says about it in the status of an AcceleratorConfig.

use std::sync::Arc;

use accelerator_api::contract::Component;
use accelerator_api::{AcceleratorConfigStatus, ComponentStatus, Reason};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::{Observation, condition};

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The DaemonSet is as it should be and stands thus.
    Observed(Observation),
    /// None is wanted, with the reason.
    Disabled(String),
    /// It could not be written, or must not be; with the reason.
    Refused(Reason, String),
}

/// An entry, a condition and further conditions, each if there is one.
pub type Parts<'a> = (Option<&'a ComponentStatus>, Option<&'a Condition>, Vec<&'a Condition>);

/// One component's entry and conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where it stands.
    pub reason: Reason,
    /// The entry in `status.components`.
    pub entry: ComponentStatus,
    /// The condition in `status.conditions`.
    pub condition: Condition,
    /// Conditions of the component beside that one, sorted by type; each is there only while there is something to say.
    pub further: Vec<Condition>,
}

impl Report {
    /// All of it, to compare with what a status holds.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        (Some(&self.entry), Some(&self.condition), self.further.iter().collect())
    }
}

/// What a report depends on beside what became of the plan.
#[derive(Clone, Copy, Debug)]
pub struct ReportContext<'a> {
    /// What is reported on.
    pub component: &'a Component,
    /// The status as it is.
    pub previous: &'a AcceleratorConfigStatus,
    /// Generation of the AcceleratorConfig.
    pub generation: Option<i64>,
    /// Version of the controller that reports.
    pub controller_version: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// The report to write. Equal to the previous one when nothing is new, its times included. The counts are those of all of
/// the component's DaemonSets together.
#[must_use]
pub fn report(context: ReportContext<'_>, outcome: &Outcome, daemon_sets: &[Arc<DaemonSet>]) -> Report {
    let ReportContext { component, previous, generation, controller_version, now } = context;
    let (reason, message) = match outcome {
        Outcome::Observed(observation) => (observation.reason, observation.message.clone()),
        Outcome::Disabled(why) => (Reason::Disabled, format!("not deployed: {why}")),
        Outcome::Refused(reason, why) => (*reason, why.clone()),
    };
    let mut entry = ComponentStatus {
        name: component.operand.into(),
        controller_version: controller_version.into(),
        message: if reason.status() == "True" { String::new() } else { message.clone() },
        ..ComponentStatus::default()
    };
    if !matches!(outcome, Outcome::Disabled(_)) {
        entry.image = daemon_sets.first().and_then(|one| main_image(one)).unwrap_or_default();
        for status in daemon_sets.iter().filter_map(|daemon_set| daemon_set.status.as_ref()) {
            entry.desired += i64::from(status.desired_number_scheduled);
            entry.updated += i64::from(status.updated_number_scheduled.unwrap_or(0));
            entry.ready += i64::from(status.number_ready);
            entry.available += i64::from(status.number_available.unwrap_or(0));
        }
    }
    let previous = previous.condition(component.condition_type);
    let condition = condition(previous, component.condition_type, reason, &message, generation, now);
    Report { reason, entry, condition, further: vec![] }
}

/// Where a component with several DaemonSets stands: the worst of them, and how many others are not ready. `None` when
/// one of them has nothing new to say and the others are ready.
#[must_use]
pub fn combine(outcomes: Vec<(String, Option<Outcome>)>, otherwise: Observation) -> Option<Outcome> {
    if outcomes.is_empty() {
        return Some(Outcome::Observed(otherwise));
    }
    if outcomes.len() == 1 {
        return outcomes.into_iter().next().and_then(|(_, outcome)| outcome);
    }
    let count = outcomes.len();
    let is_ready = |outcome: &Outcome| matches!(outcome, Outcome::Observed(seen) if seen.reason.status() == "True");
    let silent = outcomes.iter().any(|(_, outcome)| outcome.is_none());
    let mut told: Vec<_> = outcomes.into_iter().filter_map(|(name, outcome)| Some((name, outcome?))).collect();
    let unready = told.iter().filter(|(_, outcome)| !is_ready(outcome)).count();
    told.sort_by_key(|(_, outcome)| rank(outcome));
    let (name, worst) = told.into_iter().next()?;
    if unready == 0 {
        let message = format!("{count} pools are ready");
        let ready = Observation { reason: Reason::Ready, message, needs_attention: false };
        return (!silent).then_some(Outcome::Observed(ready));
    }
    let others = if unready > 1 { format!("; {unready} of {count} pools are not ready") } else { String::new() };
    let words = |message: String| if name.is_empty() { message } else { format!("{name}: {message}{others}") };
    Some(match worst {
        Outcome::Observed(seen) => Outcome::Observed(Observation { message: words(seen.message), ..seen }),
        Outcome::Refused(reason, why) => Outcome::Refused(reason, words(why)),
        disabled @ Outcome::Disabled(_) => disabled,
    })
}

/// Worst first.
fn rank(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Refused(..) => 0,
        Outcome::Observed(seen) if seen.needs_attention => 1,
        Outcome::Observed(seen) if seen.reason == Reason::PodsNotReady => 2,
        Outcome::Observed(seen) if seen.reason.status() == "False" => 3,
        Outcome::Observed(seen) if seen.reason.status() == "Unknown" => 4,
        _ => 5,
    }
}

fn main_image(daemon_set: &DaemonSet) -> Option<String> {
    daemon_set.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
}
