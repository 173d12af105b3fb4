//! Explains an AcceleratorConfig, and why none counts.

use accelerator_api::contract::{COMPONENTS, NODE_LABELER};
use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Reason, condition_types, count};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::component_on_node::not_deployed;
use super::finding::{Explanation, Finding, Line};
use super::{Cluster, component, driver, installation};
use crate::facts::{ConfigFact, Facts, Kind};

/// What has to be so that anything is deployed: an AcceleratorConfig that can be read.
pub(super) fn precondition(cluster: &Cluster<'_>) -> Vec<Finding> {
    let facts = cluster.facts;
    let Some(active) = &cluster.active else {
        if !facts.knows(Kind::AcceleratorConfigs) {
            return vec![];
        }
        let is_missing = facts.crd.is_none() && facts.knows(Kind::CustomResourceDefinition);
        if is_missing {
            return installation::everywhere(facts);
        }
        let going = facts.configs.iter().find(|config| config.metadata.deletion_timestamp.is_some());
        let what = match going {
            Some(going) => format!(
                "the only AcceleratorConfig, {}, is being deleted: nothing of ours is to run",
                going.metadata.name
            ),
            None => "there is no AcceleratorConfig: nothing of ours is to run".to_owned(),
        };
        return vec![Finding::blocks(what).todo("kubectl apply -f deploy/samples/acceleratorconfig.yaml")];
    };
    let name = active.metadata.name.as_deref().unwrap_or_default();
    match &active.spec {
        Err(why) => vec![unreadable(name, why)],
        Ok(spec) if spec.providers.rebellions.is_none() => vec![
            Finding::blocks(format!(
                "AcceleratorConfig {name} has no section spec.providers.rebellions: nothing of ours is to run"
            ))
            .todo(format!("kubectl edit ac {name}, or kubectl apply -f deploy/samples/acceleratorconfig.yaml")),
        ],
        Ok(_) => vec![],
    }
}

fn unreadable(name: &str, why: &str) -> Finding {
    Finding::blocks(format!("this version cannot read the spec of AcceleratorConfig {name}, and neither can controllers of it; everything stays as it is: {why}"))
        .todo("update the controllers to the release that the spec is written for, or take the setting back")
}

/// Explains the config that counts, or one by name.
pub(super) fn explain(cluster: &Cluster<'_>, name: Option<&str>) -> Explanation {
    let facts = cluster.facts;
    let active = facts.active();
    let found = match name {
        Some(name) => facts.configs.iter().find(|config| config.metadata.name == name),
        None => active,
    };
    let Some(config) = found else {
        let subject = name.map_or_else(|| "config".to_owned(), |name| format!("config/{name}"));
        let mut findings = precondition(cluster);
        if let (Some(name), Some(active)) = (name, active) {
            findings.insert(
                0,
                Finding::blocks(format!(
                    "there is no AcceleratorConfig {name}; the one that counts is {}",
                    active.metadata.name
                ))
                .todo("kubectl get ac lists those that there are"),
            );
        }
        let finding = findings.into_iter().next().unwrap_or_else(|| {
            Finding::blocks("AcceleratorConfigs could not be read")
                .todo("ask for the right to list acceleratorconfigs.petasus.io")
        });
        return Explanation::not_found(subject, finding);
    };
    let subject = format!("config/{}", config.metadata.name);
    match active.filter(|active| active.metadata.name != config.metadata.name) {
        Some(active) if config.metadata.deletion_timestamp.is_none() => superseded(facts, subject, config, active),
        _ => counting(cluster, subject, config),
    }
}

fn superseded(facts: &Facts, subject: String, config: &ConfigFact, active: &ConfigFact) -> Explanation {
    let (name, older) = (&config.metadata.name, &active.metadata.name);
    let what = format!("AcceleratorConfig {name} does not count: {older} is older, and the oldest counts");
    let finding = Finding::blocks(what)
        .since(config.metadata.creation_timestamp.as_ref())
        .todo(format!("kubectl delete ac {older} to have {name} take over, without a restart of what both ask for; or kubectl edit ac {older}, and delete {name}"));
    let findings = std::iter::once(finding).chain(installation::everywhere(facts)).collect();
    Explanation::of(subject, "one AcceleratorConfig counts: the oldest", vec![], findings)
}

fn counting(cluster: &Cluster<'_>, subject: String, config: &ConfigFact) -> Explanation {
    let facts = cluster.facts;
    let observed = config.observed();
    let mut findings = if config.metadata.deletion_timestamp.is_some() {
        vec![
            Finding::passes(format!(
                "AcceleratorConfig {} is being deleted: DaemonSets and labels go ten seconds after it",
                config.metadata.name
            ))
            .since(config.metadata.deletion_timestamp.as_ref()),
        ]
    } else {
        precondition(cluster)
    };
    let mut lines = vec![];
    if let Some(nodes) = &observed.status.nodes {
        let other = [
            (nodes.without_mode, "without a mode"),
            (nodes.invalid_mode, "with an unknown mode"),
            (nodes.skipped, "skipped"),
        ];
        let other: Vec<_> =
            other.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!(", {number} {what}")).collect();
        lines.push(Line::new(
            "nodes",
            format!("{} container, {} vm-passthrough{}", nodes.container, nodes.vm_passthrough, other.concat()),
        ));
    }
    findings.extend(installation::program(facts, NODE_LABELER));
    let rebellions = observed.spec.as_ref().ok().and_then(|spec| spec.providers.rebellions.as_ref());
    let mut wanted = vec![];
    for component in COMPONENTS.into_iter().filter(|_| rebellions.is_some()) {
        let off = rebellions.and_then(|rebellions| not_deployed(component, rebellions));
        lines.push(Line::new(
            component.name,
            off.as_ref()
                .map_or_else(|| component::line(&observed.status, component), |why| format!("not deployed: {why}")),
        ));
        if off.is_none() {
            wanted.push(component.name);
            findings.extend(component::findings(cluster, &observed, component));
        }
    }
    if rebellions.is_some() && wanted.is_empty() {
        findings.push(
            Finding::note("the spec enables no component: nothing of ours is to run")
                .todo("set enabled: true of the components that you want"),
        );
    }
    findings.extend(invalid_modes(facts));
    findings.extend(ready(&observed));
    findings.extend(driver::rollout(&observed.status));
    findings.extend(installation::everywhere(facts));
    let wanted = match (rebellions.is_some(), wanted.is_empty()) {
        (false, _) => "not known".to_owned(),
        (true, true) => "no component".to_owned(),
        (true, false) => format!("on every node that its mode is for: {}", wanted.join(", ")),
    };
    Explanation::of(subject, wanted, lines, findings)
}

/// Nodes with a typo in their mode: they have no say in `Ready`, and nothing changes on them.
fn invalid_modes(facts: &Facts) -> Option<Finding> {
    use node_labeler::view::WorkloadLabel;
    let is_invalid = |node: &&crate::facts::NodeFact| matches!(node.view().workload, WorkloadLabel::Unknown(_));
    let mut invalid = facts.nodes.iter().filter(is_invalid);
    let first = invalid.next()?;
    let all = 1 + invalid.count();
    let name = &first.metadata.name;
    let what =
        format!("{} with a mode that is none, such as {name}", count(i64::try_from(all).unwrap_or(i64::MAX), "node"));
    Some(Finding::blocks(what).todo(format!("kubectl accelerator explain node/{name}")))
}

/// What the condition Ready says that nothing else does.
fn ready(observed: &ObservedConfig) -> Option<Finding> {
    let condition = current(&observed.status, condition_types::READY)?;
    if condition.status == "True" {
        return None;
    }
    let is = |reason: Reason| condition.reason == reason.as_str();
    let generation = observed.metadata.generation;
    if condition.observed_generation != generation {
        return Some(
            Finding::passes(
                "the condition Ready speaks of an older generation of the spec: node-labeler has not seen the newest",
            )
            .since(Some(&condition.last_transition_time)),
        );
    }
    let what = format!("{} ({}): {}", condition.type_, condition.reason, condition.message);
    let finding = if is(Reason::Contested) || is(Reason::Unreadable) {
        Finding::blocks(what).todo("end what the message names; node-labeler tries again by itself")
    } else {
        Finding::passes(what)
    };
    Some(finding.since(Some(&condition.last_transition_time)))
}

fn current<'a>(status: &'a AcceleratorConfigStatus, kind: &str) -> Option<&'a Condition> {
    status.condition(kind)
}
