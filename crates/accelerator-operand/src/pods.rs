//! What is wrong with an operand's pods, in words that name the node.

use std::fmt;

use k8s_openapi::api::core::v1::Affinity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

/// What is said of a pod that runs and is not ready.
const NOT_READY: &str = "not ready";

/// How many pods a message names before it only counts.
const NAMED: usize = 3;

/// What is read of a pod. Whole pods are large, and memory that was needed once is hardly ever given back.
#[derive(Debug, Deserialize)]
pub struct PodView {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
    affinity: Option<Affinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    reason: Option<String>,
    message: Option<String>,
    conditions: Vec<PodCondition>,
    init_container_statuses: Vec<Container>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    last_state: State,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Deserialize)]
struct Waiting {
    reason: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
    message: Option<String>,
}

/// A pod that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// The node that it is on or meant for; empty when that is not known.
    pub node: String,
    /// Its name; empty when it could not even be made.
    pub pod: String,
    /// What it waits for: `CrashLoopBackOff`, `Unschedulable: …`, `not ready`.
    pub why: String,
    /// How bad it is: more is named first.
    severity: u8,
}

/// The pods that are not ready, worst first and then by node.
#[must_use]
pub fn troubles<'a>(pods: impl IntoIterator<Item = &'a PodView>) -> Vec<PodTrouble> {
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
        Self { node: String::new(), pod: String::new(), why: explain("FailedCreate", Some(message)), severity: 6 }
    }
}

impl PodTrouble {
    /// The pod, if nothing in it tells what it waits for.
    #[must_use]
    pub fn unexplained(&self) -> Option<&str> {
        (self.severity == 0 && self.why == NOT_READY && !self.pod.is_empty()).then_some(self.pod.as_str())
    }

    /// Whether it does not pass by itself, as starting does.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.severity >= 3
    }

    /// Takes over what the kubelet says of the pod's probe.
    pub fn explain_by_probe(&mut self, message: &str) {
        self.why = explain(NOT_READY, Some(message.trim_start_matches("Readiness probe failed: ")));
    }
}

impl fmt::Display for PodTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node.as_str() {
            "" => f.write_str(&self.why),
            node => write!(f, "{node} ({})", self.why),
        }
    }
}

fn trouble(pod: &PodView) -> Option<PodTrouble> {
    let status = &pod.status;
    let is = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind);
    let is_going = pod.metadata.deletion_timestamp.is_some();
    if !is_going && is("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let unschedulable = is("PodScheduled").filter(|scheduled| scheduled.status == "False");
    let (severity, why) = if is_going {
        (1, "terminating".to_owned())
    } else if status.phase == "Failed" {
        (4, explain("Failed", status.message.as_deref().or(status.reason.as_deref())))
    } else if let Some(scheduled) = unschedulable {
        (3, explain(scheduled.reason.as_deref().unwrap_or("Unschedulable"), scheduled.message.as_deref()))
    } else {
        container_trouble(status).unwrap_or((0, NOT_READY.to_owned()))
    };
    Some(PodTrouble { node: node(&pod.spec), pod: pod.metadata.name.clone(), why, severity })
}

/// The first container that waits for something or died, init containers before the others.
fn container_trouble(status: &Status) -> Option<(u8, String)> {
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    // The last of equals is taken.
    containers.rev().filter_map(one_container).max_by_key(|(severity, _)| *severity)
}

fn one_container(container: &Container) -> Option<(u8, String)> {
    if let Some(waiting) = &container.state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        // What it said when it died tells more than that it waits to be started again.
        let last_words = container.last_state.terminated.as_ref().and_then(last_words);
        // Starting is not failing: the kubelet uses these two names while all goes well.
        return Some(match reason {
            "ContainerCreating" | "PodInitializing" => (0, reason.to_owned()),
            _ => (5, explain(reason, last_words.or(waiting.message.as_deref()))),
        });
    }
    let failed = container.state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0)?;
    let how = format!("container {} exited with code {}", container.name, failed.exit_code);
    Some((5, explain(&how, last_words(failed))))
}

/// The last line that a container left behind, where its manifest asks for it.
fn last_words(terminated: &Terminated) -> Option<&str> {
    terminated.message.as_deref()?.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// A reason with as much of its message as a condition can hold.
fn explain(reason: &str, message: Option<&str>) -> String {
    match message.map(|message| message.lines().next().unwrap_or_default()) {
        None | Some("") => reason.to_owned(),
        Some(line) => {
            let clipped: String = line.chars().take(240).collect();
            let dots = if clipped.len() < line.len() { "…" } else { "" };
            format!("{reason}: {clipped}{dots}")
        }
    }
}

/// The node that the pod is on, or the one that the DaemonSet controller made it for: it pins each pod to its node by a
/// required affinity to the node's name.
fn node(spec: &Spec) -> String {
    let pinned = || {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
        let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
        fields.filter(|field| field.key == "metadata.name").find_map(|field| field.values.as_ref()?.first().cloned())
    };
    Some(spec.node_name.clone()).filter(|name| !name.is_empty()).or_else(pinned).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(node: &str, status: &Value) -> PodView {
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
    fn a_pod_that_just_is_not_ready_is_explained_by_its_probe() {
        let mut troubles =
            troubles([&pod("n", &json!({"phase": "Running"})), &pod("m", &waiting("ImagePullBackOff", ""))]);
        assert_eq!(troubles[0].unexplained(), None);
        assert_eq!(troubles[1].unexplained(), Some("p"));
        troubles[1].explain_by_probe("Readiness probe failed: 1 of 2 NPUs are on vfio-pci\nmore");
        assert_eq!(troubles[1].to_string(), "n (not ready: 1 of 2 NPUs are on vfio-pci)");
    }

    #[test]
    fn a_container_that_left_a_message_is_quoted() {
        let status = json!({"initContainerStatuses": [{
            "name": "give-back",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
            "lastState": {"terminated": {"exitCode": 3, "message": "looking\n0000:03:00.0 is held by a virtual machine\n"}},
        }]});
        let troubles = troubles(&[pod("n", &status)]);
        assert_eq!(summary(&troubles, 1), ": n (CrashLoopBackOff: 0000:03:00.0 is held by a virtual machine)");
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
        pod.spec.affinity = serde_json::from_value(affinity).expect("an affinity");
        assert_eq!(summary(&troubles([&pod]), 1), ": node-7 (Unschedulable: Insufficient cpu.)");
    }
}
