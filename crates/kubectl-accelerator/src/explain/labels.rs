//! A node's labels: which mode they mean, who set what, and whether node-labeler has done its part.

use accelerator_api::contract::{
    Component, DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DEPLOY, NODE_LABELER, PAUSED_PREFIX, SKIP_LABEL,
    WORKLOAD_CONFIG_LABEL, Workload,
};
use accelerator_api::{Reason, condition_types};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use node_labeler::effect::Change;
use node_labeler::rules::NodeState;
use node_labeler::view::{DeployLabel, WorkloadLabel};

use super::finding::Finding;
use super::{NodeContext, installation};
use crate::facts::Meta;

/// How long a driver manager's pause may stand on labels of ours before node-labeler ends it. Source: `--paused-hold-down` of
/// node-labeler, its default.
const PAUSE: SignedDuration = SignedDuration::from_mins(30);

/// Who set a label, and when, as part of a sentence; empty when the API server does not say.
pub(super) fn set_by(meta: &Meta, key: &str) -> String {
    let Some(writer) = meta.label_writer(key) else { return String::new() };
    let at = writer.at.map(|time| format!(" at {}", time.0)).unwrap_or_default();
    format!(", set by {}{at}", writer.manager)
}

/// The mode of a node and where it comes from, for people.
pub(super) fn mode(context: &NodeContext<'_>) -> String {
    let by_label = matches!(context.view.workload, WorkloadLabel::Mode(_));
    match context.decision.state {
        NodeState::InMode(mode) if by_label => {
            format!("mode {} (its label{})", mode.as_str(), set_by(&context.node.metadata, WORKLOAD_CONFIG_LABEL))
        }
        NodeState::InMode(mode) => format!("mode {} (workload.default of the AcceleratorConfig)", mode.as_str()),
        NodeState::Skipped => "left exactly as it is".into(),
        NodeState::InvalidMode => "left as it is, because its mode is not known".into(),
        NodeState::WithoutMode | NodeState::Unrelated => "nothing of ours".into(),
    }
}

/// What its labels ask for, as far as it is not what one would expect.
pub(super) fn asked(context: &NodeContext<'_>) -> Vec<Finding> {
    let (node, name) = (&context.node.metadata, &context.node.metadata.name);
    let since = |key: &str| node.label_writer(key).and_then(|writer| writer.at);
    let mut findings = vec![];
    match (&context.decision.state, &context.view.workload) {
        (NodeState::Skipped, _) => findings.push(
            Finding::note(format!("the label {SKIP_LABEL}=true is on node {name}{}: it is left exactly as it is", set_by(node, SKIP_LABEL)))
                .since(since(SKIP_LABEL))
                .todo(format!("to have it managed: kubectl label node {name} {SKIP_LABEL}-")),
        ),
        (NodeState::InvalidMode, WorkloadLabel::Unknown(value)) => {
            let modes: Vec<_> = Workload::ALL.iter().map(|mode| mode.as_str()).collect();
            findings.push(
                Finding::blocks(format!(
                    "the label {WORKLOAD_CONFIG_LABEL}={value} of node {name} is no mode{}: nothing is changed on it until it is one",
                    set_by(node, WORKLOAD_CONFIG_LABEL)
                ))
                .since(since(WORKLOAD_CONFIG_LABEL))
                .todo(format!("kubectl label --overwrite node {name} {WORKLOAD_CONFIG_LABEL}={}", nearest(value, &modes))),
            );
        }
        (NodeState::WithoutMode, _) if context.active.is_some() => findings.push(
            Finding::blocks(format!(
                "node {name} has NPUs and no mode: neither the label {WORKLOAD_CONFIG_LABEL} nor spec.providers.rebellions.workload.default says what they are for"
            ))
            .todo(format!("kubectl label node {name} {WORKLOAD_CONFIG_LABEL}=container (or vm-passthrough)")),
        ),
        (NodeState::Unrelated, _) if context.active.is_some() && context.rebellions.is_some() => findings.push(Finding::note(format!(
            "node {name} has neither the label {WORKLOAD_CONFIG_LABEL} nor a sign of an NPU (a label feature.node.kubernetes.io/pci-…1eff….present of Node Feature Discovery)"
        )).todo(format!("if it has NPUs: see whether Node Feature Discovery runs on it, or kubectl label node {name} {WORKLOAD_CONFIG_LABEL}=container"))),
        _ => {}
    }
    if context.decision.is_npu_missing {
        findings.push(Finding::passes(format!(
            "no NPU is discovered on node {name} any more: what it runs by default stays for 10 minutes (--discovery-hold-down of node-labeler), then its labels are taken back"
        )).todo("see whether Node Feature Discovery runs on it; a mode by label needs no discovery"));
    }
    findings
}

/// The value that somebody probably meant: the one that begins alike.
fn nearest<'a>(value: &str, modes: &[&'a str]) -> &'a str {
    let alike = |mode: &&&str| value.chars().zip(mode.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    modes.iter().max_by_key(alike).copied().unwrap_or_default()
}

/// Why labels of a node are not yet what node-labeler makes of it, if they are not.
pub(super) fn pending(context: &NodeContext<'_>) -> Option<Finding> {
    let stepping = stepping_aside(context);
    if stepping.is_some() {
        return stepping;
    }
    let changes = context.decision.changes(&context.view);
    let labels: Vec<_> = changes.iter().filter_map(change).collect();
    if labels.is_empty() {
        return None;
    }
    let name = &context.node.metadata.name;
    let what = format!("labels of node {name} still have to be changed ({})", labels.join(", "));
    if let Some(finding) = installation::program(context.facts, NODE_LABELER) {
        return Some(Finding { what: format!("{what}, and {}", finding.what), ..finding });
    }
    let ready = context.status().condition(condition_types::READY)?.clone();
    let is_told = [Reason::NodesChanging, Reason::Contested].iter().any(|reason| reason.as_str() == ready.reason);
    if is_told && ready.message.contains(name.as_str()) {
        let finding = Finding::blocks(format!("{what}: {}", ready.message)).since(Some(&ready.last_transition_time));
        return Some(
            finding.todo("end what the message names: node-labeler tries again by itself, less and less often"),
        );
    }
    let contested = context.view.other_writer.as_ref();
    let by = contested.map(|by| format!("; {by} wrote the node after node-labeler")).unwrap_or_default();
    Some(Finding::passes(format!("{what}: node-labeler writes them in a moment{by}")))
}

fn change(change: &Change) -> Option<String> {
    match change {
        Change::Label(index, true) => {
            Some(format!("{}=true is missing", accelerator_api::contract::COMPONENTS[*index].deploy_label))
        }
        Change::Label(index, false) => {
            Some(format!("{} has to go", accelerator_api::contract::COMPONENTS[*index].deploy_label))
        }
        Change::Record(_) => None,
    }
}

/// Components that use the driver step aside while it is replaced.
fn stepping_aside(context: &NodeContext<'_>) -> Option<Finding> {
    let until = context.view.paused_until.as_deref()?;
    let name = &context.node.metadata.name;
    let time: Timestamp = until.parse().ok()?;
    let missing = context.decision.changes(&context.view).iter().any(|change| matches!(change, Change::Label(_, true)));
    if !missing {
        return None;
    }
    if time > context.facts.at {
        return Some(Finding::passes(format!(
            "components that use the driver step aside on node {name} while its driver is replaced, until {until} at the latest ({DEPENDENTS_PAUSED_UNTIL_ANNOTATION})"
        )));
    }
    let what = format!(
        "components stepped aside for a driver upgrade on node {name} until {until}, and their labels did not come back"
    );
    let finding = installation::program(context.facts, NODE_LABELER);
    Some(match finding {
        Some(finding) => Finding { what: format!("{what}: {}", finding.what), ..finding },
        None => Finding::passes(format!("{what} yet: node-labeler sets them in a moment")).since_time(Some(time)),
    })
}

/// What keeps a component off a node by its deploy label: words for its row, and a finding if it is one.
pub(super) fn kept_off(context: &NodeContext<'_>, index: usize, component: &Component) -> Option<(String, Finding)> {
    let meta = &context.node.metadata;
    let value = meta.label(component.deploy_label).filter(|value| *value != DEPLOY)?;
    let (key, name, by) = (component.deploy_label, &meta.name, set_by(meta, component.deploy_label));
    let since = meta.label_writer(key).and_then(|writer| writer.at);
    let row = format!("kept off by the label {key}={value}");
    let remove = format!("to have it back: kubectl label node {name} {key}-");
    let finding = if value.starts_with(PAUSED_PREFIX) {
        let is_old = since.is_some_and(|time| context.facts.at.duration_since(time.0) > PAUSE);
        match (context.view.deploy[index], is_old) {
            (DeployLabel::Paused, false) => Finding::passes(format!(
                "{} is paused on node {name} ({key}={value}{by}): a driver manager replaces the driver; left behind for 30 minutes, node-labeler ends the pause",
                component.name
            )),
            (DeployLabel::Paused, true) => {
                let labeler = installation::program(context.facts, NODE_LABELER);
                let why = labeler.map_or_else(|| "node-labeler has not restored it".to_owned(), |finding| finding.what);
                Finding::blocks(format!("a driver manager's pause was left behind on node {name} ({key}={value}{by}): {why}"))
                    .todo(format!("kubectl label --overwrite node {name} {key}={DEPLOY}"))
            }
            _ => Finding::blocks(format!(
                "the label {key}={value} of node {name}{by} is a driver manager's pause that nobody restored: node-labeler did not set the label before, and leaves it"
            ))
            .todo(remove),
        }
    } else if value.is_empty() {
        Finding::blocks(format!(
            "the label {key} of node {name} is empty{by}: any value but {DEPLOY} keeps {} off",
            component.name
        ))
        .todo(remove)
    } else {
        Finding::note(format!("{} is kept off node {name} by the label {key}={value}{by}", component.name)).todo(remove)
    };
    Some((row, finding.since(since)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_labeler::options::PAUSED_LABELS_HOLD_DOWN;

    #[test]
    fn a_pause_may_stand_as_long_as_node_labeler_lets_it() {
        assert_eq!(PAUSED_LABELS_HOLD_DOWN.parse::<SignedDuration>().expect("a duration"), PAUSE);
    }
}
