//! Each component controller alone, and what it does to its DaemonSet.

use accelerator_api::contract::DRIVER;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::repository::operands;
use testbed::{Access, Cluster, Wait, eventually};

use crate::LABELER;

/// Only the CRD, a label set by hand, one controller: it works, and nothing else is written.
#[tokio::test]
async fn each_component_works_alone() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("a", 1, "").await?;
    for operand in operands() {
        let component = operand.component;
        cluster.label("a-0", component.deploy_label, Some("true")).await?;
        let mark = cluster.mark()?;
        let controller = cluster.start(component.controller).await;
        cluster.configure("default", Access::enable_all()).await?;
        cluster.expect_condition("default", component.condition_type, "True/Ready").await;
        eventually("tools that follow kstatus to see that it is done", async || {
            let config = cluster.config("default").await;
            let generations =
                (config["metadata"]["generation"].clone(), config["status"]["observedGeneration"].clone());
            Wait::until(generations, |(wanted, observed)| wanted == observed)
        })
        .await;
        assert_eq!(cluster.operands().await, [component.name]);
        let only = [format!("{}@a-0", component.name)];
        eventually("only its pod", async || {
            Wait::until(cluster.pods().await.into_keys().collect::<Vec<_>>(), |pods| *pods == only)
        })
        .await;
        cluster.expect_event("default", "Ready").await;

        let mut written: Vec<_> = mark
            .our_writes()?
            .into_iter()
            .map(|write| format!("{} {} {}", write.user, write.verb, write.resource))
            .collect();
        written.sort();
        written.dedup();
        let by = component.controller;
        let mut expected = vec!["create events", "patch acceleratorconfigs/status", "patch daemonsets"];
        // Which pool serves a node.
        expected.extend((component.name == DRIVER.name).then_some("patch nodes"));
        assert_eq!(written, expected.into_iter().map(|write| format!("{by} {write}")).collect::<Vec<_>>());

        cluster.unconfigure("default").await?;
        cluster.expect_operands(&[]).await;
        controller.stop()?;
        cluster.label("a-0", component.deploy_label, None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_daemonset_is_made_again_and_a_changed_field_repaired() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = [cluster.start("rebellions-device-plugin-controller").await];
    cluster.npu_nodes("r", 1, "").await?;
    cluster.label("r-0", "rebellions.ai/npu.deploy.device-plugin", Some("true")).await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "True/Ready").await;

    let api = cluster.namespaced::<DaemonSet>("rebellions");
    let uid = |daemon_set: &Value| daemon_set["metadata"]["uid"].clone();
    let first = uid(&cluster.daemon_set("device-plugin").await);
    api.delete("rebellions-device-plugin", &DeleteParams::default()).await?;
    eventually("another DaemonSet", async || {
        Wait::until(uid(&cluster.daemon_set("device-plugin").await), |uid| !uid.is_null() && *uid != first)
    })
    .await;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "True/Ready").await;

    let image = |daemon_set: &Value| daemon_set["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let wanted = image(&cluster.daemon_set("device-plugin").await);
    let theirs = json!({"spec": {"template": {
        "metadata": {"labels": {"example.com/theirs": "kept"}},
        "spec": {"containers": [{"name": "device-plugin", "image": "example.com/wrong:1"}]},
    }}});
    api.patch("rebellions-device-plugin", &PatchParams::default(), &Patch::Strategic(theirs)).await?;
    eventually("the image to be repaired", async || {
        Wait::until(image(&cluster.daemon_set("device-plugin").await), |image| *image == wanted)
    })
    .await;
    let kept =
        cluster.daemon_set("device-plugin").await["spec"]["template"]["metadata"]["labels"]["example.com/theirs"]
            .clone();
    assert_eq!(kept, "kept", "a field that we do not own stays");
    Ok(())
}

#[tokio::test]
async fn the_status_tells_why_pods_are_not_ready() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start("rebellions-vfio-manager-controller").await;
    let nodes = cluster.npu_nodes("w", 2, "").await?;
    let condition = "RebellionsVfioManagerReady";
    let configure = async |labels: Value| {
        let mut section = Access::enable(&["vfio-manager"]);
        section["daemonsets"] = json!({"labels": labels});
        cluster.configure("default", section).await
    };
    configure(json!({})).await?;
    cluster.expect_condition("default", condition, "True/NoNodesSelected").await;

    configure(json!({"sim.test/fault": "ImagePullBackOff"})).await?;
    eventually("the DaemonSet to change", async || {
        let fault =
            cluster.daemon_set("vfio-manager").await["spec"]["template"]["metadata"]["labels"]["sim.test/fault"]
                .clone();
        Wait::until(fault, |fault| !fault.is_null())
    })
    .await;
    for node in &nodes {
        cluster.label(node, "rebellions.ai/npu.deploy.vfio-manager", Some("true")).await?;
    }
    let message =
        cluster.expect_condition("default", condition, "False/PodsNotReady: ready on 0 of 2 nodes: w-0").await;
    assert!(message.contains("w-0 (ImagePullBackOff: simulated), w-1 (ImagePullBackOff: simulated)"), "{message}");
    let status = cluster.config("default").await["status"]["components"][0].clone();
    assert_eq!((&status["desired"], &status["ready"], &status["updated"]), (&json!(2), &json!(0), &json!(2)));

    configure(json!({})).await?;
    cluster.expect_condition("default", condition, "True/Ready").await;
    Ok(())
}

#[tokio::test]
async fn a_refused_daemonset_is_told_in_the_servers_words_and_tried_again() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let policy = "refuse-daemonsets";
    for object in [
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": policy},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["daemonsets"]}]},
                "validations": [{"expression": "false", "message": "not on a Friday"}]}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": policy}, "spec": {"policyName": policy, "validationActions": ["Deny"]}}),
    ] {
        cluster.create(&object)?;
    }
    eventually("the policy to act", async || {
        let try_it = cluster.create(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"generateName": "probe-", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
        Wait::until(try_it.is_err(), |refused| *refused)
    })
    .await;
    let _controller = cluster.start("rebellions-metric-exporter-controller").await;
    cluster.configure("default", Access::enable_all()).await?;
    let condition = cluster.expect_condition("default", "RebellionsMetricExporterReady", "False/ApplyFailed").await;
    assert!(condition.contains("not on a Friday"), "{condition}");
    cluster.expect_event("default", "ApplyFailed").await;
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", policy])?;
    cluster.expect_condition("default", "RebellionsMetricExporterReady", "True/").await;
    Ok(())
}

#[tokio::test]
async fn a_daemonset_of_our_name_that_is_not_ours_is_left_alone() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let theirs = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "rebellions-device-plugin", "namespace": "rebellions"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.create(&theirs)?;
    let before = cluster.daemon_set("device-plugin").await["metadata"]["generation"].clone();
    let _controller = cluster.start("rebellions-device-plugin-controller").await;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/NameTaken").await;
    cluster.configure("default", json!({"devicePlugin": {"enabled": false}})).await?;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/Disabled").await;
    assert_eq!(cluster.daemon_set("device-plugin").await["metadata"]["generation"], before);
    Ok(())
}

/// A driver's pods are replaced by whoever deletes them, and the status says so.
#[tokio::test]
async fn the_driver_waits_for_its_pods_to_be_deleted() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = [cluster.start(LABELER).await, cluster.start("rebellions-driver-controller").await];
    cluster.npu_nodes("d", 2, "container").await?;
    cluster.configure("default", Access::enable(&["driver"])).await?;
    cluster.expect_ready("default").await;
    let pods = cluster.pods().await;

    cluster.configure("default", json!({"driver": {"enabled": true, "image": {"tag": "3.0.1"}}})).await?;
    let words = "False/RolloutInProgress: the wanted driver is on 0 of 2 nodes, 2 wait; delete a node's driver pod to update it";
    cluster.expect_condition("default", "RebellionsDriverReady", words).await;
    assert_eq!(cluster.pods().await, pods, "nothing was restarted");
    cluster.kubectl(&["delete", "pods", "-n", "rebellions", "--all", "--wait=false"])?;
    cluster.expect_ready("default").await;
    Ok(())
}
