//! What edits of an AcceleratorConfig do.

use serde_json::{Value, json};
use testbed::{Access, Cluster, Wait, eventually};

use crate::{CONTAINER, LABELER};

/// Everything that can be set for a component, and where it ends up.
fn tuned() -> (Value, Vec<(&'static str, Value)>) {
    let section = json!({
        "daemonsets": {
            "labels": {"example.com/team": "npu", "name": "not-the-selector"},
            "annotations": {"example.com/owner": "us"},
            "tolerations": [{"key": "example.com/dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
            "priorityClassName": "system-cluster-critical",
            "updateStrategy": {"maxUnavailable": 3},
        },
        "nfd": {
            "enabled": true,
            "image": {"registry": "r.example.com", "name": "mine/nfd", "tag": "v9", "imagePullPolicy": "Always",
                      "imagePullSecrets": ["one", "two", "one"]},
            "resources": {"limits": {"memory": "64Mi", "cpu": 2}, "requests": {"cpu": "0.5"}},
            "env": [{"name": "A", "value": "1"}, {"name": "B"}],
            "args": ["--oneshot=false"],
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["", "b"]}, {"key": "rack", "operator": "Exists"}]}]}}},
            "tolerations": [{"key": "example.com/own", "operator": "Exists"}, {"key": "example.com/dedicated",
                "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
            "updateStrategy": {"maxSurge": "30%"},
        },
    });
    let template = |path: &'static str| path;
    let expected = vec![
        (template("/metadata/labels/example.com~1team"), json!("npu")),
        ("/metadata/labels/name", json!("rebellions-npu-feature-discovery")),
        ("/metadata/annotations/example.com~1owner", json!("us")),
        (
            "/spec/tolerations/1",
            json!({"key": "example.com/dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}),
        ),
        ("/spec/tolerations/2", json!({"key": "example.com/own", "operator": "Exists"})),
        ("/spec/tolerations/3", Value::Null),
        (
            "/spec/nodeSelector",
            json!({"kubernetes.io/arch": "amd64", "rebellions.ai/npu.deploy.npu-feature-discovery": "true"}),
        ),
        (
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
            json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["", "b"]},
                                         {"key": "rack", "operator": "Exists"}]}]),
        ),
        ("/spec/priorityClassName", json!("system-cluster-critical")),
        ("/spec/imagePullSecrets", json!([{"name": "one"}, {"name": "two"}])),
        ("/spec/containers/0/image", json!("r.example.com/mine/nfd:v9")),
        ("/spec/containers/0/imagePullPolicy", json!("Always")),
        ("/spec/containers/0/resources/limits", json!({"memory": "64Mi", "cpu": "2"})),
        ("/spec/containers/0/resources/requests", json!({"cpu": "500m"})),
        ("/spec/containers/0/env", json!([{"name": "A", "value": "1"}, {"name": "B"}])),
        ("/spec/containers/0/args", json!(["--oneshot=false"])),
    ];
    (section, expected)
}

#[tokio::test]
async fn every_field_reaches_the_daemonset_and_leaves_it_again() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start("rebellions-npu-feature-discovery-controller").await;
    cluster.configure("default", Access::enable(&["npu-feature-discovery"])).await?;
    cluster.expect_operands(&["npu-feature-discovery"]).await;
    let spec = async || {
        let mut spec = cluster.daemon_set("npu-feature-discovery").await["spec"].clone();
        spec.as_object_mut().map(|spec| spec.remove("revisionHistoryLimit"));
        spec
    };
    let default = spec().await;

    let (section, expected) = tuned();
    cluster.configure("default", section).await?;
    for (path, value) in expected {
        eventually(path, async || {
            let seen = spec().await["template"].pointer(path).cloned().unwrap_or(Value::Null);
            Wait::until(seen, |seen| *seen == value)
        })
        .await;
    }
    // The one for all is not for what may surge.
    assert_eq!(spec().await["updateStrategy"]["rollingUpdate"], json!({"maxSurge": "30%", "maxUnavailable": 0}));
    assert_eq!(spec().await["selector"], default["selector"]);

    cluster.configure("default", Access::enable(&["npu-feature-discovery"])).await?;
    eventually("the defaults to be back", async || Wait::until(spec().await, |spec| *spec == default)).await;
    Ok(())
}

/// What is set for all containers and for those beside the main one.
#[tokio::test]
async fn every_container_is_set_and_put_back() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start("rebellions-metric-exporter-controller").await;
    cluster.configure("default", Access::enable(&["metric-exporter"])).await?;
    cluster.expect_operands(&["metric-exporter"]).await;
    let spec = async || cluster.daemon_set("metric-exporter").await["spec"].clone();
    let default = spec().await;
    let section = json!({
        "daemonsets": {
            "image": {"registry": "all.example.com:5000/hub", "imagePullPolicy": "Always", "imagePullSecrets": ["all"]},
            "kubeletRootDir": "/data/kubelet",
            "updateStrategy": {"minReadySeconds": 5, "maxUnavailable": 2},
        },
        "metricExporter": {
            "enabled": true,
            "image": {"imagePullSecrets": ["own", "all"]},
            "hostNetwork": true,
            "hostPort": 9400,
            "daemon": {
                "image": {"registry": "own.example.com", "tag": "3.2.2", "imagePullPolicy": "Never"},
                "env": [{"name": "A", "value": "1"}],
                "resources": {"requests": {"cpu": "0.5"}},
            },
        },
    });
    cluster.configure("default", section).await?;
    for (path, value) in [
        ("/minReadySeconds", json!(5)),
        // Where nothing may surge, the one for all holds.
        ("/updateStrategy/rollingUpdate/maxUnavailable", json!(2)),
        ("/template/spec/hostNetwork", json!(true)),
        ("/template/spec/containers/0/ports/0/hostPort", json!(9400)),
        ("/template/spec/containers/0/ports/0/containerPort", json!(9400)),
        ("/template/spec/initContainers/0/ports/0/hostPort", json!(50051)),
        ("/template/spec/imagePullSecrets", json!([{"name": "all"}, {"name": "own"}])),
        (
            "/template/spec/containers/0/image",
            json!("all.example.com:5000/hub/rebellions/rbln-metrics-exporter:v0.2.4"),
        ),
        ("/template/spec/containers/0/imagePullPolicy", json!("Always")),
        ("/template/spec/initContainers/0/image", json!("own.example.com/rebellions/rbln-daemon:3.2.2")),
        ("/template/spec/initContainers/0/imagePullPolicy", json!("Never")),
        ("/template/spec/initContainers/0/env", json!([{"name": "A", "value": "1"}])),
        ("/template/spec/initContainers/0/resources", json!({"requests": {"cpu": "500m"}})),
        ("/template/spec/volumes/0/hostPath/path", json!("/data/kubelet/pod-resources")),
    ] {
        eventually(path, async || {
            Wait::until(spec().await.pointer(path).cloned().unwrap_or_default(), |seen| *seen == value)
        })
        .await;
    }
    cluster.configure("default", Access::enable(&["metric-exporter"])).await?;
    eventually("the defaults to be back", async || Wait::until(spec().await, |spec| *spec == default)).await;
    // Only who asks for it waits for none.
    cluster
        .configure_spec("default", json!({"providers": {"rebellions": Access::enable(&["metric-exporter"])}}))
        .await?;
    eventually("the default of minReadySeconds", async || {
        Wait::until(spec().await["minReadySeconds"].clone(), |seconds| *seconds == 10)
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn disabled_and_absent_components_are_removed() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("x", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;

    let mut section = Access::enable_all();
    section["devicePlugin"]["enabled"] = json!(false);
    section.as_object_mut().expect("a section").remove("metricExporter");
    cluster.configure("default", section).await?;
    cluster.expect_operands(&["driver", "npu-feature-discovery", "vfio-manager"]).await;
    let condition = cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/Disabled").await;
    assert!(condition.contains("spec.providers.rebellions.devicePlugin.enabled is false"), "{condition}");
    let condition = cluster.expect_condition("default", "RebellionsMetricExporterReady", "False/Disabled").await;
    assert!(condition.contains("there is no section spec.providers.rebellions.metricExporter"), "{condition}");
    cluster.expect_event("default", "Removed: removed DaemonSet rebellions/rebellions-device-plugin").await;
    cluster.expect_ready("default").await;
    // Where a component runs is one question, what runs there another: labels stay.
    cluster.expect_deployed("x-0", CONTAINER).await;

    cluster.configure_spec("default", json!({"providers": {}})).await?;
    cluster.expect_operands(&[]).await;
    cluster.expect_deployed("x-0", &[]).await;
    cluster.expect_condition("default", "Ready", "True/NoComponentsEnabled").await;
    Ok(())
}

#[tokio::test]
async fn with_the_last_config_everything_of_ours_goes_and_nothing_else() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("g", 2, "container").await?;
    cluster.label("g-1", "rebellions.ai/npu.deploy.driver", Some("false")).await?;
    let before = [cluster.labels("g-0").await?, cluster.labels("g-1").await?];
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": "rebellions"}}),
    )?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;

    cluster.unconfigure("default").await?;
    cluster.expect_operands(&[]).await;
    cluster.expect_deployed("g-0", &[]).await;
    eventually("labels as before", async || {
        let labels = [cluster.labels("g-0").await.unwrap_or_default(), cluster.labels("g-1").await.unwrap_or_default()];
        Wait::until(labels, |labels| *labels == before)
    })
    .await;
    eventually("the pods to go", async || Wait::until(cluster.pods().await.len(), |pods| *pods == 0)).await;
    cluster.kubectl(&["delete", "configmap", "foreign", "-n", "rebellions"])?;
    Ok(())
}

#[tokio::test]
async fn the_oldest_config_counts_and_the_next_takes_over_what_runs() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("o", 2, "container").await?;
    cluster.configure("first", Access::enable_all()).await?;
    cluster.expect_ready("first").await;
    // Creation times have a precision of seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut second = Access::enable_all();
    second["nfd"]["args"] = json!(["--no-timestamp"]);
    cluster.configure("another", second).await?;

    let condition = cluster.expect_condition("another", "Accepted", "False/Superseded").await;
    assert!(condition.contains("first"), "{condition}");
    cluster.expect_condition("another", "Ready", "False/Superseded").await;
    cluster.expect_condition("first", "Accepted", "True/Active").await;
    assert!(cluster.config("another").await["status"]["components"].is_null());
    let pods = cluster.pods().await;

    cluster.unconfigure("first").await?;
    cluster.expect_condition("another", "Accepted", "True/Active").await;
    cluster.expect_ready("another").await;
    let after = cluster.pods().await;
    let unchanged = |component: &str| {
        let of = |pods: &std::collections::BTreeMap<String, String>| -> Vec<_> {
            pods.iter()
                .filter(|(name, _)| name.starts_with(component))
                .map(|(name, uid)| (name.clone(), uid.clone()))
                .collect()
        };
        of(&pods) == of(&after) && !of(&after).is_empty()
    };
    for component in ["driver", "device-plugin", "metric-exporter"] {
        assert!(unchanged(component), "{component} was restarted although nothing changed for it");
    }
    assert!(!unchanged("npu-feature-discovery"), "its arguments changed");
    Ok(())
}

#[tokio::test]
async fn an_object_of_a_newer_version_stops_nothing_and_changes_nothing() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let _controllers = [cluster.start(LABELER).await, cluster.start("rebellions-driver-controller").await];
    cluster.npu_nodes("u", 1, "container").await?;
    cluster.configure("default", Access::enable(&["driver"])).await?;
    cluster.expect_ready("default").await;
    let pods = cluster.pods().await;

    // A newer CRD in which a field has another type.
    let loose = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
                        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}]);
    cluster.kubectl(&["patch", "crd", "acceleratorconfigs.petasus.io", "--type=json", "-p", &loose.to_string()])?;
    eventually("the newer CRD to be served", async || {
        let newer = json!({"providers": {"rebellions": {"driver": {"enabled": {"when": "later"}}}}});
        match cluster.configure_spec("default", newer).await {
            Ok(()) => Wait::Done(()),
            Err(error) => Wait::NotYet(error.to_string()),
        }
    })
    .await;
    cluster.expect_condition("default", "Accepted", "False/Unreadable").await;
    let condition = cluster.expect_condition("default", "RebellionsDriverReady", "False/Unreadable").await;
    assert!(condition.contains("everything stays as it is"), "{condition}");
    assert_eq!(cluster.pods().await, pods);
    cluster.expect_deployed("u-0", CONTAINER).await;

    // One that can be read again is acted on, and an unreadable one beside it is no obstacle.
    cluster.configure_spec("broken", json!({"providers": "none"})).await?;
    cluster.configure("default", json!({"driver": {"enabled": false}})).await?;
    cluster.expect_operands(&[]).await;
    Ok(())
}
