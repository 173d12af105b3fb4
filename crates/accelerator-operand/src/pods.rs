//! What is wrong with an operand's pods, in words that name the node.

use std::fmt;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

/// How many pods a message names before it only counts.
const NAMED: usize = 3;

/// A pod that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// The node that it is on or meant for; empty when that is not known.
    pub node: String,
    /// What it waits for: `CrashLoopBackOff`, `Unschedulable: …`, `not ready`.
    pub why: String,
    /// How bad it is: more is named first.
    severity: u8,
}

/// The pods that are not ready, worst first and then by node.
#[must_use]
pub fn troubles<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<PodTrouble> {
    let mut troubles: Vec<_> = pods.into_iter().filter_map(trouble).collect();
    troubles.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.node.cmp(&b.node)));
    troubles
}

/// Up to three of them, as part of a sentence; empty when there are none.
pub(crate) fn summary(troubles: &[PodTrouble], unready: i64) -> String {
    if troubles.is_empty() {
        return String::new();
    }
    let named: Vec<_> = troubles.iter().take(NAMED).map(ToString::to_string).collect();
    let more = unready.saturating_sub(i64::try_from(named.len()).unwrap_or(i64::MAX));
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(": {}{rest}", named.join(", "))
}

impl PodTrouble {
    /// A pod that could not even be made, in the words of the DaemonSet controller's event.
    #[must_use]
    pub fn not_created(message: &str) -> Self {
        Self { node: String::new(), why: explain("FailedCreate", Some(message)), severity: 6 }
    }
}

impl fmt::Display for PodTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = if self.node.is_empty() { "no node" } else { &self.node };
        write!(f, "{node} ({})", self.why)
    }
}

fn trouble(pod: &Pod) -> Option<PodTrouble> {
    let status = pod.status.as_ref();
    let is = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == kind)
    };
    if pod.metadata.deletion_timestamp.is_none() && is("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let unschedulable = is("PodScheduled").filter(|scheduled| scheduled.status == "False");
    let (severity, why) = if pod.metadata.deletion_timestamp.is_some() {
        (1, "terminating".to_owned())
    } else if let Some(failed) = status.filter(|status| status.phase.as_deref() == Some("Failed")) {
        (4, explain("Failed", failed.message.as_deref().or(failed.reason.as_deref())))
    } else if let Some(scheduled) = unschedulable {
        (3, explain(scheduled.reason.as_deref().unwrap_or("Unschedulable"), scheduled.message.as_deref()))
    } else {
        status.and_then(container_trouble).unwrap_or((0, "not ready".to_owned()))
    };
    Some(PodTrouble { node: node(pod), why, severity })
}

/// The first container that waits for something or died, init containers before the others.
fn container_trouble(status: &PodStatus) -> Option<(u8, String)> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    let troubles = lists.into_iter().flatten().flatten().filter_map(one_container);
    troubles.max_by_key(|(severity, _)| *severity)
}

fn one_container(container: &ContainerStatus) -> Option<(u8, String)> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        // Starting is not failing: the kubelet uses these two names while all goes well.
        return Some(match reason {
            "ContainerCreating" | "PodInitializing" => (0, reason.to_owned()),
            _ => (5, explain(reason, waiting.message.as_deref())),
        });
    }
    let failed = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0)?;
    Some((5, format!("container {} exited with code {}", container.name, failed.exit_code)))
}

/// A reason with as much of its message as a condition can hold.
fn explain(reason: &str, message: Option<&str>) -> String {
    match message.map(|message| message.lines().next().unwrap_or_default()) {
        None | Some("") => reason.to_owned(),
        Some(line) => {
            let clipped: String = line.chars().take(160).collect();
            let dots = if clipped.len() < line.len() { "…" } else { "" };
            format!("{reason}: {clipped}{dots}")
        }
    }
}

/// The node that the pod is on, or the one that the DaemonSet controller made it for: it pins each pod to its node by a
/// required affinity to the node's name.
fn node(pod: &Pod) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    let pinned = || {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        fields.filter(|field| field.key == "metadata.name").find_map(|field| field.values.as_ref()?.first().cloned())
    };
    spec.node_name.clone().filter(|name| !name.is_empty()).or_else(pinned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(node: &str, status: &Value) -> Pod {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": []}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"phase": "Running", "containerStatuses": [{
            "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": reason, "message": message}},
        }]})
    }

    #[test]
    fn ready_pods_are_no_trouble() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(troubles([&pod("n", &ready)]), []);
    }

    #[test]
    fn the_worst_pod_comes_first_and_says_why() {
        let pods = [
            pod("c", &waiting("ContainerCreating", "")),
            pod("b", &waiting("ImagePullBackOff", "Back-off pulling image \"x\"\nmore")),
            pod("a", &json!({"phase": "Running"})),
            pod("d", &json!({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"})),
        ];
        let troubles = troubles(&pods);
        assert_eq!(
            summary(&troubles, 9),
            ": b (ImagePullBackOff: Back-off pulling image \"x\"), d (Failed: disk pressure), a (not ready) and 6 more"
        );
    }

    #[test]
    fn a_pod_without_a_node_names_the_one_it_was_made_for() {
        let mut pod = pod(
            "",
            &json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu."}]}),
        );
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]}]}}});
        pod.spec.as_mut().expect("a spec").affinity = serde_json::from_value(affinity).expect("an affinity");
        assert_eq!(summary(&troubles([&pod]), 1), ": node-7 (Unschedulable: Insufficient cpu.)");
    }
}
