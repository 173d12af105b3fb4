//! Whether our programs are there, lead, and fit the definition of AcceleratorConfigs.

use accelerator_api::contract::{COMPONENTS, NODE_LABELER};

use super::finding::Finding;
use crate::facts::{DeploymentFact, Facts, Kind};

/// Why a program does not do its work, if it does not.
#[must_use]
pub fn program(facts: &Facts, program: &str) -> Option<Finding> {
    let leads = facts.lease(program).and_then(|lease| lease.leader(facts.at)).is_some();
    if leads {
        return None;
    }
    let mut deployments = facts.deployments_of(program);
    match (deployments.next(), deployments.next()) {
        (Some(deployment), None) => Some(unable(facts, program, deployment)),
        (Some(_), Some(_)) => two(facts, program),
        (None, _) => absent(facts, program),
    }
}

/// There is a Deployment of it, and nobody leads.
fn unable(facts: &Facts, program: &str, deployment: &DeploymentFact) -> Finding {
    let (namespace, name) = (&deployment.metadata.namespace, &deployment.metadata.name);
    if deployment.spec.replicas == Some(0) {
        return Finding::blocks(format!("{program} does not run: Deployment {namespace}/{name} is scaled to 0"))
            .todo(format!("kubectl -n {namespace} scale deployment {name} --replicas=1"));
    }
    if deployment.status.available_replicas == 0 {
        let refused = deployment.status.conditions.iter().find(|one| one.kind == "ReplicaFailure" && one.is_true());
        let available = deployment.status.conditions.iter().find(|one| one.kind == "Available");
        let why =
            refused.and_then(|one| one.message.as_deref()).map(|message| format!(": {message}")).unwrap_or_default();
        return Finding::blocks(format!(
            "{program} does not run: Deployment {namespace}/{name} has no available pod{why}"
        ))
        .since(available.and_then(|one| one.last_transition_time.as_ref()))
        .todo(format!("kubectl -n {namespace} describe pods -l app.kubernetes.io/name={program}"));
    }
    let lease = facts.lease(program).and_then(|lease| lease.spec.renew_time.as_ref()).map(|time| time.0);
    let what = if *namespace == facts.namespace {
        format!("{program} runs and does not lead: nobody renews the lease {namespace}/{program}")
    } else {
        format!("{program} runs in namespace {namespace}, where this program has not looked for its lease")
    };
    let finding = Finding::blocks(what).since_time(lease);
    if *namespace != facts.namespace {
        return finding.todo(format!("ask again with --namespace {namespace}"));
    }
    finding.todo(format!("kubectl -n {namespace} logs deployment/{name}: it says what keeps it from its lease"))
}

/// There is no Deployment of it, as far as that is known, and nobody leads.
fn absent(facts: &Facts, program: &str) -> Option<Finding> {
    if !facts.knows(Kind::Leases) {
        return None;
    }
    let renewed = facts.lease(program).and_then(|lease| lease.spec.renew_time.as_ref()).map(|time| time.0);
    let what = match (renewed, facts.knows(Kind::Deployments)) {
        (Some(_), true) => {
            format!("{program} is not installed any more: it has no Deployment, and nobody renews its lease")
        }
        (Some(_), false) => format!("{program} does not run: nobody renews its lease"),
        (None, true) => format!("{program} is not installed: there is neither a Deployment nor a lease of it"),
        (None, false) => format!("{program} does not run in namespace {}: there is no lease of it", facts.namespace),
    };
    Some(
        Finding::blocks(what)
            .since_time(renewed)
            .todo(format!("kubectl apply --server-side -k deploy/base/{program}, or the overlay that has it")),
    )
}

/// Several installations of a program, if there are: each undoes what another does.
pub(super) fn two(facts: &Facts, program: &str) -> Option<Finding> {
    let at: Vec<_> =
        facts.deployments_of(program).map(|one| format!("{}/{}", one.metadata.namespace, one.metadata.name)).collect();
    if at.len() < 2 {
        return None;
    }
    let newest = facts
        .deployments_of(program)
        .filter_map(|one| one.metadata.creation_timestamp.as_ref())
        .max_by_key(|time| time.0);
    let what = format!(
        "{program} is installed {} times: {}; each has a lease of its own, so that all of them write",
        at.len(),
        at.join(", ")
    );
    Some(Finding::blocks(what).since(newest).todo("remove all but one: kubectl delete -k the overlay of the others"))
}

/// What is to be said of every program: several installations, and the definition that they rely on.
pub(super) fn everywhere(facts: &Facts) -> Vec<Finding> {
    let programs = std::iter::once(NODE_LABELER).chain(COMPONENTS.map(|component| component.controller));
    let mut findings: Vec<_> = programs.filter_map(|program| two(facts, program)).collect();
    findings.extend(definition(facts));
    findings
}

/// Whether the definition of AcceleratorConfigs is there, and as new as this program.
fn definition(facts: &Facts) -> Option<Finding> {
    let install = "kubectl apply --server-side -k deploy/crds";
    match &facts.crd {
        None if facts.knows(Kind::CustomResourceDefinition) => Some(
            Finding::blocks(
                "there is no definition of AcceleratorConfigs in the cluster (CRD acceleratorconfigs.petasus.io)",
            )
            .todo(install),
        ),
        Some(crd) if crd.is_deleted => Some(
            Finding::blocks(
                "the CRD acceleratorconfigs.petasus.io is being deleted, and every AcceleratorConfig with it",
            )
            .todo(install),
        ),
        Some(crd) if !crd.missing.is_empty() && crd.unknown.is_empty() => {
            let what = format!(
                "the installed CRD is older than this program ({}): it drops {} and others, and so do controllers of this version report less",
                facts.version, crd.missing[0]
            );
            Some(Finding::note(what).todo(install))
        }
        Some(crd) if !crd.unknown.is_empty() => {
            let what = format!(
                "the installed CRD is newer than this program ({}), which does not know {} and others",
                facts.version, crd.unknown[0]
            );
            Some(Finding::note(what).todo("use the plugin of the release that is installed"))
        }
        _ => None,
    }
}

/// A controller that is older than the definition, by the version that it reports or that its image is tagged with.
pub(super) fn outdated(facts: &Facts, program: &str, reported: &str) -> Option<Finding> {
    let tagged =
        || facts.deployments_of(program).next().and_then(|one| one.image().rsplit_once(':')).map(|(_, tag)| tag);
    let version = Some(reported).filter(|version| !version.is_empty()).or_else(tagged)?;
    let (has, known) = (numbers(version)?, numbers(&facts.version)?);
    let crd = facts.crd.as_ref()?;
    if crd.missing.is_empty() && (has < known || !crd.unknown.is_empty() && has <= known) {
        let what = format!(
            "{program} is version {}, older than the installed CRD: it ignores settings that came later",
            version.trim_start_matches('v')
        );
        return Some(
            Finding::blocks(what)
                .todo(format!("update it: apply deploy/base/{program} of the release that the CRD is from")),
        );
    }
    None
}

/// Major, minor and patch.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let plain = version.trim_start_matches('v').split(['-', '+']).next()?;
    let numbers: Vec<u32> = plain.split('.').map_while(|part| part.parse().ok()).collect();
    numbers.try_into().ok()
}
