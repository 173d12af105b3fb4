//! Why a pod is not ready: what the controllers make of its status and its kubelet's events, and what to do.

use accelerator_api::contract::{Component, DRIVER_KERNEL_ANNOTATION};
use accelerator_operand::{EventView, PodProblems};
use serde_json::json;

use super::finding::{Finding, Weight};
use super::vfio;
use crate::facts::{Facts, PodFact};

/// Why a pod is not ready: words for its row, and a finding. `None` when it is ready.
pub(super) fn problem(facts: &Facts, component: &Component, pod: &PodFact) -> Option<(String, Finding)> {
    if pod.is_ready() {
        return None;
    }
    let (node, name) = (pod.node(), pod.full_name());
    let words = words(facts, pod).unwrap_or_else(|| Words { text: "not ready".into(), is_failure: false });
    let restarts = if pod.restarts() > 1 { format!(", {} restarts", pod.restarts()) } else { String::new() };
    let row = format!("pod {}: {}{restarts}", pod.metadata.name, vfio::named(facts, &words.text));
    let finding = match vfio::told(facts, &node, &words.text) {
        Some(finding) => Finding { what: format!("{} on node {node}: {}", component.name, finding.what), ..finding },
        None => advise(facts, component, pod, &words),
    };
    Some((row, finding.since(pod.since()).todo_if_none(&name)))
}

impl Finding {
    /// Where nothing better is known, the pod itself.
    fn todo_if_none(self, pod: &str) -> Self {
        if self.weight == Weight::Blocks && self.todo.is_empty() {
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            return self.todo(format!("kubectl -n {namespace} describe pod {name}"));
        }
        self
    }
}

/// What is wrong with a pod, in the controllers' words.
struct Words {
    text: String,
    is_failure: bool,
}

fn words(facts: &Facts, pod: &PodFact) -> Option<Words> {
    let view = pod.view()?;
    // A DaemonSet's pods are named like it, with five random characters behind.
    let daemon_set = pod.metadata.name.rsplit_once('-').map_or("", |(name, _)| name);
    let mut problems = PodProblems::new(daemon_set);
    problems.apply(&view, facts.at);
    for event in facts.events.iter().filter(|event| event.is_about("Pod", &pod.metadata.name)) {
        if let Ok(view) = serde_json::from_value::<EventView>(json!(event)) {
            problems.apply_event(&view);
        }
    }
    let findings = problems.findings(false, facts.at);
    let problem = findings.named().first()?;
    let cause = problem.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    Some(Words { text: format!("{}{cause}", problem.reason), is_failure: problem.kind.is_failure() })
}

/// What to do about a pod.
fn advise(facts: &Facts, component: &Component, pod: &PodFact, words: &Words) -> Finding {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    let kernel = pod.metadata.annotations.get(DRIVER_KERNEL_ANNOTATION);
    let kernel = kernel.map(|kernel| format!(", of the driver for kernel {kernel}")).unwrap_or_default();
    let what = format!("pod {}{kernel}: {}", pod.full_name(), words.text);
    let has = |word: &str| words.text.contains(word);
    let path = component.path;
    let image = || pod.spec.containers.first().map(|main| main.image.as_str()).unwrap_or_default();
    if has("the node is not ready") {
        return Finding::blocks(what).todo(format!("bring node {} back", pod.node()));
    }
    if has("terminating for longer") {
        return Finding::blocks(what).todo(format!("look at the finalizers of pod {} and at the kubelet of node {}: a container that cannot be killed often waits for a device", pod.full_name(), pod.node()));
    }
    if has("ImagePull") || has("RegistryUnavailable") || has("InvalidImageName") {
        let secret =
            has("401") || has("403") || has("unauthorized") || has("denied") || has("FailedToRetrieveImagePullSecret");
        let step = if secret {
            format!(
                "see whether the pull secret is in namespace {namespace} and named in {path}.image.imagePullSecrets"
            )
        } else {
            format!("push {}, or change {path}.image; the kubelet tries again by itself", image())
        };
        return Finding::blocks(what).todo(step);
    }
    if has("OOMKilled") {
        return Finding::blocks(what).todo(format!("raise {path}.resources.limits.memory"));
    }
    if has("Insufficient") || has("Unschedulable") {
        return Finding::blocks(what)
            .todo(format!("make room on node {}, or lower {path}.resources.requests", pod.node()));
    }
    if has("CrashLoopBackOff") || has("restarted") || has("exited with code") {
        return Finding::blocks(what).todo(format!("kubectl -n {namespace} logs {name} --all-containers --previous"));
    }
    if has("FailedMount") || has("FailedCreatePodSandBox") || has("CreateContainer") || has("RunContainerError") {
        return Finding::blocks(what)
            .todo(format!("mend what the message names on node {}; the kubelet tries again by itself", pod.node()));
    }
    if words.is_failure {
        return Finding::blocks(what);
    }
    let waits = pod.since().map(|since| facts.at.duration_since(since.0));
    if has("not ready") && waits.is_some_and(|waits| waits.as_mins() >= 10) {
        return Finding::blocks(what).todo(format!("kubectl -n {namespace} logs {name}; its readiness probe fails"));
    }
    let is_starting = has("starting") || has("Creating") || has("Initializing");
    if is_starting && waits.is_some_and(|waits| waits.as_mins() >= 15) {
        return Finding::blocks(what)
            .todo(format!("kubectl -n {namespace} describe pod {name}: it has been starting for long"));
    }
    Finding::passes(what)
}
