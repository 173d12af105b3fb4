//! What is special about the driver: its pools, and the upgrade that replaces it node by node.

use accelerator_api::contract::{
    DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_SKIP_LABEL, DRIVER_UPGRADE_STATE_LABEL, Workload,
};
use accelerator_api::{NodeUpgradeStatus, condition_types};
use k8s_openapi::jiff::Timestamp;
use node_labeler::rules::NodeState;
use rebellions_driver_controller::pool::daemon_set_name;
use rebellions_driver_controller::upgrade::{Reason, State};

use super::finding::{Finding, Weight};
use super::{NodeContext, advice};
use crate::facts::{DaemonSetFact, PodFact};

/// The DaemonSet that serves a node's driver.
pub(super) fn daemon_set<'a>(context: &NodeContext<'a>) -> Option<&'a DaemonSetFact> {
    let pool = context.node.metadata.label(DRIVER_POOL_LABEL);
    let name = daemon_set_name(pool);
    context.facts.daemon_sets_of(DRIVER.operand).find(|one| one.metadata.name == name)
}

/// Where the upgrade of a node's driver stands, as its label and the status say; empty when there is none.
pub(super) fn state(context: &NodeContext<'_>) -> Option<String> {
    let told = told(context).map(|told| told.state.clone());
    let label = context.node.metadata.label(DRIVER_UPGRADE_STATE_LABEL).map(str::to_owned);
    told.or(label).filter(|state| state != State::Done.as_str())
}

fn told<'a>(context: &'a NodeContext<'_>) -> Option<&'a NodeUpgradeStatus> {
    let upgrade = context.status().component(DRIVER.operand)?.upgrade.as_ref()?;
    upgrade.nodes.iter().find(|node| node.name == context.node.metadata.name)
}

/// What keeps the upgrade of a node's driver from being done, if one is on.
pub(super) fn upgrade(context: &NodeContext<'_>) -> Option<Finding> {
    let record = context.node.upgrade();
    let since = record.as_ref().and_then(|record| record.since);
    let name = &context.node.metadata.name;
    if let Some(told) = told(context) {
        let message = told
            .message
            .strip_prefix(&format!("node {name}"))
            .map_or(told.message.clone(), |rest| rest.trim_start_matches([':', ' ']).to_owned());
        let what = format!("the driver of node {name} is to be replaced, {} ({}): {message}", told.state, told.reason);
        return Some(finding(context, &told.reason, what, since));
    }
    let state = State::parse(context.node.metadata.label(DRIVER_UPGRADE_STATE_LABEL)?)?;
    match state {
        State::Done => None,
        State::Skipped => Some(Finding::note(format!(
            "the driver of node {name} is not upgraded: its label {DRIVER_UPGRADE_SKIP_LABEL} is true"
        ))),
        State::Failed => {
            let record = record?;
            let message = record.message.strip_prefix(&format!("node {name}: ")).unwrap_or(&record.message);
            let retry = record.retry_at();
            let again = if retry > context.facts.at {
                format!("; it is not tried again by itself before {retry}")
            } else {
                String::new()
            };
            let what = format!(
                "the upgrade of node {name}'s driver failed, attempt {} ({}): {message}{again}",
                record.attempt.max(1),
                record.reason
            );
            Some(finding(context, &record.reason, what, since))
        }
        under_way => {
            let what = format!("the driver of node {name} is being replaced ({})", under_way.as_str());
            Some(Finding::passes(what).since_time(since))
        }
    }
}

/// A reason of the upgrade engine with what to do about it, and the budget that holds it.
fn finding(context: &NodeContext<'_>, reason: &str, what: String, since: Option<Timestamp>) -> Finding {
    let reason = Reason::parse(reason);
    let (weight, todo) = reason.map_or((Weight::Passes, None), advice::of_upgrade);
    let budget = reason
        .filter(|reason| matches!(reason, Reason::EvictingPods | Reason::EvictionTimedOut))
        .and_then(|_| budget(context));
    let (weight, what) = match &budget {
        Some(budget) => (Weight::Blocks, format!("{what}; {budget}")),
        None => (weight, what),
    };
    let todo = budget
        .is_some()
        .then(|| "scale the workload up or ease the budget; the eviction is tried again every 10 s".to_owned())
        .or(todo);
    Finding { weight, what, since, todo: todo.into_iter().collect() }
}

/// The disruption budget that lets no pod of this node go, with the pod.
fn budget(context: &NodeContext<'_>) -> Option<String> {
    let here = |pod: &&PodFact| pod.spec.node_name == context.node.metadata.name && pod.asks_for_npus();
    let mut pods = context.facts.pods.iter().filter(here);
    pods.find_map(|pod| {
        let budget = context.facts.budgets.iter().find(|budget| budget.is_exhausted() && budget.covers(pod))?;
        let status = budget.status;
        Some(format!(
            "the PodDisruptionBudget {}/{} holds pod {}: {} of {} pods that it wants are healthy, so that none may leave",
            budget.metadata.namespace, budget.metadata.name, pod.metadata.name, status.current_healthy, status.desired_healthy
        ))
    })
}

/// Why a node gets no driver at all although it is assigned: what its image is made of is not known.
pub(super) fn unknown_image(context: &NodeContext<'_>) -> Option<Finding> {
    use accelerator_api::Reason as Told;
    let condition = context.status().condition(DRIVER.condition_type)?;
    let is_told = [Told::KernelUnknown, Told::FamilyUnknown].iter().any(|reason| reason.as_str() == condition.reason);
    if !is_told || !condition.message.contains(&context.node.metadata.name) {
        return None;
    }
    let what =
        format!("which driver image node {} needs is not known: {}", context.node.metadata.name, condition.message);
    Some(
        Finding::blocks(what)
            .since(Some(&condition.last_transition_time))
            .todo("see whether Node Feature Discovery runs on it, or set spec.providers.rebellions.driver.image.tag"),
    )
}

/// The driver's pod of a node that runs another image than the wanted one: it is replaced as the policy says, or by hand.
pub(super) fn outdated(context: &NodeContext<'_>, pod: &PodFact) -> Option<Finding> {
    let wanted = daemon_set(context)?;
    let runs = pod.spec.containers.first().map(|main| main.image.as_str())?;
    let is_by_hand = wanted.spec.update_strategy.kind == "OnDelete";
    if runs.is_empty() || runs == wanted.image() || !is_by_hand {
        return None;
    }
    let automatic = context
        .rebellions
        .and_then(|section| section.driver.as_ref())
        .and_then(|driver| driver.upgrade_policy.as_ref());
    let what = format!("the driver of node {} is {runs}, and {} is wanted", context.node.metadata.name, wanted.image());
    if automatic.is_some_and(|policy| policy.auto_upgrade) {
        return Some(Finding::passes(format!("{what}: it is replaced when its turn comes")));
    }
    Some(Finding::passes(format!("{what}: it is replaced when somebody says so")).todo(format!(
        "set driver.upgradePolicy.autoUpgrade: true; or, once nothing on the node uses an NPU, kubectl -n {} delete pod {}",
        pod.metadata.namespace, pod.metadata.name
    )))
}

/// What holds up the upgrade of all nodes.
#[must_use]
pub fn rollout(status: &accelerator_api::AcceleratorConfigStatus) -> Option<Finding> {
    let blocked = status.condition(condition_types::DRIVER_UPGRADE_BLOCKED).filter(|one| one.status == "True")?;
    let what = format!("the upgrade of drivers stands still ({}): {}", blocked.reason, blocked.message);
    let finding = Finding::blocks(what).since(Some(&blocked.last_transition_time));
    Some(finding.todo(advice::of_rollout(&blocked.reason)))
}

/// Whether a node is to have the driver.
pub(super) fn is_wanted(context: &NodeContext<'_>) -> bool {
    context.decision.state == NodeState::InMode(Workload::Container)
}
