//! Why a node is as it is.

use accelerator_api::contract::{COMPONENTS, Component};
use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Rebellions};
use node_labeler::rules::{Decision, NodeState, Policy, decide};
use node_labeler::view::NodeView;

use super::component_on_node::component_state;
use super::finding::{Explanation, Finding, Line};
use super::{Cluster, config, driver, installation, labels, npus, place};
use crate::facts::{Facts, NodeFact, PodFact};

/// For how long labels by default outlive discovery. Source: `--discovery-hold-down` of node-labeler, its default.
const HOLD_DOWN: std::time::Duration = std::time::Duration::from_mins(10);

/// A node, and what counts for it.
#[derive(Debug)]
pub struct NodeContext<'a> {
    /// The cluster that it is in.
    pub cluster: &'a Cluster<'a>,
    /// Everything that is known.
    pub facts: &'a Facts,
    /// The node.
    pub node: &'a NodeFact,
    /// As node-labeler sees it.
    pub view: NodeView,
    /// What node-labeler makes of it.
    pub decision: Decision,
    /// The AcceleratorConfig that counts.
    pub active: Option<&'a ObservedConfig>,
    /// Its section of our provider.
    pub rebellions: Option<&'a Rebellions>,
}

impl<'a> NodeContext<'a> {
    /// A node under the AcceleratorConfig that counts.
    #[must_use]
    pub fn new(cluster: &'a Cluster<'a>, node: &'a NodeFact) -> Self {
        let view = node.view();
        let active = cluster.active.as_ref();
        let decision = decide(&view, Policy::of(active.map(|config| config.spec.as_ref())), None, HOLD_DOWN);
        Self { cluster, facts: cluster.facts, node, view, decision, active, rebellions: cluster.rebellions() }
    }

    /// What the controllers report.
    #[must_use]
    pub fn status(&self) -> &AcceleratorConfigStatus {
        static NONE: AcceleratorConfigStatus =
            AcceleratorConfigStatus { observed_generation: None, nodes: None, components: vec![], conditions: vec![] };
        self.active.map_or(&NONE, |config| &config.status)
    }

    /// The components that its mode wants, whatever the config makes of them.
    pub fn components(&self) -> impl Iterator<Item = &'static Component> {
        let state = self.decision.state;
        COMPONENTS.into_iter().filter(move |component| match state {
            NodeState::InMode(mode) => component.runs_in(mode),
            _ => false,
        })
    }

    /// Where the upgrade of its driver stands, in a word; `None` when it is done or none is on.
    #[must_use]
    pub fn upgrade(&self) -> Option<String> {
        driver::state(self)
    }

    /// The image of the driver that it is to have.
    #[must_use]
    pub fn driver_image(&self) -> Option<&'a str> {
        driver::daemon_set(self).map(crate::facts::DaemonSetFact::image)
    }

    /// Whether it has a deploy label, whatever its value.
    #[must_use]
    pub fn carries_deploy_label(&self) -> bool {
        COMPONENTS.iter().any(|component| self.node.metadata.labels.contains_key(component.deploy_label))
    }

    /// The pod of an operand on it.
    #[must_use]
    pub fn pod_of(&self, operand: &str) -> Option<&'a PodFact> {
        self.cluster.pod(&self.node.metadata.name, operand)
    }
}

/// Explains a node.
pub(super) fn explain(cluster: &Cluster<'_>, name: &str) -> Explanation {
    let facts = cluster.facts;
    let subject = format!("node/{name}");
    let Some(node) = facts.node(name) else {
        let nodes = "kubectl get nodes lists those that there are";
        return Explanation::not_found(subject, Finding::blocks(format!("there is no node {name}")).todo(nodes));
    };
    let context = NodeContext::new(cluster, node);
    let mut found = vec![];
    let mut findings = config::precondition(cluster);
    findings.extend(
        node.metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| Finding::note(format!("node {name} is being deleted")).since(Some(time))),
    );
    findings.extend(labels::asked(&context));
    findings.extend(place::kubelet(node, facts.at).filter(|_| is_ours(&context)));
    findings.extend(driver::upgrade(&context).filter(|_| driver::is_wanted(&context)));
    findings.extend(labels::pending(&context));
    let mut ready = vec![];
    for component in context.components() {
        let state = component_state(&context, component);
        if state.is_ready {
            ready.push(component.name);
        }
        found.push(Line::new(component.name, state.text));
        findings.extend(state.findings);
    }
    if let Some(state) = driver::state(&context) {
        found.push(Line::new("upgrade", state));
    }
    findings.extend(npus::missing(&context, |component| ready.contains(&component)));
    findings.extend(cordon(&context));
    findings.extend(leftovers(&context));
    findings.extend(installation::everywhere(facts));
    found.extend(npus::line(&context));
    found.push(Line::new("kernel", &*system(node)));
    Explanation::of(subject, wanted(&context), found, findings)
}

/// Whether something of ours is to run on it.
fn is_ours(context: &NodeContext<'_>) -> bool {
    !matches!(context.decision.state, NodeState::Unrelated | NodeState::WithoutMode)
}

fn wanted(context: &NodeContext<'_>) -> String {
    let names: Vec<_> = context.components().map(|component| component.name).collect();
    let mode = labels::mode(context);
    if names.is_empty() { mode } else { format!("{mode}: {}", names.join(", ")) }
}

fn system(node: &NodeFact) -> String {
    let info = &node.status.node_info;
    [&info.kernel_version, &info.os_image]
        .into_iter()
        .filter(|text| !text.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}

/// A cordon keeps workloads off, not operands; an upgrade that is not ours to lift is worth a word.
fn cordon(context: &NodeContext<'_>) -> Option<Finding> {
    let meta = &context.node.metadata;
    let record = context.node.upgrade();
    let is_ours = record.is_some_and(|record| record.cordoned);
    if !context.node.spec.unschedulable || is_ours {
        return None;
    }
    let writer = meta.spec_writer("unschedulable");
    let by = writer.map(|writer| format!(" by {}", writer.manager)).unwrap_or_default();
    let what = format!("node {} is cordoned{by}: pods that want NPUs are not scheduled to it, operands are", meta.name);
    Some(Finding::note(what).since(writer.and_then(|writer| writer.at)))
}

/// Pods of operands that the node's mode does not want: on their way out, or held.
fn leftovers(context: &NodeContext<'_>) -> Option<Finding> {
    let NodeState::InMode(mode) = context.decision.state else { return None };
    let others = COMPONENTS.into_iter().filter(|component| !component.runs_in(mode));
    let left: Vec<_> = others.filter_map(|component| context.pod_of(component.operand)).collect();
    let names: Vec<_> = left.iter().map(|pod| pod.metadata.name.as_str()).collect();
    let first = left.first()?;
    let since = first.metadata.deletion_timestamp.as_ref();
    let what = format!("pods of another mode are still on node {}: {}", context.node.metadata.name, names.join(", "));
    Some(
        Finding::passes(what)
            .since(since)
            .todo("if it lasts: kubectl describe the pod; its containers wait for those who use an NPU"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_labeler::options::DISCOVERY_HOLD_DOWN;

    #[test]
    fn labels_outlive_discovery_as_long_as_node_labeler_lets_them() {
        let default = DISCOVERY_HOLD_DOWN.parse::<k8s_openapi::jiff::SignedDuration>().expect("a duration");
        assert_eq!(u128::try_from(default.as_millis()).expect("a positive one"), HOLD_DOWN.as_millis());
    }
}
