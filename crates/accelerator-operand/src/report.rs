//! What a component's controller says about it in the status of an AcceleratorConfig.

use accelerator_api::{AcceleratorConfigStatus, ComponentStatus, Reason};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::{Observation, Template, condition};

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

/// An entry and a condition, each if there is one.
pub type Parts<'a> = (Option<&'a ComponentStatus>, Option<&'a Condition>);

/// One component's entry and condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Where it stands.
    pub reason: Reason,
    /// The entry in `status.components`.
    pub entry: ComponentStatus,
    /// The condition in `status.conditions`.
    pub condition: Condition,
}

impl Report {
    /// Both, to compare with what a status holds.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        (Some(&self.entry), Some(&self.condition))
    }
}

/// The report to write. Equal to `previous` when nothing is new, its times included.
#[must_use]
pub fn report(
    template: &Template,
    outcome: &Outcome,
    daemon_set: Option<&DaemonSet>,
    previous: &AcceleratorConfigStatus,
    generation: Option<i64>,
    controller_version: &str,
    now: Timestamp,
) -> Report {
    let component = template.component();
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
    if !matches!(outcome, Outcome::Disabled(_))
        && let Some(daemon_set) = daemon_set
    {
        entry.image = main_image(daemon_set).unwrap_or_default();
        if let Some(status) = &daemon_set.status {
            entry.desired = status.desired_number_scheduled.into();
            entry.updated = status.updated_number_scheduled.unwrap_or(0).into();
            entry.ready = status.number_ready.into();
            entry.available = status.number_available.unwrap_or(0).into();
        }
    }
    let previous = previous.condition(component.condition_type);
    let condition = condition(previous, component.condition_type, reason, &message, generation, now);
    Report { reason, entry, condition }
}

fn main_image(daemon_set: &DaemonSet) -> Option<String> {
    daemon_set.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.image.clone()
}
