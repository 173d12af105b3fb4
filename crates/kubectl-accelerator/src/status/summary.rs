//! The whole cluster in a few rows.

use std::collections::BTreeMap;

use accelerator_api::condition_types;
use accelerator_api::contract::{COMPONENTS, NODE_LABELER};
use node_labeler::rules::NodeState;
use serde::Serialize;

use super::group::{Group, Row, row};
use crate::args::Mode;
use crate::explain::{Cluster, NodeContext, Subject, Weight, explain_in, program};
use crate::facts::Facts;

/// Which nodes are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only nodes in this mode.
    pub mode: Option<Mode>,
    /// Only this component, on nodes that are to have it.
    pub component: Option<&'a str>,
    /// Only nodes that are not as they should be.
    pub not_ready: bool,
}

/// A cluster in a few rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The AcceleratorConfig that counts, and what it says of itself; what is missing if none counts.
    pub config: String,
    /// Whether everything that is shown is as it should be.
    pub ready: bool,
    /// Nodes that are shown.
    pub nodes: usize,
    /// Of these, nodes that are not as they should be.
    pub not_ready: usize,
    /// Nodes that have nothing to do with NPUs, which are not shown.
    pub unrelated: usize,
    /// What is wrong beside nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Rows, the worst first.
    pub groups: Vec<Group>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Sums up.
#[must_use]
pub fn summarise(facts: &Facts, filter: Filter<'_>) -> Summary {
    let cluster = Cluster::new(facts);
    let mut groups: BTreeMap<(std::cmp::Reverse<u8>, Row), Group> = BTreeMap::new();
    let (mut unrelated, mut nodes, mut not_ready) = (0, 0, 0);
    for node in &facts.nodes {
        let context = NodeContext::new(&cluster, node);
        if context.decision.state == NodeState::Unrelated && !context.carries_deploy_label() {
            unrelated += 1;
            continue;
        }
        if !is_shown(&context, filter) {
            continue;
        }
        let (mut row, weight, explanation) = row(&context);
        row.components.retain(|cell| filter.component.is_none_or(|name| name == cell.component));
        let weight = weight.filter(|weight| *weight > Weight::Note);
        nodes += 1;
        not_ready += usize::from(weight.is_some());
        if filter.not_ready && weight.is_none() {
            continue;
        }
        let name = node.metadata.name.clone();
        let rank = weight.map_or(0, |weight| weight as u8);
        let group = groups.entry((std::cmp::Reverse(rank), row.clone())).or_insert_with(|| Group {
            row,
            ready: weight.is_none(),
            needs_attention: weight == Some(Weight::Blocks),
            nodes: vec![],
            cause: explanation.and_then(|one| one.cause).map(|cause| cause.what),
        });
        group.nodes.push(name);
    }
    let (config, is_ready) = config(&cluster);
    let problems = problems(&cluster);
    let unknown = facts.unread.iter().map(|one| format!("{:?} could not be read: {}", one.kind, one.why)).collect();
    let ready = is_ready && not_ready == 0 && problems.is_empty();
    Summary { config, ready, nodes, not_ready, unrelated, problems, groups: groups.into_values().collect(), unknown }
}

fn is_shown(context: &NodeContext<'_>, filter: Filter<'_>) -> bool {
    let mode = match context.decision.state {
        NodeState::InMode(accelerator_api::contract::Workload::Container) => Mode::Container,
        NodeState::InMode(accelerator_api::contract::Workload::VmPassthrough) => Mode::VmPassthrough,
        _ => Mode::None,
    };
    let wants = |name: &str| context.components().any(|component| component.name == name);
    filter.mode.is_none_or(|wanted| wanted == mode) && filter.component.is_none_or(wants)
}

/// The line about the AcceleratorConfig, and whether it is ready.
fn config(cluster: &Cluster<'_>) -> (String, bool) {
    let Some(active) = &cluster.active else {
        let cause = explain_in(cluster, &Subject::Config(None)).cause;
        return (cause.map_or_else(|| "AcceleratorConfigs are not known".into(), |cause| cause.what), false);
    };
    let name = active.metadata.name.clone().unwrap_or_default();
    let Some(ready) = active.status.condition(condition_types::READY) else {
        return (format!("AcceleratorConfig {name}: not reported"), false);
    };
    let is_current = ready.observed_generation == active.metadata.generation;
    let is_ready = ready.status == "True" && is_current;
    let words = if is_ready { "ready" } else { "not ready" };
    let stale = if is_current { "" } else { ", of an older generation of the spec" };
    (format!("AcceleratorConfig {name}: {words} ({}{stale})", ready.reason), is_ready)
}

/// Programs that are needed and do not work, and configs that do not count.
fn problems(cluster: &Cluster<'_>) -> Vec<String> {
    let enabled = |rebellions| COMPONENTS.into_iter().filter(move |component| component.enabled(rebellions));
    let controllers = cluster.rebellions().into_iter().flat_map(enabled).map(|component| component.controller);
    let programs = cluster.active.iter().map(|_| NODE_LABELER).chain(controllers);
    let mut problems: Vec<_> =
        programs.filter_map(|name| program(cluster.facts, name)).map(|finding| finding.what).collect();
    let counts = cluster.facts.active().map(|config| config.metadata.name.as_str());
    let others =
        cluster.facts.configs.iter().map(|config| config.metadata.name.as_str()).filter(|name| Some(*name) != counts);
    problems.extend(others.map(|name| format!("AcceleratorConfig {name} does not count: an older one does")));
    problems.extend(
        cluster.active.iter().filter_map(|active| crate::explain::rollout(&active.status)).map(|finding| finding.what),
    );
    problems
}
