use super::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a time")
}

fn view(metadata: &Value, spec: &Value, status: &Value) -> PodView {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": status});
    for (key, more) in [("metadata", metadata), ("spec", spec)] {
        pod[key].as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    }
    serde_json::from_value(pod).expect("a pod")
}

fn problem(status: &Value) -> PodProblem {
    PodProblem::of(&view(&json!({}), &json!({}), status), now()).expect("a problem")
}

fn container(state: &Value, last: &Value) -> Value {
    json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "ready": false, "state": state, "lastState": {"terminated": last}}]})
}

#[test]
fn a_ready_pod_is_no_problem() {
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(PodProblem::of(&view(&json!({}), &json!({}), &ready), now()), None);
}

#[test]
fn each_state_says_why_and_how_bad_it_is() {
    let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
    let exit = |code: i32, reason: &str, message: &str| json!({"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:09:00Z"});
    let back_off = waiting("CrashLoopBackOff", "back-off 40s restarting failed container");
    let unauthorized = "Back-off pulling image \"x\": ErrImagePull: failed to resolve: 401 Unauthorized";
    let cases = [
        (container(&waiting("ContainerCreating", ""), &Value::Null), ProblemKind::Starting, "ContainerCreating"),
        (json!({"phase": "Running"}), ProblemKind::NotReady, "not ready"),
        (json!({"phase": "Pending"}), ProblemKind::Starting, "starting"),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}),
            ProblemKind::Failing,
            "Failed: disk pressure",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "Insufficient cpu."}]}),
            ProblemKind::Unschedulable,
            "Unschedulable: Insufficient cpu.",
        ),
        (
            container(&back_off, &Value::Null),
            ProblemKind::Failing,
            "CrashLoopBackOff: back-off 40s restarting failed container",
        ),
        (
            container(&back_off, &exit(7, "Error", "looking\ncannot open /dev/rsd0: No such device\n\n")),
            ProblemKind::Failing,
            "CrashLoopBackOff: container main exited with code 7: cannot open /dev/rsd0: No such device",
        ),
        (
            container(&back_off, &exit(137, "OOMKilled", "")),
            ProblemKind::Failing,
            "CrashLoopBackOff: container main was OOMKilled, the node ran out of memory",
        ),
        (
            container(&back_off, &exit(128, "StartError", "exec: no such file")),
            ProblemKind::Failing,
            "CrashLoopBackOff: container main ended with StartError: exec: no such file",
        ),
        (
            container(&json!({"terminated": exit(3, "Error", "last words")}), &Value::Null),
            ProblemKind::Failing,
            "container main exited with code 3: last words",
        ),
        (
            container(&json!({"running": {}}), &exit(3, "Error", "last words")),
            ProblemKind::Failing,
            "restarted: container main exited with code 3: last words",
        ),
        (
            container(&waiting("ImagePullBackOff", unauthorized), &Value::Null),
            ProblemKind::Failing,
            "ImagePullBackOff: failed to resolve: 401 Unauthorized",
        ),
        (
            container(&waiting("ErrImagePull", "404 Not Found"), &Value::Null),
            ProblemKind::Failing,
            "ErrImagePull: 404 Not Found",
        ),
    ];
    for (status, kind, words) in cases {
        let problem = problem(&status);
        assert_eq!(problem.to_string(), format!("n ({words})"));
        assert_eq!(problem.kind, kind, "{words}");
    }
}

#[test]
fn a_container_that_was_killed_for_its_memory_names_its_limit() {
    let spec = json!({"containers": [{"name": "main", "resources": {"limits": {"memory": "64Mi"}}}]});
    let status = container(&json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), &Value::Null);
    let problem = PodProblem::of(&view(&json!({}), &spec, &status), now()).expect("a problem");
    assert_eq!(problem.to_string(), "n (container main was OOMKilled, it needs more than its memory limit of 64Mi)");
}

/// containerd and runc put the cause last.
#[test]
fn a_long_message_keeps_its_beginning_and_its_end() {
    let path = "registry.example.com/a/very/long/path/".repeat(20);
    let message = format!("failed to pull and unpack image \"{path}\":\nfailed to resolve: 401 Unauthorized");
    let clipped = clip(&message);
    assert!(clipped.starts_with("failed to pull and unpack image"), "{clipped}");
    assert!(clipped.ends_with("failed to resolve: 401 Unauthorized"), "{clipped}");
    assert!(clipped.chars().count() <= QUOTED + 3, "{clipped}");
    assert_eq!(clip("short\nand more"), "short and more");
}

#[test]
fn the_words_of_a_failed_pull_are_kept_while_it_backs_off() {
    let waiting = |reason: &str, message: &str| {
        problem(&container(&json!({"waiting": {"reason": reason, "message": message}}), &Value::Null))
    };
    let first = waiting("ErrImagePull", "401 Unauthorized");
    let mut second = waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    assert_eq!(second.unexplained, Some(Unexplained::Pull));
    second.remember(&first);
    assert_eq!(second.to_string(), "n (ImagePullBackOff: 401 Unauthorized)");
    let mut third = waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    third.remember(&second);
    assert_eq!(third.to_string(), "n (ImagePullBackOff: 401 Unauthorized)");
}

#[test]
fn a_node_that_does_not_answer_is_told_from_a_probe_that_fails() {
    let conditions = |containers: &str| {
        json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": containers}]})
    };
    assert_eq!(problem(&conditions("True")).kind, ProblemKind::NodeNotReady);
    assert_eq!(problem(&conditions("False")).kind, ProblemKind::NotReady);
    let gated = view(&json!({}), &json!({"readinessGates": [{"conditionType": "x"}]}), &conditions("True"));
    assert_eq!(PodProblem::of(&gated, now()).expect("a problem").kind, ProblemKind::NotReady);
    let ending = view(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), &json!({}), &conditions("True"));
    let ending = PodProblem::of(&ending, now()).expect("a problem").at(now());
    assert_eq!(ending.to_string(), "n (the node is not ready, its pod cannot end)");
}

#[test]
fn a_pod_that_does_not_end_is_a_failure_after_its_grace_period() {
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let ending = view(&json!({"deletionTimestamp": "2026-01-01T00:09:30Z"}), &json!({}), &status);
    let ending = PodProblem::of(&ending, now()).expect("a problem");
    assert_eq!(ending.at(now()).to_string(), "n (terminating)");
    let later = ending.at(now() + SignedDuration::from_secs(30));
    assert_eq!(later.to_string(), "n (terminating for longer than its grace period)");
    assert!(later.kind.is_failure());
}

#[test]
fn a_pod_that_was_evicted_says_by_what() {
    let status = json!({"phase": "Running", "conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}]});
    let ending = view(&json!({"deletionTimestamp": "2026-01-01T00:10:30Z"}), &json!({}), &status);
    let ending = PodProblem::of(&ending, now()).expect("a problem");
    assert_eq!(ending.to_string(), "n (terminating: Taint manager: deleting due to NoExecute taint)");
}

#[test]
fn a_pod_without_a_node_names_the_one_it_was_made_for() {
    let affinity = json!({"nodeName": "", "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-7"]}]}]}}}});
    let status = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu."}]});
    let problem = PodProblem::of(&view(&json!({}), &affinity, &status), now()).expect("a problem");
    assert_eq!(problem.to_string(), "node-7 (Unschedulable: Insufficient cpu.)");
}

/// As `give-back` does while a device is held: it runs for longer than an end is recent, over and over.
#[test]
fn an_init_container_that_runs_again_keeps_its_last_failure_until_it_succeeds() {
    let failed = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "qemu (42) holds 0000:01:00.0",
        "finishedAt": "2025-12-31T20:00:00Z"}});
    let status = |state: &Value, main: &Value| {
        json!({"phase": "Pending",
            "initContainerStatuses": [{"name": "give-back", "ready": false, "state": state, "lastState": failed}],
            "containerStatuses": [{"name": "main", "ready": false, "state": main}]})
    };
    let initializing = json!({"waiting": {"reason": "PodInitializing"}});
    let running = problem(&status(&json!({"running": {}}), &initializing));
    let words = "n (restarted: container give-back exited with code 1: qemu (42) holds 0000:01:00.0)";
    assert_eq!(running.to_string(), words);
    assert_eq!(running.kind, ProblemKind::Failing);

    let succeeded = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
    assert_eq!(problem(&status(&succeeded, &initializing)).to_string(), "n (PodInitializing)");
    assert_eq!(problem(&status(&succeeded, &json!({"running": {}}))).to_string(), "n (starting)");

    let old = json!({"exitCode": 3, "finishedAt": "2025-12-31T20:00:00Z"});
    assert_eq!(
        problem(&container(&json!({"running": {}}), &old)).to_string(),
        "n (not ready)",
        "of any other container"
    );
}
