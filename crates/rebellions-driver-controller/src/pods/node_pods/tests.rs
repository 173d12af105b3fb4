use accelerator_api::UpgradePolicy;
use serde_json::{Value, json};

use super::*;

/// A pod of a `ReplicaSet` in the namespace `work`, with these changes laid over it.
fn pod(name: &str, changes: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "work", "uid": format!("uid-{name}"),
                     "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
        "status": {"phase": "Running"},
    });
    for part in ["metadata", "spec", "status"] {
        for (key, value) in changes[part].as_object().into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    serde_json::from_value(pod).expect("a pod")
}

fn with_npu(name: &str, changes: Value) -> Pod {
    let mut changes = changes;
    changes["spec"]["containers"] = json!([{"name": "c", "resources": {"limits": {"rebellions.ai/ATOM": "1"}}}]);
    pod(name, &changes)
}

fn sort(policy: Value, pods: &[Pod]) -> NodePods {
    let policy = Policy::of(Some(&serde_json::from_value::<UpgradePolicy>(policy).expect("a policy")));
    let claims = [("work".to_owned(), "held".to_owned())].into();
    let dependents = ["rebellions-device-plugin", "rebellions-metric-exporter"];
    Rules::new(&policy, "rebellions", "accelerator-system", &dependents, &claims).sort(pods)
}

fn names(pods: &NodePods) -> Vec<&str> {
    pods.to_evict.iter().map(|one| one.pod.name.as_str()).collect()
}

#[test]
fn pods_that_use_npus_leave_and_no_others() {
    let resources = |kind: &str, name: &str| json!([{"name": "c", "resources": {kind: {name: 1, "cpu": "1"}}}]);
    let pods = vec![
        pod(
            "none",
            &json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"rebellions.ai/ATOM": "0"}}}]}}),
        ),
        pod("limits", &json!({"spec": {"containers": resources("limits", "rebellions.ai/ATOM")}})),
        pod("requests", &json!({"spec": {"containers": resources("requests", "rebellions.ai/npu")}})),
        pod("init", &json!({"spec": {"initContainers": resources("limits", "rebellions.ai/REBEL")}})),
        pod("pod-level", &json!({"spec": {"resources": {"limits": {"rebellions.ai/npu": "1"}}}})),
        pod("claim", &json!({"spec": {"resourceClaims": [{"name": "x", "resourceClaimName": "held"}]}})),
        pod(
            "template",
            &json!({"spec": {"resourceClaims": [{"name": "x", "resourceClaimTemplateName": "t"}]},
                                "status": {"resourceClaimStatuses": [{"name": "x", "resourceClaimName": "held"}]}}),
        ),
        pod("other-claim", &json!({"spec": {"resourceClaims": [{"name": "x", "resourceClaimName": "other"}]}})),
        pod(
            "others-claim",
            &json!({"metadata": {"namespace": "elsewhere"},
                                    "spec": {"resourceClaims": [{"name": "x", "resourceClaimName": "held"}]}}),
        ),
        pod("gpu", &json!({"spec": {"containers": resources("limits", "nvidia.com/gpu")}})),
        pod("plain", &json!({})),
        with_npu("finished", json!({"status": {"phase": "Succeeded"}})),
        with_npu("failed", json!({"status": {"phase": "Failed"}})),
        with_npu("mirror", json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}})),
        with_npu(
            "daemon",
            json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "name": "d", "controller": true}]}}),
        ),
        with_npu("pending", json!({"status": {"phase": "Pending"}})),
    ];
    let sorted = sort(json!({}), &pods);
    assert_eq!(names(&sorted), ["claim", "init", "limits", "pending", "pod-level", "requests", "template"]);
    assert_eq!(sorted.to_evict[2].uid, "uid-limits");
    assert!(sorted.jobs.is_empty() && sorted.dependents.is_empty());
}

#[test]
fn what_the_policy_spares_is_an_obstacle() {
    let pods = || {
        [
            with_npu("bare", json!({"metadata": {"ownerReferences": []}})),
            with_npu(
                "scratch",
                json!({"spec": {"volumes": [{"name": "a", "configMap": {}}, {"name": "b", "emptyDir": {}}]}}),
            ),
            with_npu(
                "scratch-ending",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
                                              "spec": {"volumes": [{"name": "b", "emptyDir": {}}]}}),
            ),
            with_npu("usual", json!({})),
        ]
    };
    let obstacles = |eviction: Value| -> Vec<_> {
        sort(json!({"eviction": eviction}), &pods())
            .to_evict
            .iter()
            .map(|one| (one.obstacle, one.is_terminating))
            .collect()
    };
    let (bare, scratch) = (Some(Obstacle::Unmanaged), Some(Obstacle::EmptyDir));
    assert_eq!(obstacles(json!({})), [(bare, false), (scratch, false), (None, true), (None, false)]);
    assert_eq!(obstacles(json!({"force": true})), [(None, false), (scratch, false), (None, true), (None, false)]);
    let all = json!({"force": true, "deleteEmptyDirData": true});
    assert_eq!(obstacles(all), [(None, false), (None, false), (None, true), (None, false)]);
}

#[test]
fn jobs_are_waited_for_until_they_end() {
    let labels = json!({"app": "training"});
    let pods = [
        pod("job", &json!({"metadata": {"labels": labels}})),
        with_npu("npu-job", json!({"metadata": {"labels": labels}})),
        pod("done", &json!({"metadata": {"labels": labels}, "status": {"phase": "Succeeded"}})),
        pod("ending", &json!({"metadata": {"labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        pod("other", &json!({"metadata": {"labels": {"app": "web"}}})),
    ];
    let jobs = |selector: &str| {
        let sorted = sort(json!({"waitForJobs": {"podSelector": selector}}), &pods);
        sorted.jobs.into_iter().map(|pod| pod.name).collect::<Vec<_>>()
    };
    assert_eq!(jobs("app=training"), ["job", "npu-job"]);
    assert_eq!(jobs("app in (web)"), ["other"]);
    assert_eq!(jobs(""), Vec::<String>::new(), "none is waited for");
    assert_eq!(jobs("no selector"), ["job", "npu-job", "other"], "better to wait than to end a job");
}

#[test]
fn a_drain_takes_other_pods_along() {
    let pods = [
        pod("web", &json!({"metadata": {"labels": {"app": "web"}}})),
        pod("db", &json!({"metadata": {"labels": {"app": "db"}}})),
        with_npu("npu", json!({})),
        pod("ours", &json!({"metadata": {"namespace": "accelerator-system", "labels": {"app": "web"}}})),
        pod("daemon", &json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "controller": true}]}})),
        pod("done", &json!({"status": {"phase": "Failed"}})),
    ];
    let leave = |drain: Value| {
        sort(json!({"drain": drain}), &pods).to_evict.into_iter().map(|one| one.pod.name).collect::<Vec<_>>()
    };
    assert_eq!(leave(json!({"enabled": true})), ["db", "npu", "web"]);
    assert_eq!(leave(json!({"enabled": true, "podSelector": "app=web"})), ["npu", "web"]);
    assert_eq!(leave(json!({"enabled": false, "podSelector": "app=web"})), ["npu"]);
}

#[test]
fn pods_of_components_that_use_the_driver_are_dependents() {
    let owners = json!([{"kind": "DaemonSet", "controller": true}]);
    let operand = |name: &str, namespace: &str| {
        let metadata = json!({"namespace": namespace, "labels": {"name": name}, "ownerReferences": owners});
        pod(name, &json!({"metadata": metadata}))
    };
    let pods = [
        operand("rebellions-metric-exporter", "rebellions"),
        operand("rebellions-device-plugin", "rebellions"),
        operand("rebellions-driver", "rebellions"),
        operand("rebellions-device-plugin", "elsewhere"),
    ];
    let dependents: Vec<_> = sort(json!({}), &pods).dependents.into_iter().map(|pod| pod.name).collect();
    assert_eq!(dependents, ["rebellions-device-plugin", "rebellions-metric-exporter"]);
}
