//! What keeps pods off a node: it is not ready, or it has a taint that they do not tolerate.

use accelerator_api::Toleration;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use node_labeler::exclusion::{Exclusion, exclusion};

use super::NodeContext;
use super::finding::Finding;
use crate::facts::{DaemonSetFact, NodeFact};

/// How long a kubelet may take to report for the first time.
const JOINING: SignedDuration = SignedDuration::from_mins(5);

/// Why its kubelet is not ready, if it is not.
pub(super) fn kubelet(node: &NodeFact, now: Timestamp) -> Option<Finding> {
    let name = &node.metadata.name;
    if node.is_ready() {
        return None;
    }
    let Some(ready) = node.ready() else {
        let made = node.metadata.creation_timestamp.as_ref();
        let what = format!("the kubelet of node {name} has not reported yet");
        let is_late = made.is_some_and(|made| now.duration_since(made.0) > JOINING);
        let finding = if is_late {
            Finding::blocks(what).todo(format!("see whether the kubelet of {name} runs and reaches the API server"))
        } else {
            Finding::passes(what)
        };
        return Some(finding.since(made));
    };
    let why = if ready.status == "Unknown" { "its kubelet does not answer" } else { "its kubelet says so" };
    let message = ready.message.as_ref().filter(|message| !message.is_empty()).map(|message| format!(": {message}"));
    let reason = ready.reason.as_deref().unwrap_or_default();
    let what = format!("node {name} is not ready: {why} ({reason}{})", message.unwrap_or_default());
    let finding = Finding::blocks(what).since(ready.last_transition_time.as_ref());
    Some(
        finding
            .todo(format!("kubectl describe node {name}; bring it back, or delete the Node when the machine is gone")),
    )
}

/// The taint that keeps a DaemonSet's pods off a node, if one does.
pub(super) fn taint(context: &NodeContext<'_>, daemon_set: &DaemonSetFact) -> Option<Finding> {
    let tolerations: &[Toleration] = &daemon_set.spec.template.spec.tolerations;
    let Some(Exclusion::Taint(taint)) = exclusion(&context.node.with_taints(), tolerations) else { return None };
    let meta = &context.node.metadata;
    let writer = meta.spec_writer("taints");
    let by = writer.map(|writer| format!(", set by {}", writer.manager)).unwrap_or_default();
    let what =
        format!("pods of {} do not tolerate the taint {taint} of node {}{by}", daemon_set.metadata.name, meta.name);
    let (key, effect) = taint.rsplit_once(':').unwrap_or((&taint, ""));
    let key = key.split('=').next().unwrap_or(key);
    let finding = Finding::blocks(what).since(writer.and_then(|writer| writer.at));
    Some(finding.todo(format!(
        "add {{key: {key}, operator: Exists, effect: {effect}}} to spec.providers.rebellions.daemonsets.tolerations, or remove the taint"
    )))
}
