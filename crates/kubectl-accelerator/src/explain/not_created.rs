//! Why a pod that a DaemonSet wants does not exist: the API server refused it, in words that tell who.

use k8s_openapi::jiff::SignedDuration;

use super::finding::Finding;
use crate::facts::{DaemonSetFact, EventFact, Facts};

/// How long a refusal counts that is not repeated: the DaemonSet controller tries again within 15 minutes at most.
const COUNTS: SignedDuration = SignedDuration::from_mins(20);

/// The newest refusal of a pod of this DaemonSet.
pub(super) fn refusal(facts: &Facts, daemon_set: &DaemonSetFact) -> Option<Finding> {
    let name = &daemon_set.metadata.name;
    let is_recent = |event: &&EventFact| event.at().is_none_or(|at| facts.at.duration_since(at) <= COUNTS);
    let refused =
        facts.events.iter().filter(|event| event.reason == "FailedCreate" && event.is_about("DaemonSet", name));
    let newest = refused.filter(is_recent).max_by_key(|event| event.at())?;
    let finding = told(facts, name, &newest.message);
    Some(finding.since_time(newest.at()))
}

/// What a refusal means. The words are the API server's: of the quota, Pod Security, priority and namespace admission
/// plugins, of webhooks and of admission policies.
pub(super) fn told(facts: &Facts, of: &str, message: &str) -> Finding {
    let namespace = &facts.operand_namespace;
    let words = short(message);
    let blocks = |cause: &str| Finding::blocks(format!("pods of {of} cannot be made: {cause}: {words}"));
    if message.contains("exceeded quota") || message.contains("failed quota") {
        let full: Vec<_> = facts.quotas.iter().filter_map(exhausted).collect();
        let which = if full.is_empty() { String::new() } else { format!(" ({})", full.join("; ")) };
        return blocks(&format!("a quota of namespace {namespace} is used up{which}"))
            .todo(format!("kubectl -n {namespace} describe quota; raise it, or move what else runs there"));
    }
    if message.contains("violates PodSecurity") {
        let level = facts.namespaces.iter().find(|one| one.metadata.name == *namespace);
        let level = level.and_then(|one| one.metadata.label("pod-security.kubernetes.io/enforce"));
        let is = level.map_or_else(|| "the cluster's default".to_owned(), |level| format!("the level {level}"));
        return blocks(&format!("Pod Security refuses privileged pods, namespace {namespace} has {is}")).todo(format!(
            "kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged"
        ));
    }
    if message.contains("admission webhook") || message.contains("calling webhook") {
        let webhook = message.split('"').nth(1).unwrap_or("of the cluster");
        let cause = if message.contains("denied the request") { "refuses them" } else { "cannot be asked" };
        return blocks(&format!("the admission webhook {webhook} {cause}"))
            .todo(format!("have the webhook {webhook} leave namespace {namespace} out, or bring it back"));
    }
    if message.contains("ValidatingAdmissionPolicy") {
        return blocks("an admission policy refuses them")
            .todo(format!("have the policy leave namespace {namespace} out, or change the setting that it names"));
    }
    if message.contains("PriorityClass") {
        return blocks("their priority class does not exist")
            .todo("set spec.providers.rebellions.daemonsets.priorityClassName to one that exists, or create it");
    }
    if message.contains("serviceaccount") {
        return blocks("their service account does not exist")
            .todo(format!("kubectl apply --server-side -k deploy/base/{of}-controller: it makes the account"));
    }
    if message.contains("is being terminated") {
        return blocks(&format!("namespace {namespace} is being deleted"))
            .todo("apply the overlay again when it is gone");
    }
    blocks("the API server refuses them").todo("change what the message names; it is tried again by itself")
}

/// A quota of which something is used up, in words.
fn exhausted(quota: &crate::facts::QuotaFact) -> Option<String> {
    let full = quota.status.hard.iter().find(|(resource, hard)| quota.status.used.get(*resource) == Some(hard))?;
    Some(format!("{}: {} of {} {}", quota.metadata.name, full.1, full.1, full.0))
}

/// The end of a refusal: what is in front repeats the pod's name.
fn short(message: &str) -> &str {
    let message = message.strip_prefix("Error creating: ").unwrap_or(message);
    message.split_once(" is forbidden: ").map_or(message, |(_, rest)| rest)
}
