use super::*;
use serde_json::{Value, json};

fn view(node: Value) -> NodeView {
    NodeView::of(serde_json::from_value(node).expect("a node"))
}

fn with_info(labels: &Value, info: &Value) -> NodeView {
    view(json!({"metadata": {"name": "n", "labels": labels}, "status": {"nodeInfo": info}}))
}

#[test]
fn everything_that_decisions_need_is_read() {
    let record = json!({"install": "abc", "attempt": 2, "cordoned": true});
    let node = view(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "n", "uid": "u", "resourceVersion": "42", "managedFields": [{"manager": "kubelet"}],
            "labels": {
                "rebellions.ai/npu.deploy.driver": "true", "rebellions.ai/npu.deploy.device-plugin": "true",
                "rebellions.ai/npu-driver-pool": "p", "rebellions.ai/npu-driver-upgrade-state": "Failed",
                "rebellions.ai/npu-driver-upgrade.skip": "true", "rebellions.ai/npu.family": "ATOM",
            },
            "annotations": {
                "petasus.io/driver-upgrade": record.to_string(),
                "petasus.io/driver-dependents-paused-until": "2026-01-01T00:00:00Z",
                "rebellions.ai/npu-driver-upgrade-requested": "true",
            },
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"unschedulable": true, "taints": []},
        "status": {
            "nodeInfo": {"kernelVersion": "5.15.0-130-generic", "osImage": "Ubuntu 22.04.5 LTS", "architecture": "amd64", "bootID": "b"},
            "allocatable": {"cpu": "64", "memory": "100Gi", "rebellions.ai/ATOM": "8", "rebellions.ai/npu": "1k"},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "images": [{"names": ["x"]}],
        },
    }));
    let expected = NodeView {
        carries_deploy_label: true,
        name: "n".into(),
        uid: "u".into(),
        version: 42,
        deploys_driver: true,
        deploys_device_plugin: true,
        is_device_plugin_aside: false,
        kernel: Some("5.15.0-130-generic".into()),
        os: Some("ubuntu22.04".into()),
        arch: Some("amd64".into()),
        families: vec!["atom".into()],
        pool: Some("p".into()),
        state: Some(State::Failed),
        record: Some(Record { install: "abc".into(), attempt: 2, cordoned: true, ..Record::default() }),
        is_skipped: true,
        is_requested: true,
        is_paused: true,
        is_unschedulable: true,
        is_ready: true,
        boot_id: "b".into(),
        npus: [("rebellions.ai/ATOM".to_owned(), 8), ("rebellions.ai/npu".to_owned(), 1000)].into(),
        is_deleted: true,
        labels: node.labels.clone(),
    };
    assert_eq!(node, expected);
    assert!(node.labels.contains("rebellions.ai/npu.family", "ATOM"));
}

#[test]
fn a_node_that_says_nothing_is_no_obstacle() {
    assert_eq!(view(json!({"metadata": {"name": "n"}})), NodeView { name: "n".into(), ..NodeView::default() });
}

#[test]
fn discovery_tells_kernel_and_system_and_the_kubelet_where_it_does_not() {
    let info = json!({"kernelVersion": "6.8.0-60-generic", "osImage": "Ubuntu 24.04 LTS", "architecture": "arm64"});
    let values = |node: NodeView| [node.kernel, node.os, node.arch].map(Option::unwrap_or_default);
    let kernel = "feature.node.kubernetes.io/kernel-version.full";
    let id = "feature.node.kubernetes.io/system-os_release.ID";
    let version = "feature.node.kubernetes.io/system-os_release.VERSION_ID";
    let found = json!({kernel: "5.14.0-427.el9_4.x86_64", id: "rhel", version: "9.4"});
    assert_eq!(values(with_info(&found, &info)), ["5.14.0-427.el9_4.x86_64", "rhel9.4", "arm64"]);
    assert_eq!(values(with_info(&json!({}), &info)), ["6.8.0-60-generic", "ubuntu24.04", "arm64"]);
    let half = json!({id: "rhel", kernel: ""});
    assert_eq!(values(with_info(&half, &info)), ["6.8.0-60-generic", "ubuntu24.04", "arm64"]);
    let odd = json!({"kernelVersion": "6.8.0+rebuild~1+", "osImage": "Something 1"});
    assert_eq!(values(with_info(&json!({}), &odd)), ["6.8.0_rebuild_1", "", ""]);
}

#[test]
fn npus_are_advertised_while_the_label_is_only_away() {
    let label = "rebellions.ai/npu.deploy.device-plugin";
    let node = |value: Option<&str>, owned: &str| {
        let labels = value.map_or(json!({}), |value| json!({label: value}));
        view(json!({"metadata": {"labels": labels, "annotations": {"petasus.io/owned-deploy-labels": owned}}}))
    };
    let ours = "driver,device-plugin";
    for (value, owned, deploys, is_aside) in [
        (Some("true"), "", true, false),
        (Some("true"), ours, true, false),
        (Some("paused-for-driver-upgrade"), ours, true, true),
        (Some("paused-for-driver-upgrade"), "driver", false, false),
        (Some("false"), ours, false, false),
        (None, ours, true, true),
        (None, "driver", false, false),
    ] {
        let node = node(value, owned);
        let found = (node.deploys_device_plugin, node.is_device_plugin_aside);
        assert_eq!(found, (deploys, is_aside), "{value:?} {owned:?}");
    }
}
