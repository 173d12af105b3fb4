//! Reads a pod of the driver.

use accelerator_api::contract::{DRIVER_INSTALL_ANNOTATION, DRIVER_KERNEL_ANNOTATION, DRIVER_POOL_LABEL};
use accelerator_operand::PodProblem;
use accelerator_runtime::{Stored, version_of};
use k8s_openapi::jiff::Timestamp;

use super::decode::{ContainerStatus, Fields, Waiting};
use super::{DriverPod, Pod};

impl Stored for DriverPod {
    fn version(&self) -> u64 {
        self.version
    }
}

impl DriverPod {
    /// Reads a pod at this time.
    #[must_use]
    pub fn of(pod: Pod, now: Timestamp) -> Self {
        let problem = PodProblem::of(&pod.view, now).map(|problem| match problem.cause {
            Some(cause) => format!("{}: {cause}", problem.reason),
            None => problem.reason,
        });
        let Pod { fields, view } = pod;
        let is_image_missing = is_image_missing(&fields);
        let Fields { metadata, owners, spec, status } = fields;
        let version = version_of(&metadata);
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let containers = || status.init_container_statuses.iter().chain(&status.container_statuses);
        // A pod of a release before this one does not say what it installs, and is what it is.
        let own = || spec.containers.first().map(|main| main.install.digest()).unwrap_or_default();
        Self {
            version,
            node: view.node(),
            pool: label(DRIVER_POOL_LABEL),
            install: annotation(DRIVER_INSTALL_ANNOTATION).unwrap_or_else(own),
            is_owned: owners.iter().any(|owner| owner.controller),
            kernel: annotation(DRIVER_KERNEL_ANNOTATION),
            is_ready: view.is("Ready"),
            is_terminating: metadata.deletion_timestamp.is_some(),
            has_begun: containers().any(ContainerStatus::has_begun),
            restarts: containers().map(|one| one.restart_count).sum(),
            problem,
            is_image_missing,
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
        }
    }
}

/// Whether the main container waits for an image that the registry says it does not have. A registry that cannot be reached, or
/// does not let us in, has not said so.
fn is_image_missing(pod: &Fields) -> bool {
    let Some(main) = pod.spec.containers.first() else { return false };
    let status = pod.status.container_statuses.iter().find(|status| status.name == main.name);
    status.and_then(|status| status.state.waiting.as_ref()).is_some_and(|waiting: &Waiting| {
        matches!(waiting.reason.as_str(), "ErrImagePull" | "ImagePullBackOff") && says_missing(&waiting.message)
    })
}

/// What containerd and CRI-O say of an image that does not exist.
fn says_missing(message: &str) -> bool {
    ["code = NotFound", ": not found", "manifest unknown", "name unknown"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn read(pod: Value) -> DriverPod {
        DriverPod::of(serde_json::from_value(pod).expect("a pod"), NOW)
    }

    fn with_main(state: &Value) -> DriverPod {
        let status =
            json!({"name": "main", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        read(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "i:1"}]},
                    "status": {"phase": "Pending", "containerStatuses": [status]}}))
    }

    #[test]
    fn everything_that_decisions_need_is_read() {
        let pod = read(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "namespace": "rebellions", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2023-11-14T22:13:20Z",
                "labels": {"rebellions.ai/npu-driver-pool": "pool"},
                "annotations": {"petasus.io/driver-install": "digest", "petasus.io/driver-kernel": "5.15.0"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "x", "controller": true}],
            },
            "spec": {"nodeName": "n", "initContainers": [{"name": "init"}], "containers": [{"name": "main", "image": "i:1"}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": [{"name": "init", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}}],
                "containerStatuses": [{"name": "main", "restartCount": 1, "ready": true, "state": {"running": {}}}],
            },
        }));
        let expected = DriverPod {
            name: "p".into(),
            uid: "u".into(),
            version: 7,
            node: "n".into(),
            pool: Some("pool".into()),
            install: "digest".into(),
            is_owned: true,
            kernel: Some("5.15.0".into()),
            is_ready: true,
            has_begun: true,
            restarts: 3,
            created: Some(NOW),
            ..DriverPod::default()
        };
        assert_eq!(pod, expected);
    }

    #[test]
    fn a_pod_of_the_release_before_is_what_its_main_container_is() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "m", "image": "i:1", "args": ["init"], "env": [{"name": "A", "value": "1"}], "resources": {"limits": {"cpu": "1"}}},
            {"name": "second", "image": "x"},
        ]}});
        let spec = serde_json::from_value(pod["spec"].clone()).expect("a spec");
        assert_eq!(read(pod).install, crate::install::Install::of(&spec).expect("a container").digest());
    }

    #[test]
    fn a_pod_that_waits_for_its_node_is_meant_for_it() {
        let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]});
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
        let pod = read(
            json!({"metadata": {"name": "p", "deletionTimestamp": "2023-11-14T22:13:20Z"}, "spec": {"affinity": affinity}}),
        );
        assert_eq!((pod.node.as_str(), pod.is_terminating, pod.has_begun), ("n", true, false));
    }

    #[test]
    fn a_pod_has_begun_when_a_container_of_it_has_run() {
        let waits = |reason: &str| json!({"waiting": {"reason": reason, "message": ""}});
        assert!(!with_main(&waits("ContainerCreating")).has_begun);
        assert!(!with_main(&waits("ImagePullBackOff")).has_begun);
        assert!(with_main(&json!({"running": {}})).has_begun);
        assert!(with_main(&json!({"terminated": {"exitCode": 1}})).has_begun);
    }

    #[test]
    fn an_image_is_missing_when_the_registry_says_so() {
        let pull = |reason: &str, message: &str| with_main(&json!({"waiting": {"reason": reason, "message": message}}));
        let containerd = "rpc error: code = NotFound desc = failed to pull and unpack image \"r.io/a:1\": failed to resolve \
                          reference \"r.io/a:1\": r.io/a:1: not found";
        let missing = pull("ErrImagePull", containerd);
        assert!(missing.is_image_missing);
        assert!(missing.problem.is_some_and(|problem| problem.starts_with("ErrImagePull: ")));
        for message in [
            format!("Back-off pulling image \"r.io/a:1\": ErrImagePull: {containerd}"),
            "reading manifest 1 in r.io/a: manifest unknown".to_owned(),
            "reading manifest 1 in r.io/a: name unknown: repository not known".to_owned(),
        ] {
            assert!(pull("ImagePullBackOff", &message).is_image_missing, "{message}");
        }
        for message in [
            "Back-off pulling image \"r.io/a:1\"",
            "failed to resolve reference: unexpected status 401 Unauthorized",
            "pull access denied, repository does not exist or may require authorization: authorization failed",
            "dial tcp: lookup r.io: no such host",
        ] {
            assert!(!pull("ImagePullBackOff", message).is_image_missing, "{message}");
        }
        assert!(!pull("CrashLoopBackOff", "exec: sh: not found: not found").is_image_missing);
    }
}
