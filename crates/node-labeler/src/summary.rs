//! The condition Ready: a true summary of what every component reports, never true too early.

use accelerator_api::contract::{COMPONENTS, Component};
use accelerator_api::{AcceleratorConfigStatus, Reason, Rebellions, count};

use crate::view::PerComponent;

/// What the labeler knows of nodes that a component's controller cannot know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    /// Nodes that carry, or are about to carry, each component's deploy label.
    pub assigned: PerComponent<i64>,
    /// Nodes whose labels still have to be changed.
    pub pending: i64,
    /// Whether labels changed so short a time ago that a DaemonSet may not have noticed.
    pub fresh: bool,
    /// Who undoes what is written to a node, if somebody does.
    pub contested: Option<String>,
    /// Why labels could not be written, if so.
    pub trouble: Option<String>,
    /// A node whose workload label is no mode, if there is one, and how many there are.
    pub invalid: Option<String>,
}

/// The reason and message of the condition Ready.
///
/// A DaemonSet that was ready for the nodes that it had says nothing about nodes that were labelled a moment ago. So a
/// component counts as ready only when its DaemonSet wants exactly as many nodes as are assigned, and only some seconds
/// after the last change.
#[must_use]
pub fn ready(
    rebellions: Option<&Rebellions>,
    status: &AcceleratorConfigStatus,
    nodes: &Assignments,
    generation: Option<i64>,
) -> (Reason, String) {
    let enabled: Vec<_> = COMPONENTS
        .iter()
        .zip(nodes.assigned)
        .filter(|(component, _)| rebellions.is_some_and(|section| component.enabled(section)))
        .collect();
    let complaints: Vec<_> = enabled
        .iter()
        .filter_map(|(component, assigned)| complaint(component, status, *assigned, generation))
        .collect();
    let (reason, mut message) = if enabled.is_empty() {
        (Reason::NoComponentsEnabled, "no component is enabled".to_owned())
    } else if let Some(why) = &nodes.contested {
        (Reason::Contested, why.clone())
    } else if nodes.pending > 0 {
        let trouble = nodes.trouble.as_ref().map(|why| format!("; the last failure: {why}")).unwrap_or_default();
        (Reason::NodesChanging, format!("labels of {} still to be written{trouble}", count(nodes.pending, "node")))
    } else if let Some((reason, _)) = complaints.first() {
        (*reason, complaints.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>().join("; "))
    } else if nodes.fresh {
        (Reason::NodesChanging, "labels of nodes changed a moment ago".to_owned())
    } else {
        (
            Reason::AllComponentsReady,
            format!("{} ready", count(enabled.len().try_into().unwrap_or(i64::MAX), "component")),
        )
    };
    if let Some(invalid) = &nodes.invalid {
        message = format!("{message}; {invalid}");
    }
    (reason, message)
}

/// Why a component does not count as ready.
fn complaint(
    component: &Component,
    status: &AcceleratorConfigStatus,
    assigned: i64,
    generation: Option<i64>,
) -> Option<(Reason, String)> {
    let name = component.name;
    let (Some(entry), Some(condition)) =
        (status.component(component.operand), status.condition(component.condition_type))
    else {
        let why = format!("{name} does not report; is {} deployed?", component.controller);
        return Some((Reason::ComponentNotReporting, why));
    };
    if condition.observed_generation != generation {
        let why = format!("{name}: {} has not seen the newest spec yet", component.controller);
        return Some((Reason::ComponentNotReporting, why));
    }
    let why = if condition.status != "True" {
        format!("{name}: {}: {}", condition.reason, condition.message)
    } else if entry.desired != assigned {
        format!(
            "{name}: assigned to {}, but its DaemonSet counts {}; a taint that its pods do not tolerate keeps a node out",
            count(assigned, "node"),
            entry.desired
        )
    } else {
        return None;
    };
    Some((Reason::ComponentsNotReady, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use accelerator_api::{ComponentSpec, ComponentStatus};
    use accelerator_operand::condition;
    use k8s_openapi::jiff::Timestamp;

    fn section() -> Rebellions {
        let enabled = ComponentSpec { enabled: true, ..ComponentSpec::default() };
        Rebellions { driver: Some(enabled.clone().into()), vfio_manager: Some(enabled), ..Rebellions::default() }
    }

    fn report(
        status: &mut AcceleratorConfigStatus,
        component: &Component,
        reason: Reason,
        desired: i64,
        generation: i64,
    ) {
        let kind = component.condition_type;
        let condition = condition(None, kind, reason, "words", Some(generation), Timestamp::UNIX_EPOCH);
        status.conditions.retain(|condition| condition.type_ != kind);
        status.conditions.push(condition);
        status.components.retain(|entry| entry.name != component.operand);
        status.components.push(ComponentStatus {
            name: component.operand.into(),
            desired,
            ..ComponentStatus::default()
        });
    }

    /// Two nodes with the driver, none with the VFIO manager, everything reported and ready.
    fn all_well() -> (AcceleratorConfigStatus, Assignments) {
        let mut status = AcceleratorConfigStatus::default();
        report(&mut status, COMPONENTS[0], Reason::Ready, 2, 4);
        report(&mut status, COMPONENTS[3], Reason::NoNodesSelected, 0, 4);
        (status, Assignments { assigned: [2, 2, 2, 0, 2], ..Assignments::default() })
    }

    fn verdict(status: &AcceleratorConfigStatus, nodes: &Assignments) -> (Reason, String) {
        ready(Some(&section()), status, nodes, Some(4))
    }

    #[test]
    fn ready_when_every_enabled_component_is_and_no_node_selects_the_rest() {
        let (status, nodes) = all_well();
        assert_eq!(verdict(&status, &nodes).0, Reason::AllComponentsReady);
    }

    #[test]
    fn nothing_enabled_is_ready() {
        let (status, nodes) = all_well();
        assert_eq!(ready(None, &status, &nodes, Some(4)).0, Reason::NoComponentsEnabled);
    }

    #[test]
    fn never_true_too_early() {
        let well = all_well();
        let (mut status, mut nodes) = well.clone();
        nodes.assigned[0] = 3;
        let (reason, message) = verdict(&status, &nodes);
        assert_eq!(reason, Reason::ComponentsNotReady, "a node was labelled that its DaemonSet has not counted");
        assert!(message.contains("assigned to 3 nodes, but its DaemonSet counts 2"), "{message}");

        nodes = Assignments { fresh: true, ..well.1.clone() };
        assert_eq!(verdict(&status, &nodes).0, Reason::NodesChanging);

        nodes = Assignments { pending: 1, trouble: Some("node a: no".into()), ..well.1.clone() };
        let (reason, message) = verdict(&status, &nodes);
        assert_eq!(reason, Reason::NodesChanging);
        assert!(message.ends_with("the last failure: node a: no"), "{message}");

        report(&mut status, COMPONENTS[0], Reason::Ready, 2, 3);
        assert_eq!(verdict(&status, &well.1).0, Reason::ComponentNotReporting, "its report is about an older spec");
    }

    #[test]
    fn the_message_names_every_component_that_is_not_ready() {
        let (mut status, nodes) = all_well();
        report(&mut status, COMPONENTS[0], Reason::PodsNotReady, 2, 4);
        status.components.retain(|entry| entry.name != COMPONENTS[3].operand);
        let (_, message) = verdict(&status, &nodes);
        assert_eq!(
            message,
            "driver: PodsNotReady: words; vfio-manager does not report; is rebellions-vfio-manager-controller deployed?"
        );
    }
}
