//! The condition Ready: a true summary of what every component reports, never true too early.

use accelerator_api::contract::{COMPONENTS, Component};
use accelerator_api::{AcceleratorConfigStatus, Reason, Rebellions, count};

use crate::exclusion::{Excluded, Exclusion};
use crate::view::PerComponent;

/// How many nodes that are not counted a message names.
const NAMED: usize = 3;

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
    /// On which nodes components step aside while the driver is replaced, if there are any.
    pub stepped_aside: Option<String>,
    /// Nodes that are known to keep pods off, and why.
    pub excluded: Vec<Excluded>,
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
        .enumerate()
        .filter(|(_, component)| rebellions.is_some_and(|section| component.enabled(section)))
        .collect();
    let complaints: Vec<_> = enabled
        .iter()
        .filter_map(|(index, component)| complaint(component, *index, status, nodes, generation))
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
    } else if let Some(why) = &nodes.stepped_aside {
        (Reason::NodesChanging, why.clone())
    } else if nodes.fresh {
        (Reason::NodesChanging, "labels of nodes changed a moment ago".to_owned())
    } else {
        (
            Reason::AllComponentsReady,
            format!("{} ready", count(enabled.len().try_into().unwrap_or(i64::MAX), "component")),
        )
    };
    let stepped_aside = nodes.stepped_aside.clone().filter(|why| *why != message);
    for more in stepped_aside.iter().chain(&nodes.invalid) {
        message = format!("{message}; {more}");
    }
    (reason, message)
}

/// Why a component does not count as ready.
fn complaint(
    component: &Component,
    index: usize,
    status: &AcceleratorConfigStatus,
    nodes: &Assignments,
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
        let told = format!("{name}: {}: {}", condition.reason, condition.message);
        // A taint may keep the next pod off while the one that is there runs on.
        let is_known =
            nodes.assigned[index] > entry.desired && nodes.excluded.iter().any(|node| node.why[index].is_some());
        if is_known { format!("{told}; {}", uncounted_nodes(index, entry.desired, nodes).1) } else { told }
    } else if condition.reason == Reason::Preinstalled.as_str() {
        // Its nodes have it without a DaemonSet that could count them.
        return None;
    } else if entry.desired != nodes.assigned[index] {
        let (reason, why) = uncounted_nodes(index, entry.desired, nodes);
        return Some((reason, format!("{name}: {why}")));
    } else {
        return None;
    };
    Some((Reason::ComponentsNotReady, why))
}

/// Why a component's DaemonSet counts fewer nodes than are assigned, as far as that is known.
fn uncounted_nodes(index: usize, desired: i64, nodes: &Assignments) -> (Reason, String) {
    let assigned = nodes.assigned[index];
    let mut why = format!("assigned to {}, but its DaemonSet counts {desired}", count(assigned, "node"));
    let known = nodes.excluded.iter().filter_map(|node| Some((node.node.as_str(), node.why[index].as_ref()?)));
    let known: Vec<_> = known.collect();
    if assigned < desired || known.is_empty() {
        return (Reason::ComponentsNotReady, why);
    }
    let names: Vec<_> = worth_naming(&known).into_iter().map(|(node, why)| why.describe(node)).collect();
    why = format!("{why}: {}", names.join(", "));
    let more = assigned - desired - as_count(names.len());
    if more > 0 {
        why = format!("{why} and {}", count(more, "more node"));
    }
    let all_lost = known.iter().all(|(_, why)| **why == Exclusion::NotReady);
    let explains_all = as_count(known.len()) >= assigned - desired;
    (if all_lost && explains_all { Reason::NodesNotReady } else { Reason::ComponentsNotReady }, why)
}

/// How many assigned nodes each enabled component's DaemonSet does not count.
#[must_use]
pub fn uncounted(
    rebellions: &Rebellions,
    status: &AcceleratorConfigStatus,
    assigned: PerComponent<i64>,
) -> PerComponent<i64> {
    std::array::from_fn(|index| {
        let component = COMPONENTS[index];
        let entry = status.component(component.operand).filter(|_| component.enabled(rebellions));
        entry.map_or(0, |entry| assigned[index] - entry.desired)
    })
}

/// How many nodes of each component its settings leave out. They are known without a look.
#[must_use]
pub fn left_out(known: &[Excluded]) -> PerComponent<i64> {
    known_to(known, |why| matches!(why, Exclusion::Setting(_)))
}

/// Whether so many nodes of each component are known to keep pods off for another reason than its settings.
#[must_use]
pub fn explains(known: &[Excluded], uncounted: PerComponent<i64>) -> bool {
    let looked_at = known_to(known, |why| !matches!(why, Exclusion::Setting(_)));
    looked_at.iter().zip(uncounted).all(|(known, missing)| *known >= missing)
}

fn known_to(known: &[Excluded], is: impl Fn(&Exclusion) -> bool) -> PerComponent<i64> {
    std::array::from_fn(|index| as_count(known.iter().filter(|node| node.why[index].as_ref().is_some_and(&is)).count()))
}

/// The first few nodes and why, where another reason goes before more of the same.
fn worth_naming<'a>(known: &[(&'a str, &'a Exclusion)]) -> Vec<(&'a str, &'a Exclusion)> {
    let mut reasons = vec![];
    let (mut first, rest): (Vec<_>, Vec<_>) = known.iter().partition(|(_, why)| {
        let is_new = !reasons.contains(why);
        reasons.push(*why);
        is_new
    });
    first.extend(rest);
    first.truncate(NAMED);
    first
}

fn as_count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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

    /// A node in mode container that keeps all pods off.
    fn excluded(node: &str, why: &Exclusion) -> Excluded {
        let assigned = [true, true, true, false, true];
        Excluded { node: node.into(), why: assigned.map(|is_assigned| is_assigned.then(|| why.clone())) }
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
    fn what_hosts_have_of_their_own_is_counted_by_no_daemon_set() {
        let (mut status, nodes) = all_well();
        report(&mut status, COMPONENTS[0], Reason::Preinstalled, 0, 4);
        assert_eq!(verdict(&status, &nodes).0, Reason::AllComponentsReady);
        report(&mut status, COMPONENTS[0], Reason::Preinstalled, 0, 3);
        assert_eq!(verdict(&status, &nodes).0, Reason::ComponentNotReporting);
    }

    #[test]
    fn never_true_too_early() {
        let well = all_well();
        let (mut status, mut nodes) = well.clone();
        nodes.assigned[0] = 3;
        let (reason, message) = verdict(&status, &nodes);
        assert_eq!(reason, Reason::ComponentsNotReady, "a node was labelled that its DaemonSet has not counted");
        assert_eq!(
            message, "driver: assigned to 3 nodes, but its DaemonSet counts 2",
            "nothing is claimed to be known"
        );

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
    fn dependents_that_step_aside_are_told_with_whatever_else_there_is() {
        let (mut status, mut nodes) = all_well();
        let why = "while their driver is upgraded, device-plugin step aside on node a".to_owned();
        nodes.stepped_aside = Some(why.clone());
        assert_eq!(verdict(&status, &nodes), (Reason::NodesChanging, why.clone()));
        nodes.fresh = true;
        assert_eq!(verdict(&status, &nodes), (Reason::NodesChanging, why.clone()), "one message while it lasts");
        report(&mut status, COMPONENTS[0], Reason::RolloutInProgress, 2, 4);
        let (reason, message) = verdict(&status, &nodes);
        assert_eq!(reason, Reason::ComponentsNotReady);
        assert_eq!(message, format!("driver: RolloutInProgress: words; {why}"));
    }

    #[test]
    fn nodes_that_are_not_counted_are_named_with_what_keeps_pods_off() {
        let (status, mut nodes) = all_well();
        nodes.assigned[0] = 4;
        assert_eq!(uncounted(&section(), &status, nodes.assigned), [2, 0, 0, 0, 0], "others are not enabled");
        nodes.excluded = vec![excluded("a", &Exclusion::NotReady)];
        let lost = "driver: assigned to 4 nodes, but its DaemonSet counts 2: a (the node is not ready)";
        assert_eq!(verdict(&status, &nodes), (Reason::ComponentsNotReady, format!("{lost} and 1 more node")));
        nodes.excluded.push(excluded("b", &Exclusion::NotReady));
        assert_eq!(verdict(&status, &nodes), (Reason::NodesNotReady, format!("{lost}, b (the node is not ready)")));
        nodes.excluded[1] = excluded("b", &Exclusion::Taint("x=y:NoExecute".into()));
        let taint = format!("{lost}, b (its pods do not tolerate the taint x=y:NoExecute)");
        assert_eq!(verdict(&status, &nodes), (Reason::ComponentsNotReady, taint));
        let mut failing = status.clone();
        report(&mut failing, COMPONENTS[0], Reason::RolloutInProgress, 2, 4);
        let (_, message) = verdict(&failing, &nodes);
        assert!(message.starts_with("driver: RolloutInProgress: words; assigned to 4 nodes"), "{message}");
        nodes.excluded[1] = excluded("b", &Exclusion::Setting("driver.nodeSelector: zone=a".into()));
        let setting = format!("{lost}, b (its labels do not match driver.nodeSelector: zone=a)");
        assert_eq!(verdict(&status, &nodes), (Reason::ComponentsNotReady, setting));
        assert_eq!(left_out(&nodes.excluded), [1, 1, 1, 0, 1]);
        assert!(explains(&nodes.excluded, [1, 0, 0, 0, 0]) && !explains(&nodes.excluded, [2, 0, 0, 0, 0]));
        nodes.excluded.iter_mut().for_each(|node| node.why[0] = None);
        assert!(!explains(&nodes.excluded, [1, 0, 0, 0, 0]) && explains(&nodes.excluded, [0, 1, 0, 0, -1]));
        let (_, message) = verdict(&status, &nodes);
        assert!(message.ends_with("counts 2"), "nodes of other components: {message}");
    }

    #[test]
    fn of_many_nodes_that_are_not_counted_each_reason_is_named_and_the_rest_counted() {
        let (status, mut nodes) = all_well();
        nodes.assigned[0] = 32;
        let of = |number: usize| {
            let why = if number == 29 { Exclusion::Taint("x=y:NoExecute".into()) } else { Exclusion::NotReady };
            excluded(&format!("n{number:02}"), &why)
        };
        nodes.excluded = (0..30).map(of).collect();
        let told = "driver: assigned to 32 nodes, but its DaemonSet counts 2: n00 (the node is not ready), n29 (its pods do \
                    not tolerate the taint x=y:NoExecute), n01 (the node is not ready) and 27 more nodes";
        assert_eq!(verdict(&status, &nodes), (Reason::ComponentsNotReady, told.into()));
        nodes.excluded[29] = excluded("n29", &Exclusion::NotReady);
        assert_eq!(verdict(&status, &nodes).0, Reason::NodesNotReady, "all of them are known");
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
