//! Why a component is as it is, over all of its nodes.

use accelerator_api::contract::{Component, DEPLOY, DRIVER};
use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Reason, count, first_of};

use super::component_on_node::{component_state, condition_problem, not_deployed};
use super::finding::{Explanation, Finding, Line, Weight};
use super::{Cluster, NodeContext, config, driver, installation, labels, not_created, place};
use crate::facts::{DaemonSetFact, Kind, NodeFact};

/// How many nodes with the same cause are named.
const NAMED: usize = 3;

/// Where a component stands by its controller's word, in a row.
pub(super) fn line(status: &AcceleratorConfigStatus, component: &Component) -> String {
    let Some(condition) = status.condition(component.condition_type) else { return "not reported".into() };
    let entry = status.component(component.operand);
    let numbers =
        entry.map(|entry| format!(", {} of {} ready", entry.ready, count(entry.desired, "node"))).unwrap_or_default();
    format!("{}{numbers}", condition.reason)
}

/// Explains a component.
pub(super) fn explain(cluster: &Cluster<'_>, component: &'static Component) -> Explanation {
    let facts = cluster.facts;
    let subject = format!("component/{}", component.name);
    let precondition = config::precondition(cluster);
    let (Some(active), Some(rebellions)) = (&cluster.active, cluster.rebellions()) else {
        return Explanation::of(subject, "not known", vec![], precondition);
    };
    if let Some(why) = not_deployed(component, rebellions) {
        let labelled =
            facts.nodes.iter().filter(|node| node.metadata.label(component.deploy_label) == Some(DEPLOY)).count();
        let labelled = count(i64::try_from(labelled).unwrap_or(i64::MAX), "node");
        let finding = Finding::note(format!("{} is not deployed: {why}; {labelled} would run it", component.name))
            .todo(format!(
                "to have it: set {}.enabled: true in AcceleratorConfig {}",
                component.path,
                active.metadata.name.clone().unwrap_or_default()
            ));
        let findings = precondition.into_iter().chain([finding]).collect();
        return Explanation::of(subject, "not deployed", vec![], findings);
    }
    let mut found = vec![Line::new("reported", line(&active.status, component))];
    found.extend(facts.daemon_sets_of(component.operand).map(daemon_set_line));
    let mut findings = precondition;
    findings.extend(self::findings(cluster, active, component));
    if component.name == DRIVER.name {
        findings.extend(driver::rollout(&active.status));
    }
    let modes: Vec<_> = component.workloads.iter().map(|mode| mode.as_str()).collect();
    Explanation::of(subject, format!("ready on every node in mode {}", modes.join(" or ")), found, findings)
}

fn daemon_set_line(one: &DaemonSetFact) -> Line {
    let status = one.status;
    let text = format!(
        "{}, {} updated, {} ready, {} available; {}",
        count(status.desired_number_scheduled, "node"),
        status.updated_number_scheduled,
        status.number_ready,
        status.number_available,
        one.image()
    );
    Line::new(format!("DaemonSet {}", one.metadata.name), text)
}

/// What keeps a component that is asked for from being ready, from its controller to each of its nodes.
pub(super) fn findings(cluster: &Cluster<'_>, active: &ObservedConfig, component: &'static Component) -> Vec<Finding> {
    let facts = cluster.facts;
    let mut findings = vec![];
    let reported = active.status.component(component.operand).map_or("", |entry| entry.controller_version.as_str());
    findings.extend(installation::program(facts, component.controller));
    findings.extend(installation::outdated(facts, component.controller, reported));
    let condition = active.status.condition(component.condition_type);
    let lagging = condition.filter(|condition| condition.observed_generation != active.metadata.generation);
    findings.extend(lagging.map(|condition| {
        Finding::passes(format!("{} has not seen the newest spec yet", component.controller))
            .since(Some(&condition.last_transition_time))
    }));
    let nodes = nodes(cluster, component);
    let is_explained = nodes.iter().any(|finding| finding.weight == Weight::Blocks);
    findings.extend(nodes);
    findings.extend(
        facts
            .daemon_sets_of(component.operand)
            .filter_map(|one| not_created::refusal(facts, one))
            .filter(|_| !is_explained),
    );
    // What the controller says is the last resort: where the cause was found itself, it is said already.
    if findings.is_empty() {
        findings.extend(reported_problem(active, component));
    }
    findings
}

/// What the controller reports, as it is.
fn reported_problem(active: &ObservedConfig, component: &Component) -> Option<Finding> {
    let condition = active.status.condition(component.condition_type).filter(|condition| condition.status != "True")?;
    let what = format!("{} is not ready ({}): {}", component.name, condition.reason, condition.message);
    let is_fault = Reason::ALL
        .iter()
        .any(|reason| reason.as_str() == condition.reason && (reason.is_stalled() || reason.is_warning()));
    let finding = if is_fault { Finding::blocks(what) } else { Finding::passes(what) };
    Some(finding.since(Some(&condition.last_transition_time)))
}

/// The causes on nodes, those of the most nodes first. A node is looked at only while its component may not be ready there.
fn nodes(cluster: &Cluster<'_>, component: &'static Component) -> Vec<Finding> {
    let facts = cluster.facts;
    if !facts.knows(Kind::Nodes) {
        return vec![];
    }
    let mut groups: Vec<(String, Finding, Vec<&str>)> = vec![];
    for node in &facts.nodes {
        let Some(finding) = on_node(cluster, component, node) else { continue };
        let name = node.metadata.name.as_str();
        let alike = alike(&finding.what, name);
        match groups.iter_mut().find(|(text, ..)| *text == alike) {
            Some((_, first, names)) => {
                first.since = [first.since, finding.since].into_iter().flatten().min();
                names.push(name);
            }
            None => groups.push((alike, finding, vec![name])),
        }
    }
    groups.sort_by_key(|(_, finding, names)| (std::cmp::Reverse(finding.weight), std::cmp::Reverse(names.len())));
    groups.into_iter().map(|(_, finding, names)| several(finding, &names)).collect()
}

/// A text without what differs from node to node: its name, and the random end of its pod's name.
fn alike(what: &str, node: &str) -> String {
    let words = what.split(' ').map(|word| {
        let bare = word.trim_end_matches([':', ',', ';']);
        if bare == node || bare.contains('/') && bare.contains("rebellions-") { "·" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn several(finding: Finding, names: &[&str]) -> Finding {
    if names.len() == 1 {
        return finding;
    }
    let first = first_of(NAMED, names.len(), names.iter());
    Finding { what: format!("on {} nodes ({first}): {}", names.len(), finding.what), ..finding }
}

/// The first thing that keeps the component from being ready on a node.
fn on_node(cluster: &Cluster<'_>, component: &'static Component, node: &NodeFact) -> Option<Finding> {
    let context = NodeContext::new(cluster, node);
    if !context.components().any(|one| one.name == component.name) {
        return None;
    }
    let state = component_state(&context, component);
    let worst = |findings: Vec<Finding>| {
        findings.into_iter().filter(|finding| finding.weight > Weight::Note).max_by_key(|finding| finding.weight)
    };
    if state.is_ready {
        return worst(state.findings);
    }
    if state.weight() == Some(Weight::Note) {
        return None;
    }
    let upgrade =
        driver::upgrade(&context).filter(|finding| component.name == DRIVER.name && finding.weight > Weight::Note);
    let chain = [place::kubelet(node, cluster.facts.at), upgrade, labels::pending(&context)];
    chain
        .into_iter()
        .flatten()
        .next()
        .or_else(|| worst(state.findings))
        .or_else(|| condition_problem(&context, component))
}
