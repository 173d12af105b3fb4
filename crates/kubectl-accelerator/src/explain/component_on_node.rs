//! Where one component stands on one node: the chain from label and config to DaemonSet, pod and container.

use accelerator_api::contract::{COMPONENTS, Component, DEPLOY, DRIVER};
use accelerator_api::{Reason, Rebellions};

use super::finding::{Finding, Weight};
use super::{NodeContext, driver, installation, labels, not_created, place, pod};
use crate::facts::{DaemonSetFact, Kind};

/// Where a component stands on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentState {
    /// In a few words.
    pub text: String,
    /// Whether its pod is there and ready.
    pub is_ready: bool,
    /// Whether the config does not ask for it.
    pub is_not_deployed: bool,
    /// What keeps it from being as it should, or what is to be said beside it.
    pub findings: Vec<Finding>,
}

impl ComponentState {
    fn ready(text: impl Into<String>, findings: Vec<Finding>) -> Self {
        Self { text: text.into(), is_ready: true, is_not_deployed: false, findings }
    }

    fn off(text: impl Into<String>, finding: impl Into<Option<Finding>>) -> Self {
        Self {
            text: text.into(),
            is_ready: false,
            is_not_deployed: false,
            findings: finding.into().into_iter().collect(),
        }
    }

    /// How much the worst of it weighs.
    #[must_use]
    pub fn weight(&self) -> Option<Weight> {
        self.findings.iter().map(|finding| finding.weight).max()
    }
}

/// Where a component that a node's mode wants stands there.
#[must_use]
pub fn component_state(context: &NodeContext<'_>, component: &'static Component) -> ComponentState {
    let Some(rebellions) = context.rebellions else {
        return ComponentState { is_not_deployed: true, ..ComponentState::off("not deployed", None) };
    };
    if let Some(why) = not_deployed(component, rebellions) {
        return ComponentState { is_not_deployed: true, ..ComponentState::off(format!("not deployed: {why}"), None) };
    }
    let index = COMPONENTS.iter().position(|one| one.name == component.name).unwrap_or_default();
    if let Some((row, finding)) = labels::kept_off(context, index, component) {
        return ComponentState::off(row, finding);
    }
    if component.name == DRIVER.name && is_preinstalled(rebellions) {
        return ComponentState::ready("the host's own (driver.mode is preinstalled)", vec![]);
    }
    if context.node.metadata.label(component.deploy_label) != Some(DEPLOY) {
        return ComponentState::off(format!("not assigned yet: no label {}", component.deploy_label), None);
    }
    let daemon_set = if component.name == DRIVER.name {
        driver::daemon_set(context)
    } else {
        context.facts.daemon_sets_of(component.operand).next()
    };
    let Some(daemon_set) = daemon_set else { return without_daemon_set(context, component) };
    if let Some(pod) = context.pod_of(component.operand) {
        if let Some((row, finding)) = pod::problem(context.facts, component, pod) {
            let controller = condition_problem(context, component);
            return ComponentState {
                findings: std::iter::once(finding).chain(controller).collect(),
                ..ComponentState::off(row, None)
            };
        }
        let outdated = (component.name == DRIVER.name).then(|| driver::outdated(context, pod)).flatten();
        let text = if outdated.is_some() { "ready, and to be replaced" } else { "ready" };
        let taken = condition_problem(context, component);
        return ComponentState::ready(text, outdated.into_iter().chain(taken).collect());
    }
    without_pod(context, component, daemon_set)
}

/// Why the config asks for no such component.
pub(super) fn not_deployed(component: &Component, rebellions: &Rebellions) -> Option<String> {
    match (component.section)(rebellions) {
        None => Some(format!("there is no section {}", component.path)),
        Some(section) if !section.enabled => Some(format!("{}.enabled is false", component.path)),
        Some(_) => None,
    }
}

fn is_preinstalled(rebellions: &Rebellions) -> bool {
    rebellions.driver.as_ref().is_some_and(accelerator_api::DriverSpec::is_preinstalled)
}

/// What the component's condition says that has nothing to do with its pods.
pub(super) fn condition_problem(context: &NodeContext<'_>, component: &Component) -> Option<Finding> {
    let condition = context.status().condition(component.condition_type)?;
    let finding = |what: &str| {
        Some(Finding::blocks(format!("{what}: {}", condition.message)).since(Some(&condition.last_transition_time)))
    };
    let is = |reason: Reason| condition.reason == reason.as_str();
    if is(Reason::ApplyFailed) {
        return finding(&format!("the API server refuses the DaemonSet of {}", component.name)).map(|finding| {
            finding.todo(format!("change in {} what the message names; it is tried again by itself", component.path))
        });
    }
    if is(Reason::NameTaken) {
        let name = component.operand;
        return finding(&format!("somebody else's DaemonSet has the name {name}")).map(|finding| {
            finding.todo(format!(
                "rename or delete it: kubectl -n {} get ds {name} -o yaml",
                context.facts.operand_namespace
            ))
        });
    }
    if is(Reason::Contested) {
        return finding(&format!("somebody undoes what {} writes", component.controller))
            .map(|finding| finding.todo("make the field manager that is named leave that field alone, or set what it wants in the AcceleratorConfig"));
    }
    None
}

/// The component is wanted and has no DaemonSet.
fn without_daemon_set(context: &NodeContext<'_>, component: &Component) -> ComponentState {
    if !context.facts.knows(Kind::DaemonSets) {
        return ComponentState::off("its DaemonSet is not known", None);
    }
    if component.name == DRIVER.name
        && let Some(finding) = driver::unknown_image(context)
    {
        return ComponentState::off("no DaemonSet: its image is not known", finding);
    }
    if let Some(finding) = condition_problem(context, component) {
        return ComponentState::off("no DaemonSet", finding);
    }
    let controller = component.controller;
    if let Some(finding) = installation::program(context.facts, controller) {
        let what = format!("{} has no DaemonSet: {}", component.name, finding.what);
        return ComponentState::off(
            format!("no DaemonSet: {controller} does not make one"),
            Finding { what, ..finding },
        );
    }
    let finding =
        Finding::passes(format!("{} has no DaemonSet yet: {controller} makes it in a moment", component.name))
            .todo(format!("if it lasts: kubectl -n {} logs deployment/{controller}", context.facts.namespace));
    ComponentState::off("no DaemonSet yet", finding)
}

/// Its DaemonSet is there, and no pod of it on the node.
fn without_pod(context: &NodeContext<'_>, component: &Component, daemon_set: &DaemonSetFact) -> ComponentState {
    if let Some(finding) = condition_problem(context, component).filter(|_| !is_for_this_label(component, daemon_set)) {
        return ComponentState::off("no pod", finding);
    }
    if let Some(finding) = place::taint(context, daemon_set) {
        return ComponentState::off("no pod: a taint keeps it off", finding);
    }
    if context.facts.pods_not_read.contains(component.operand) || !context.facts.knows(Kind::Pods) {
        let text = if daemon_set.is_settled() { "ready" } else { "its pods are not known" };
        return ComponentState { is_ready: daemon_set.is_settled(), ..ComponentState::off(text, None) };
    }
    if let Some(finding) = not_created::refusal(context.facts, daemon_set) {
        return ComponentState::off("no pod: it cannot be made", finding);
    }
    let name = &context.node.metadata.name;
    if !context.node.is_ready() {
        return ComponentState::off("no pod: the node is not ready", None);
    }
    let finding = Finding::passes(format!(
        "{} has no pod on node {name} yet: the DaemonSet {} makes one",
        component.name, daemon_set.metadata.name
    ))
    .todo(format!(
        "if it lasts: kubectl -n {} describe ds {}",
        context.facts.operand_namespace, daemon_set.metadata.name
    ));
    ComponentState::off("no pod yet", finding)
}

/// Whether a DaemonSet runs where the component's label is.
fn is_for_this_label(component: &Component, daemon_set: &DaemonSetFact) -> bool {
    daemon_set.spec.template.spec.node_selector.contains_key(component.deploy_label)
}
