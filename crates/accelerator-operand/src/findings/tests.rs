use super::*;
use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a time")
}

fn pod(node: &str, status: &Value) -> PodView {
    let pod = json!({"metadata": {"name": format!("x-{node}")}, "spec": {"nodeName": node}, "status": status});
    serde_json::from_value(pod).expect("a pod")
}

fn waiting(node: &str, reason: &str) -> PodView {
    pod(
        node,
        &json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "state": {"waiting": {"reason": reason, "message": ""}}}]}),
    )
}

fn lost(node: &str) -> PodView {
    pod(
        node,
        &json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]}),
    )
}

fn ready(node: &str) -> PodView {
    pod(node, &json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> EventView {
    let event = json!({"metadata": {}, "involvedObject": {"kind": kind, "name": name},
        "reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:09:00Z"});
    serde_json::from_value(event).expect("an event")
}

fn sentence(pods: &[PodView], unready: i64) -> String {
    Findings::of("x", pods, now()).sentence(unready)
}

#[test]
fn pods_that_start_do_not_hide_one_that_crashes() {
    let mut pods: Vec<_> = ["a", "b", "c", "d"].map(|node| waiting(node, "ContainerCreating")).into();
    pods.push(waiting("e", "CrashLoopBackOff"));
    let words = ": e (CrashLoopBackOff), a (ContainerCreating), b (ContainerCreating) and 2 more";
    assert_eq!(sentence(&pods, 5), words);
}

#[test]
fn pods_on_dead_nodes_do_not_hide_the_cause_elsewhere() {
    let pods =
        [lost("a"), lost("b"), lost("c"), waiting("d", "ImagePullBackOff"), pod("e", &json!({"phase": "Running"}))];
    let words = ": d (ImagePullBackOff), e (not ready), a (the node is not ready) and 2 more";
    assert_eq!(sentence(&pods, 5), words);
}

#[test]
fn many_failures_of_one_kind_do_not_hide_another_kind() {
    let mut pods: Vec<_> = ["a", "b", "c", "d"].map(|node| waiting(node, "ImagePullBackOff")).into();
    pods.push(waiting("e", "CrashLoopBackOff"));
    assert_eq!(sentence(&pods, 5), ": a (ImagePullBackOff), b (ImagePullBackOff), e (CrashLoopBackOff) and 2 more");
}

#[test]
fn a_pod_that_gets_ready_or_goes_is_forgotten() {
    let mut problems = PodProblems::new("x");
    assert!(problems.apply(&waiting("a", "ContainerCreating"), now()));
    assert!(!problems.apply(&waiting("a", "ContainerCreating"), now()), "nothing new");
    assert!(problems.apply(&ready("a"), now()));
    assert!(problems.findings(false, now()).is_empty());
    assert!(problems.apply(&waiting("b", "ContainerCreating"), now()));
    assert!(problems.remove("x-b"));
    assert!(problems.findings(false, now()).is_empty());
}

#[test]
fn an_event_explains_the_pod_that_it_is_about_whichever_comes_first() {
    let mut problems = PodProblems::new("x");
    assert!(problems.apply_event(&event("Pod", "x-aaaaa", "FailedMount", "no such device")));
    assert!(!problems.apply_event(&event("Pod", "x-aaaaa", "FailedMount", "no such device")), "the same again");
    assert!(!problems.apply_event(&event("Pod", "x-y-aaaaa", "FailedMount", "of another DaemonSet")));
    problems.apply(&waiting("aaaaa", "PodInitializing"), now());
    let words = ": aaaaa (PodInitializing: FailedMount: no such device)";
    assert_eq!(problems.findings(false, now()).sentence(1), words);
    assert_eq!(problems.findings(false, now()).worst(), Some(ProblemKind::Failing));
}

#[test]
fn a_pod_that_could_not_be_made_comes_first_while_one_is_missing() {
    let mut problems = PodProblems::new("x");
    problems.apply(&waiting("a", "CrashLoopBackOff"), now());
    problems.apply_event(&event("DaemonSet", "x", "FailedCreate", "exceeded quota"));
    let words = ": FailedCreate: exceeded quota, a (CrashLoopBackOff)";
    assert_eq!(problems.findings(true, now()).sentence(2), words);
    assert_eq!(problems.findings(true, now()).pods(), 1);
    assert_eq!(problems.findings(false, now()).sentence(1), ": a (CrashLoopBackOff)");
}

#[test]
fn events_are_asked_for_when_a_pod_stays_unexplained() {
    let mut problems = PodProblems::new("x");
    problems.apply(&waiting("a", "CrashLoopBackOff"), now());
    assert!(!problems.unexplained_since(now()));
    problems.apply(&waiting("b", "ContainerCreating"), now());
    assert!(!problems.unexplained_since(now() - SignedDuration::from_secs(1)));
    assert!(problems.unexplained_since(now()));
}
