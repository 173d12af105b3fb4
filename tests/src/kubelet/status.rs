//! A pod's status as a kubelet with containerd writes it.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

/// What a pod's status says of its main containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// They run, and are ready or not.
    Running { ready: bool },
    /// Their image does not exist; the kubelet has just tried, or waits until it tries again.
    ImageMissing { backs_off: bool },
    /// They ended with this code, and the kubelet waits until it starts them again.
    CrashLoop { exit_code: i32 },
    /// They wait with a reason that a test chose.
    Waiting { reason: String },
    /// They have ended because the pod is being deleted; something else keeps the object.
    Ended,
}

impl Shown {
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Running { ready: true })
    }
}

/// Whether a pod says that it is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The patch of a pod's status that shows this.
pub fn patch(pod: &Pod, shown: &Shown, restarts: i32, now: Timestamp) -> Value {
    let now = now.to_string();
    let phase = match shown {
        Shown::ImageMissing { .. } => "Pending",
        Shown::Ended => "Failed",
        _ => "Running",
    };
    let (init, main) = pod.spec.as_ref().map_or((&[][..], &[][..]), |spec| {
        (spec.init_containers.as_deref().unwrap_or_default(), spec.containers.as_slice())
    });
    let mut status = json!({
        "phase": phase,
        "conditions": conditions(pod, shown, &now),
        "initContainerStatuses": init.iter().map(|one| init_container(one, &now)).collect::<Vec<_>>(),
        "containerStatuses": main.iter().map(|one| container(pod, one, shown, restarts, &now)).collect::<Vec<_>>(),
    });
    if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
        status["startTime"] = json!(now);
    }
    json!({"status": status})
}

/// The conditions that are a kubelet's, beside those of others. The time of what does not change stays.
fn conditions(pod: &Pod, shown: &Shown, now: &str) -> Vec<Value> {
    let ready = if shown.is_ready() { "True" } else { "False" };
    let ours = [("Initialized", "True"), ("Ready", ready), ("ContainersReady", ready)];
    let before = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut all: Vec<_> = before
        .iter()
        .filter(|condition| ours.iter().all(|(name, _)| condition.type_ != *name))
        .map(|condition| json!(condition))
        .collect();
    all.extend(ours.map(|(name, status)| {
        let same = before.iter().find(|condition| condition.type_ == name && condition.status == status);
        let since = same.and_then(|condition| condition.last_transition_time.as_ref());
        let since = since.map_or_else(|| now.to_owned(), |time| time.0.to_string());
        let mut condition = json!({"type": name, "status": status, "lastTransitionTime": since});
        if status == "False" {
            condition["reason"] = json!("ContainersNotReady");
            let names = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str());
            let names = names.collect::<Vec<_>>().join(" ");
            condition["message"] = json!(format!("containers with unready status: [{names}]"));
        }
        condition
    }));
    all
}

fn init_container(container: &Container, now: &str) -> Value {
    let is_sidecar = container.restart_policy.as_deref() == Some("Always");
    let state = if is_sidecar {
        json!({"running": {"startedAt": now}})
    } else {
        json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}})
    };
    json!({"name": container.name, "image": container.image, "imageID": "simulated", "ready": true,
           "started": is_sidecar, "restartCount": 0, "state": state})
}

fn container(pod: &Pod, container: &Container, shown: &Shown, restarts: i32, now: &str) -> Value {
    let image = container.image.as_deref().unwrap_or_default();
    let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}});
    let (state, image_id) = match shown {
        Shown::Running { .. } => (json!({"running": {"startedAt": now}}), "simulated"),
        Shown::ImageMissing { backs_off } => (pull_failed(image, *backs_off), ""),
        Shown::CrashLoop { .. } => {
            let place = format!("{}_{}({})", pod.name_any(), pod.namespace().unwrap_or_default(), uid(pod));
            let name = &container.name;
            let message = format!("back-off 10s restarting failed container={name} pod={place}");
            (json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}), "simulated")
        }
        Shown::Waiting { reason } => (json!({"waiting": {"reason": reason, "message": "simulated"}}), ""),
        Shown::Ended => (ended(137, "Error"), "simulated"),
    };
    let mut status = json!({
        "name": container.name, "image": image, "imageID": image_id, "restartCount": restarts, "state": state,
        "ready": shown.is_ready(), "started": matches!(shown, Shown::Running { ready: true }),
    });
    if let Shown::CrashLoop { exit_code } = shown {
        status["lastState"] = ended(*exit_code, "Error");
    }
    status
}

/// What containerd answers when a registry has no such image, in the kubelet's words.
fn pull_failed(image: &str, backs_off: bool) -> Value {
    let cause = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": failed to resolve reference \
         \"{image}\": {image}: not found"
    );
    if backs_off {
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
        json!({"waiting": {"reason": "ImagePullBackOff", "message": message}})
    } else {
        json!({"waiting": {"reason": "ErrImagePull", "message": cause}})
    }
}

/// A pod's identity.
pub fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}
