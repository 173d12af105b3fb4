//! The rules: from a node's labels and the active config to the labels that the node should have.

use std::time::Duration;

use accelerator_api::contract::{COMPONENTS, DEPLOY, OWNED_LABELS_ANNOTATION, Workload};
use accelerator_api::{AcceleratorConfigSpec, Rebellions};
use serde_json::{Value, json};

use crate::effect::Change;
use crate::view::{DeployLabel, NodeView, PerComponent, WorkloadLabel, record};

/// What the active config says about nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// There is no active config, or none for our provider: no node is ours.
    Nothing,
    /// Another replica writes: nothing is decided here.
    Standby,
    /// The active config cannot be read: every node stays as it is.
    Frozen,
    /// Nodes run what their mode needs; those that do not say get this one, if any.
    Modes {
        /// `spec.providers.rebellions.workload.default`
        default: Option<Workload>,
    },
}

impl Policy {
    /// The policy of the active config; `None` when there is no active config.
    #[must_use]
    pub fn of(active: Option<Result<&AcceleratorConfigSpec, &String>>) -> Self {
        match active {
            None => Self::Nothing,
            Some(Err(_)) => Self::Frozen,
            Some(Ok(spec)) => spec.providers.rebellions.as_ref().map_or(Self::Nothing, Self::of_section),
        }
    }

    fn of_section(section: &Rebellions) -> Self {
        let default = section.workload.as_ref().and_then(|workload| workload.default.as_deref());
        Self::Modes { default: default.and_then(Workload::parse) }
    }
}

/// What a node is, under a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// A node without NPU and without mode, which is left alone.
    #[default]
    Unrelated,
    /// In this mode, by its own label or by default.
    InMode(Workload),
    /// It has NPUs and no mode.
    WithoutMode,
    /// Its own label is no mode.
    InvalidMode,
    /// The admin asked to leave it as it is.
    Skipped,
}

/// What to do about a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What it is.
    pub state: NodeState,
    /// Its deploy labels afterwards.
    pub deploy: PerComponent<DeployLabel>,
    /// Whether the node is left exactly as it is.
    pub is_hands_off: bool,
    /// Whether it has labels by default and no NPU is discovered on it: the hold-down runs.
    pub is_npu_missing: bool,
}

/// Decides about a node. `missing` tells for how long no NPU has been discovered on it, if that has been noticed, and
/// `hold_down` how long that must last before it counts.
#[must_use]
pub fn decide(node: &NodeView, policy: Policy, missing: Option<Duration>, hold_down: Duration) -> Decision {
    let keep = |state| Decision { state, deploy: node.deploy, is_hands_off: true, is_npu_missing: false };
    let set = |state, deploy| Decision { deploy, is_hands_off: false, ..keep(state) };
    let assign = |workload| set(NodeState::InMode(workload), assigned(node, workload));
    let default = match policy {
        _ if node.skip => return keep(NodeState::Skipped),
        Policy::Nothing => return set(NodeState::Unrelated, withdrawn(node)),
        Policy::Standby | Policy::Frozen => return keep(state_of_labels(node)),
        Policy::Modes { default } => default,
    };
    match (&node.workload, default) {
        (WorkloadLabel::Mode(workload), _) => assign(*workload),
        // A typo must not take a working node apart.
        (WorkloadLabel::Unknown(_), _) => keep(NodeState::InvalidMode),
        (WorkloadLabel::Absent, Some(workload)) if node.has_npu => assign(workload),
        (WorkloadLabel::Absent, Some(_)) if is_assigned(node) => {
            let is_held = missing.is_none_or(|missing| missing < hold_down);
            let kept = if is_held { keep(state_of_labels(node)) } else { set(NodeState::Unrelated, withdrawn(node)) };
            Decision { is_npu_missing: true, ..kept }
        }
        (WorkloadLabel::Absent, _) => {
            let state = if node.has_npu { NodeState::WithoutMode } else { NodeState::Unrelated };
            set(state, withdrawn(node))
        }
    }
}

/// Exactly the labels of the mode, but for foreign values, which stay.
fn assigned(node: &NodeView, workload: Workload) -> PerComponent<DeployLabel> {
    std::array::from_fn(|index| match (COMPONENTS[index].runs_in(workload), node.deploy[index]) {
        (_, kept @ (DeployLabel::Foreign | DeployLabel::Paused)) => kept,
        (true, DeployLabel::Absent | DeployLabel::Emptied) => DeployLabel::Ours,
        (true, set) => set,
        (false, _) => DeployLabel::Absent,
    })
}

/// None of our labels; what others wrote stays.
fn withdrawn(node: &NodeView) -> PerComponent<DeployLabel> {
    let is_removed = |label| matches!(label, DeployLabel::Ours | DeployLabel::Emptied);
    node.deploy.map(|label| if is_removed(label) { DeployLabel::Absent } else { label })
}

fn is_assigned(node: &NodeView) -> bool {
    node.deploy.contains(&DeployLabel::Ours)
}

/// The mode that a node's labels amount to, when nothing else tells.
fn state_of_labels(node: &NodeView) -> NodeState {
    let runs = |workload: Workload| {
        let mut labels = COMPONENTS.iter().zip(node.deploy);
        let only = |component: &accelerator_api::contract::Component| component.workloads == [workload];
        labels.any(|(component, label)| label.is_set() && only(component))
    };
    Workload::ALL.into_iter().find(|workload| runs(*workload)).map_or(NodeState::Unrelated, NodeState::InMode)
}

impl Decision {
    /// What has to change on the node. The record goes along with labels, and alone only when it is wrong: one that is
    /// merely missing, because a release before this one labelled the node, waits for the next label.
    #[must_use]
    pub fn changes(&self, node: &NodeView) -> Vec<Change> {
        let labels = node.deploy.into_iter().zip(self.deploy).enumerate();
        let labels = labels.filter(|(_, (before, after))| {
            before.is_set() != after.is_set() || (*before, *after) == (DeployLabel::Emptied, DeployLabel::Absent)
        });
        let mut changes: Vec<_> = labels.map(|(index, (_, after))| Change::Label(index, after.is_set())).collect();
        let owned = self.deploy.map(DeployLabel::is_owned);
        let is_stale = || owned.iter().zip(node.recorded).any(|(owned, recorded)| recorded && !owned);
        let is_due = !changes.is_empty() || (!self.is_hands_off && (node.is_record_due || is_stale()));
        if is_due && owned != node.recorded {
            changes.push(Change::Record(owned));
        }
        changes
    }
}

/// The merge patch that makes these changes. When somebody changed the node meanwhile it is refused, not misapplied:
/// - A node that has deploy labels may have other writers of them, such as a driver manager that pauses it. The patch is
///   for exactly the version that was looked at.
/// - A node without any is new to us, and in its first seconds the kubelet and others write it all the time. The patch is
///   for that node, whatever its version, and not for another of its name.
#[must_use]
pub fn patch(node: &NodeView, changes: &[Change]) -> Value {
    let mut metadata = json!({});
    for change in changes {
        match change {
            Change::Label(index, set) => {
                let value = if *set { DEPLOY.into() } else { Value::Null };
                metadata["labels"][COMPONENTS[*index].deploy_label] = value;
            }
            Change::Record(owned) => {
                let record = record(*owned);
                let value = if record.is_empty() { Value::Null } else { record.into() };
                metadata["annotations"] = json!({OWNED_LABELS_ANNOTATION: value});
            }
        }
    }
    if node.version > 0 && node.deploy != PerComponent::default() {
        metadata["resourceVersion"] = node.version.to_string().into();
    } else if !node.uid.is_empty() {
        metadata["uid"] = node.uid.as_ref().into();
    }
    json!({"metadata": metadata})
}

#[cfg(test)]
mod tests;
