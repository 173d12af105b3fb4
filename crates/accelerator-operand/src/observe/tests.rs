use super::*;
use crate::PodView;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a time")
}

/// desired, current, updated, available, misscheduled
fn daemon_set(strategy: &str, [desired, current, updated, available, misplaced]: [i64; 5]) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"generation": 2},
        "spec": {"selector": {}, "template": {}, "updateStrategy": {"type": strategy}},
        "status": {"observedGeneration": 2, "desiredNumberScheduled": desired, "currentNumberScheduled": current,
            "updatedNumberScheduled": updated, "numberAvailable": available, "numberReady": available,
            "numberMisscheduled": misplaced},
    }))
    .expect("a DaemonSet")
}

fn pod(node: &str, deleted: bool, status: &Value) -> PodView {
    let deleted = deleted.then_some("2026-01-01T00:10:30Z");
    let pod = json!({"metadata": {"name": format!("x-{node}"), "deletionTimestamp": deleted},
        "spec": {"nodeName": node}, "status": status});
    serde_json::from_value(pod).expect("a pod")
}

fn conditions(ready: &str, containers_ready: &str) -> Value {
    json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers_ready}]})
}

fn crashing(node: &str) -> PodView {
    pod(
        node,
        false,
        &json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
    )
}

fn starting(node: &str) -> PodView {
    pod(
        node,
        false,
        &json!({"phase": "Pending", "containerStatuses": [
        {"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}]}),
    )
}

fn lost(node: &str) -> PodView {
    pod(node, false, &conditions("False", "True"))
}

fn ending(node: &str) -> PodView {
    pod(node, true, &conditions("True", "True"))
}

fn seen(strategy: &str, numbers: [i64; 5], pods: &[PodView]) -> String {
    let Observation { reason, message, .. } = observe(&daemon_set(strategy, numbers), &Findings::of("x", pods, now()));
    format!("{}/{}: {message}", reason.status(), reason.as_str())
}

#[test]
fn ready_needs_generation_revision_availability_and_no_leftover() {
    let cases = [
        ([0, 0, 0, 0, 0], "True/NoNodesSelected: no node carries the deploy label and could run a pod"),
        ([3, 3, 2, 3, 0], "False/RolloutInProgress: newest revision on 2 of 3 nodes"),
        ([3, 3, 3, 2, 0], "False/PodsNotReady: ready on 2 of 3 nodes"),
        ([3, 2, 2, 2, 0], "False/RolloutInProgress: a pod on 2 of 3 nodes"),
        ([3, 3, 3, 3, 1], "False/RolloutInProgress: 1 pod of nodes that labels or taints no longer select still to go"),
        ([0, 0, 0, 0, 1], "False/RolloutInProgress: 1 pod of nodes that labels or taints no longer select still to go"),
        ([3, 3, 3, 3, 0], "True/Ready: ready on 3 of 3 nodes"),
    ];
    for (numbers, words) in cases {
        assert_eq!(seen("RollingUpdate", numbers, &[]), words, "{numbers:?}");
    }
}

#[test]
fn a_pod_that_has_not_been_ready_for_long_is_told_as_such_and_need_not_be_looked_at() {
    let mut waiting = daemon_set("RollingUpdate", [3, 3, 3, 2, 0]);
    waiting.status.as_mut().expect("a status").number_ready = 3;
    let Observation { reason, message, .. } = observe(&waiting, &Findings::default());
    assert_eq!(reason, Reason::RolloutInProgress);
    assert_eq!(message, "ready on 3 of 3 nodes, 1 pod for less than minReadySeconds");
    assert_eq!(Counts::of(&waiting).unready(), 0);
}

#[test]
fn only_pods_that_are_not_as_they_should_be_are_looked_for() {
    let unready = |numbers| Counts::of(&daemon_set("OnDelete", numbers)).unready();
    assert_eq!(unready([3, 3, 0, 3, 0]), 0, "of an older revision, and ready");
    assert_eq!(unready([3, 2, 2, 2, 0]), 0, "missing");
    assert_eq!(unready([3, 2, 2, 1, 2]), 3);
}

#[test]
fn a_daemonset_that_nobody_has_looked_at_is_not_ready() {
    let mut fresh = daemon_set("RollingUpdate", [3, 3, 3, 3, 0]);
    fresh.metadata.generation = Some(3);
    assert_eq!(observe(&fresh, &Findings::default()).reason, Reason::AwaitingObservation);
    fresh.status = None;
    assert_eq!(observe(&fresh, &Findings::default()).reason, Reason::AwaitingObservation);
}

/// What a message tells somebody to do is right in every state in which it appears.
#[test]
fn pods_are_to_be_deleted_only_where_that_updates_a_node() {
    let advice = "; delete a node's pod to update it";
    let cases: [([i64; 5], &[PodView], bool); 6] = [
        // Two old pods.
        ([2, 2, 0, 2, 0], &[], true),
        // Two pods of the only revision, the third is refused: deleting one would leave two missing.
        ([3, 2, 2, 2, 0], &[], false),
        // An old one and a missing one.
        ([3, 2, 1, 2, 0], &[], true),
        // The newest revision fails where it runs.
        ([2, 2, 1, 1, 0], &[crashing("a")], false),
        // The last old pod is being deleted already.
        ([2, 2, 1, 2, 0], &[ending("a")], false),
        ([2, 2, 2, 1, 0], &[starting("a")], false),
    ];
    for (numbers, pods, expected) in cases {
        let words = seen("OnDelete", numbers, pods);
        assert_eq!(words.contains(advice), expected, "{numbers:?}: {words}");
        assert!(!seen("RollingUpdate", numbers, pods).contains(advice));
    }
}

#[test]
fn a_node_that_does_not_answer_is_no_rollout() {
    let cases: [([i64; 5], &[PodView], &str); 5] = [
        (
            [2, 2, 2, 2, 1],
            &[lost("n-3")],
            "True/Ready: ready on 2 of 2 nodes; not counted: n-3 (the node is not ready)",
        ),
        (
            [0, 0, 0, 0, 1],
            &[lost("n-3")],
            "True/NoNodesSelected: no node carries the deploy label and could run a pod; not counted: n-3 (the node is not \
             ready)",
        ),
        ([3, 3, 3, 2, 0], &[lost("n-3")], "False/NodesNotReady: ready on 2 of 3 nodes: n-3 (the node is not ready)"),
        (
            [3, 3, 3, 1, 0],
            &[lost("n-1"), crashing("n-2")],
            "False/PodsNotReady: ready on 1 of 3 nodes: n-2 (CrashLoopBackOff), n-1 (the node is not ready)",
        ),
        (
            [2, 2, 2, 2, 2],
            &[lost("n-3"), ending("n-4")],
            "False/RolloutInProgress: 1 pod of nodes that labels or taints no longer select still to go: n-3 (the node is \
             not ready), n-4 (terminating)",
        ),
    ];
    for (numbers, pods, words) in cases {
        assert_eq!(seen("RollingUpdate", numbers, pods), words, "{numbers:?}");
    }
}

/// The DaemonSet controller counts a pod as available until its containers have ended.
#[test]
fn a_pod_that_ends_is_not_available() {
    let words = seen("RollingUpdate", [1, 1, 1, 1, 0], &[ending("n")]);
    assert_eq!(
        words,
        "False/RolloutInProgress: 1 pod that the DaemonSet counts as available still to end: n (terminating)"
    );
}

#[test]
fn a_failure_needs_attention_and_starting_does_not() {
    let needs = |numbers, pods: &[PodView]| {
        observe(&daemon_set("RollingUpdate", numbers), &Findings::of("x", pods, now())).needs_attention
    };
    assert!(needs([2, 2, 2, 1, 0], &[crashing("a")]));
    assert!(needs([2, 2, 1, 1, 0], &[crashing("a")]));
    assert!(!needs([2, 2, 2, 1, 0], &[starting("a")]));
    assert!(!needs([2, 2, 2, 1, 0], &[lost("a")]));
    assert!(!needs([2, 2, 2, 2, 0], &[]));
}
