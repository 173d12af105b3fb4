//! Rows: what a node looks like, and the nodes that look alike.

use accelerator_api::contract::{COMPONENTS, DEVICE_PLUGIN, DRIVER, DRIVER_VERSION_LABEL, Workload};
use node_labeler::rules::NodeState;
use serde::Serialize;

use crate::explain::{Explanation, NodeContext, Subject, Weight, component_state, explain_in};
use crate::facts::NodeFact;

/// Where a component stands on a node, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CellState {
    /// Its mode does not want it.
    #[serde(rename = "-")]
    Unwanted,
    /// Ready.
    Ready,
    /// Not there, because somebody wants it so.
    Off,
    /// It goes on by itself.
    Waiting,
    /// Somebody has to act.
    Failing,
}

impl CellState {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unwanted => "-",
            Self::Ready => "ready",
            Self::Off => "off",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
        }
    }
}

/// A component's cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cell {
    /// Name of the component.
    pub component: &'static str,
    /// Where it stands.
    pub state: CellState,
}

/// What a node looks like. Nodes with the same are alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its mode, or why it has none.
    pub mode: &'static str,
    /// Every component.
    pub components: Vec<Cell>,
    /// Version of its driver; empty when it is not known.
    pub driver_version: String,
    /// Release of its kernel.
    pub kernel: String,
    /// NPUs that discovery finds, if it says so.
    pub npus_found: Option<u64>,
    /// NPUs that pods may have.
    pub npus_allocatable: u64,
    /// Where the upgrade of its driver stands; empty when there is none.
    pub upgrade: String,
    /// Whether its kubelet is ready.
    pub kubelet_ready: bool,
}

/// Nodes that look alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// What they look like.
    #[serde(flatten)]
    pub row: Row,
    /// Whether they are as they should be.
    pub ready: bool,
    /// Whether somebody has to act.
    pub needs_attention: bool,
    /// Their names.
    pub nodes: Vec<String>,
    /// Of the first of them, the first thing that keeps it from being as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A node as a row, how bad it is, and why.
pub(super) fn row(context: &NodeContext<'_>) -> (Row, Option<Weight>, Option<Explanation>) {
    let components: Vec<_> = COMPONENTS
        .into_iter()
        .map(|component| Cell { component: component.name, state: cell_state(context, component) })
        .collect();
    let node = context.node;
    let upgrade = context.upgrade().unwrap_or_default();
    let has_npus = context.decision.state == NodeState::InMode(Workload::Container);
    let mut row = Row {
        mode: mode(context.decision.state),
        components,
        driver_version: driver_version(context),
        kernel: node.status.node_info.kernel_version.clone(),
        npus_found: node.found(),
        npus_allocatable: node.allocatable(),
        upgrade,
        kubelet_ready: node.is_ready(),
    };
    // What is cheap to see decides whether the whole chain has to be gone through.
    let is_plain = row.components.iter().all(|cell| cell.state <= CellState::Off)
        && row.kubelet_ready
        && row.upgrade.is_empty()
        && (!has_npus || are_all_there(node, &row))
        && matches!(context.decision.state, NodeState::InMode(_) | NodeState::Skipped)
        && context.decision.changes(&context.view).is_empty();
    if is_plain {
        return (row, None, None);
    }
    let explanation = explain_in(context.cluster, &Subject::Node(node.metadata.name.clone()));
    let weight = explanation.cause.as_ref().map(|cause| cause.weight);
    if weight.is_none() {
        // Nothing is wrong: such nodes differ by nothing that an admin has to see.
        row.npus_found = row.npus_found.filter(|_| has_npus);
    }
    (row, weight, Some(explanation))
}

/// Whether pods may have every NPU that there is, as far as that is known.
fn are_all_there(node: &NodeFact, row: &Row) -> bool {
    let is_advertised =
        row.components.iter().any(|cell| cell.component == DEVICE_PLUGIN.name && cell.state == CellState::Ready);
    let are_all =
        row.npus_found.is_none_or(|found| found == row.npus_allocatable) && node.capacity() == row.npus_allocatable;
    are_all && (row.npus_allocatable > 0 || !is_advertised)
}

fn cell_state(context: &NodeContext<'_>, component: &'static accelerator_api::contract::Component) -> CellState {
    if !context.components().any(|one| one.name == component.name) {
        return CellState::Unwanted;
    }
    let state = component_state(context, component);
    match (state.is_ready, state.weight()) {
        (_, Some(Weight::Blocks)) => CellState::Failing,
        (true, _) => CellState::Ready,
        (false, Some(Weight::Note)) => CellState::Off,
        (false, None) if state.is_not_deployed => CellState::Off,
        (false, _) => CellState::Waiting,
    }
}

fn mode(state: NodeState) -> &'static str {
    match state {
        NodeState::InMode(mode) => mode.as_str(),
        NodeState::Skipped => "skipped",
        NodeState::InvalidMode => "invalid",
        NodeState::WithoutMode => "none",
        NodeState::Unrelated => "unrelated",
    }
}

/// Of the driver that discovery finds loaded, else of the image that its pod is to run.
fn driver_version(context: &NodeContext<'_>) -> String {
    let found = context.node.metadata.label(DRIVER_VERSION_LABEL).map(str::to_owned);
    let of_image = || {
        let runs = context.components().any(|component| component.name == DRIVER.name);
        let image = context.driver_image().filter(|_| runs)?;
        let tag = image.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))?;
        // A tag may have the kernel behind the version.
        Some(tag.split('-').next().unwrap_or(tag).to_owned())
    };
    found.or_else(of_image).unwrap_or_default()
}
