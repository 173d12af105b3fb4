//! What an event tells of a pod that its status leaves open.

use k8s_openapi::api::core::v1::EventSeries;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::pod_problem::{PodProblem, ProblemKind, Unexplained, clip};

/// How long an event counts that is not repeated. The kubelet repeats the same failure every two minutes, and tells of one
/// pod's probe every five minutes at least.
const COUNTS: SignedDuration = SignedDuration::from_mins(10);

/// An event, of which only what it is about and what it says is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    metadata: Metadata,
    #[serde(default)]
    involved_object: About,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    last_timestamp: Option<Time>,
    event_time: Option<MicroTime>,
    series: Option<EventSeries>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct About {
    kind: String,
    name: String,
}

impl EventView {
    /// Its resource version; empty in a list that has none.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_deref().unwrap_or_default()
    }

    /// Kind and name of what it is about.
    pub(crate) fn about(&self) -> (&str, &str) {
        (&self.involved_object.kind, &self.involved_object.name)
    }

    /// Why a DaemonSet's pod could not be made, if it tells that.
    pub(crate) fn is_failed_create(&self) -> bool {
        self.reason == "FailedCreate"
    }

    /// What it says, and when it was said last.
    pub(crate) fn said(&self) -> Option<Said> {
        let series = self.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
        let times = [series.map(|time| time.0), self.event_time.as_ref().map(|time| time.0)];
        let at = times.into_iter().chain([self.last_timestamp.as_ref().map(|time| time.0)]).flatten().max()?;
        Some(Said { reason: self.reason.clone(), message: clip(&self.message), at })
    }
}

/// What an event said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

impl Said {
    /// What of a pod it can explain; `None` when it says nothing that the pod's status does not say.
    pub(crate) fn explains(&self) -> Option<Unexplained> {
        match self.reason.as_str() {
            "Unhealthy" => Some(Unexplained::Probe),
            // `Error: ErrImagePull` and the like only repeat the status.
            "Failed" if !self.message.strip_prefix("Error: ").unwrap_or(&self.message).contains(' ') => None,
            "Failed" if self.message.starts_with("Failed to pull image") => Some(Unexplained::Pull),
            "BackOff" | "FailedScheduling" | "FailedToRetrieveImagePullSecret" => None,
            _ => Some(Unexplained::Start),
        }
    }

    /// Adds to a problem what this tells of it.
    pub(crate) fn explain(&self, problem: &mut PodProblem, now: Timestamp) {
        let fits = match (problem.unexplained, self.explains()) {
            // A pull that is tried again shows as starting.
            (Some(Unexplained::Start), Some(Unexplained::Pull)) => true,
            (open, told) => open.is_some() && open == told,
        };
        if !fits || now.duration_since(self.at) > COUNTS {
            return;
        }
        match problem.unexplained {
            Some(Unexplained::Start) => {
                problem.kind = ProblemKind::Failing;
                problem.reason = format!("{}: {}", problem.reason, self.reason);
                problem.cause = Some(self.message.clone());
            }
            Some(Unexplained::Probe) => {
                let words = self.message.split_once(" probe failed: ").map_or(self.message.as_str(), |(_, rest)| rest);
                problem.cause = Some(words.to_owned());
            }
            Some(Unexplained::Pull) => problem.cause = Some(self.message.clone()),
            None => {}
        }
        problem.unexplained = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PodView;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().expect("a time")
    }

    fn explained(status: &serde_json::Value, reason: &str, message: &str, at: &str) -> String {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": status});
        let pod: PodView = serde_json::from_value(pod).expect("a pod");
        let mut problem = PodProblem::of(&pod, now()).expect("a problem");
        let event = json!({"metadata": {}, "involvedObject": {"kind": "Pod", "name": "p"},
            "reason": reason, "message": message, "lastTimestamp": at});
        let event: EventView = serde_json::from_value(event).expect("an event");
        event.said().expect("a time").explain(&mut problem, now());
        problem.to_string()
    }

    #[test]
    fn the_kubelets_events_explain_what_the_status_leaves_open() {
        let state = |reason: &str, message: &str| {
            json!({"phase": "Pending", "containerStatuses": [{"name": "c", "ready": false,
                "state": {"waiting": {"reason": reason, "message": message}}}]})
        };
        let running = json!({"phase": "Running"});
        let creating = state("ContainerCreating", "");
        let back_off = state("ImagePullBackOff", "Back-off pulling image \"x\"");
        let fresh = "2026-01-01T00:09:00Z";
        let cases = [
            (
                &creating,
                "FailedMount",
                "hostPath type check failed: /dev/x is not a directory",
                fresh,
                "n (ContainerCreating: FailedMount: hostPath type check failed: /dev/x is not a directory)",
            ),
            (
                &creating,
                "FailedCreatePodSandBox",
                "no CNI plugin",
                fresh,
                "n (ContainerCreating: FailedCreatePodSandBox: no CNI plugin)",
            ),
            (
                &creating,
                "Failed",
                "Failed to pull image \"x\": 401 Unauthorized",
                fresh,
                "n (ContainerCreating: Failed: Failed to pull image \"x\": 401 Unauthorized)",
            ),
            (&creating, "Failed", "Error: ErrImagePull", fresh, "n (ContainerCreating)"),
            (&creating, "BackOff", "Back-off restarting failed container", fresh, "n (ContainerCreating)"),
            (&creating, "FailedMount", "old", "2025-12-31T23:00:00Z", "n (ContainerCreating)"),
            (&creating, "Unhealthy", "Readiness probe failed: x", fresh, "n (ContainerCreating)"),
            (
                &back_off,
                "Failed",
                "Failed to pull image \"x\": 404 Not Found",
                fresh,
                "n (ImagePullBackOff: Failed to pull image \"x\": 404 Not Found)",
            ),
            (
                &running,
                "Unhealthy",
                "Readiness probe failed: 1 of 2 NPUs are on vfio-pci",
                fresh,
                "n (not ready: 1 of 2 NPUs are on vfio-pci)",
            ),
            (&running, "FailedMount", "x", fresh, "n (not ready)"),
        ];
        for (status, reason, message, at, expected) in cases {
            assert_eq!(explained(status, reason, message, at), expected);
        }
    }
}
