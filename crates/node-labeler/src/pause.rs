//! The pause that the driver controller asks for while it replaces a node's driver: components that use the driver step
//! aside, and come back when the annotation goes or its time has come, whoever lives by then.

use accelerator_api::contract::{COMPONENTS, DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::rules::{Decision, NodeState};
use crate::view::{DeployLabel, NodeView};

/// The longest pause. Whoever asks for more has a clock or a mind of its own, and would keep NPUs from pods for as long.
pub const LIMIT: SignedDuration = SignedDuration::from_hours(2);

/// What is remembered of a node's annotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// A value that counts as nothing, also when its time comes nearer.
    refused: Option<Box<str>>,
}

impl Pause {
    /// Until when components step aside, if they do, by this value of the annotation.
    ///
    /// # Errors
    ///
    /// Why the value counts as nothing, once.
    pub fn look(&mut self, value: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, String> {
        if self.refused.as_deref() == value {
            return Ok(None);
        }
        self.refused = None;
        let Some(value) = value else { return Ok(None) };
        let why = match value.parse::<Timestamp>() {
            Ok(until) if until.duration_since(now) <= LIMIT => return Ok(Some(until).filter(|until| *until > now)),
            Ok(_) => "is more than 2 hours ahead",
            Err(_) => "is no time as RFC 3339 writes it",
        };
        self.refused = Some(value.into());
        Err(format!("annotation {DEPENDENTS_PAUSED_UNTIL_ANNOTATION}={value} {why}; it counts as nothing"))
    }
}

/// Takes labels of ours away, of components that use the driver, while they step aside; and gives them back afterwards
/// on a node that is otherwise kept as it is, such as one with a typo in its workload label. It is for nodes that have the
/// driver: on others there is nothing to wait for.
#[must_use]
pub fn step_aside(decision: Decision, node: &NodeView, is_paused: bool) -> Decision {
    if decision.state == NodeState::Skipped {
        return decision;
    }
    let mut components = COMPONENTS.iter().zip(decision.deploy);
    let has_driver = components.any(|(component, label)| component.name == DRIVER.name && label.is_set());
    let deploy = std::array::from_fn(|index| match decision.deploy[index] {
        label if !COMPONENTS[index].uses_driver => label,
        DeployLabel::Ours if is_paused && has_driver => DeployLabel::SteppedAside,
        DeployLabel::Absent | DeployLabel::Emptied if decision.is_hands_off && node.recorded[index] => {
            if is_paused && has_driver { DeployLabel::SteppedAside } else { DeployLabel::Ours }
        }
        label => label,
    });
    Decision { deploy, ..decision }
}

#[cfg(test)]
mod tests;
