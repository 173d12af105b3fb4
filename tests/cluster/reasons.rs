//! Why a pod is not ready, found among many, and what it costs to look.

use std::time::Duration;

use serde_json::json;
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Wait, eventually, eventually_within};

const CONTROLLER: &str = "rebellions-device-plugin-controller";
const CONDITION: &str = "RebellionsDevicePluginReady";
const DEPLOY: &str = "rebellions.ai/npu.deploy.device-plugin";

/// The pod that is not ready runs, so that no selector finds it, and it is one of many. Then an event explains it.
#[tokio::test]
async fn one_pod_of_many_is_named_and_explained_by_its_event() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start(CONTROLLER).await;
    cluster.npu_nodes("m", 300, "").await?;
    cluster.kubectl(&["label", "nodes", "--all", &format!("{DEPLOY}=true")])?;
    cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    cluster.expect_condition("default", CONDITION, "True/Ready: ready on 300").await;

    let mark = cluster.mark()?;
    let on = ["-n", OPERANDS, "get", "pods", "--field-selector", "spec.nodeName=m-299", "-o", "name"];
    let pod = cluster.kubectl(&on)?.trim().trim_start_matches("pod/").to_owned();
    cluster.kubectl(&["-n", OPERANDS, "label", "pod", &pod, "sim.test/unready=true"])?;
    eventually_within(Duration::from_secs(30), "the node to be named", async || {
        let told = cluster.condition("default", CONDITION).await;
        Wait::until(told, |told| told == "False/PodsNotReady: ready on 299 of 300 nodes: m-299 (not ready)")
    })
    .await;
    let now = cluster.kubectl(&["-n", OPERANDS, "get", "pod", &pod, "-o", "jsonpath={.metadata.creationTimestamp}"])?;
    cluster.create(&json!({"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "Unhealthy",
        "metadata": {"name": format!("{pod}.1"), "namespace": OPERANDS}, "lastTimestamp": now.trim(),
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": pod, "namespace": OPERANDS},
        "message": "Readiness probe failed: 1 of 2 NPUs are on vfio-pci"}))?;
    eventually("the probe's words", async || {
        let told = cluster.condition("default", CONDITION).await;
        Wait::until(told, |told| told.ends_with("m-299 (not ready: 1 of 2 NPUs are on vfio-pci)"))
    })
    .await;
    cluster.expect_event("default", "PodsNotReady: rebellions-device-plugin: ready on 299 of 300").await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let requests = mark.requests()?;
    let lists = |resource: &str| {
        let ours = requests.iter().filter(|one| one.user == CONTROLLER && one.verb == "list");
        ours.filter(|one| one.resource == resource).count()
    };
    // Pods are listed once, in one page of those that do not run and three of all, unless they are followed already.
    let looked = (lists("events"), lists("pods"));
    assert!(looked.0 == 1 && looked.1 <= 4, "lists of events and of pods: {looked:?}");

    cluster.kubectl(&["-n", OPERANDS, "label", "pod", &pod, "sim.test/unready-"])?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    Ok(())
}

/// A pod that is ending counts as available in the DaemonSet until it is gone.
#[tokio::test]
async fn a_mode_that_is_switched_back_is_not_ready_before_the_old_pod_is_gone() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start(CONTROLLER).await;
    cluster.npu_nodes("b", 1, "").await?;
    cluster.label("b-0", DEPLOY, Some("true")).await?;
    let mut section = Access::enable(&["device-plugin"]);
    section["daemonsets"] = json!({"annotations": {"sim.test/term": "12s"}});
    cluster.configure("default", section).await?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    let uid = ["-n", OPERANDS, "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"];
    let old = cluster.kubectl(&uid)?;

    cluster.label("b-0", DEPLOY, None).await?;
    cluster.expect_condition("default", CONDITION, "False/RolloutInProgress").await;
    cluster.label("b-0", DEPLOY, Some("true")).await?;
    eventually("the component to be ready", async || {
        let pods = cluster.kubectl(&uid).unwrap_or_default();
        let told = cluster.condition("default", CONDITION).await;
        assert!(!told.starts_with("True/") || !pods.contains(&old), "{told}, while the old pod is there: {pods}");
        Wait::until(told, |told| told.starts_with("True/Ready"))
    })
    .await;
    Ok(())
}

/// Its pod crashes, gets ready for a moment and crashes again.
#[tokio::test]
async fn a_crash_loop_makes_one_warning_and_no_row_of_normal_events() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start(CONTROLLER).await;
    cluster.npu_nodes("c", 1, "").await?;
    cluster.label("c-0", DEPLOY, Some("true")).await?;
    let mut section = Access::enable(&["device-plugin"]);
    section["daemonsets"] = json!({"updateStrategy": {"minReadySeconds": 0}});
    cluster.configure("default", section).await?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    let fault = |value: &str| {
        let select = ["-n", OPERANDS, "label", "--overwrite", "pods", "-l", "name=rebellions-device-plugin"];
        cluster.kubectl(&[select.as_slice(), &[&format!("sim.test/fault{value}")]].concat())
    };
    fault("=CrashLoopBackOff")?;
    cluster.expect_event("default", "PodsNotReady: rebellions-device-plugin: ready on 0 of 1 node").await;
    for _ in 0..3 {
        fault("-")?;
        cluster.expect_condition("default", CONDITION, "True/Ready").await;
        fault("=CrashLoopBackOff")?;
        cluster.expect_condition("default", CONDITION, "False/PodsNotReady").await;
    }
    // Longer than a failure has to last to be told.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let events = cluster.events("default").await;
    let of = |reason: &str| events.iter().filter(|event| event.starts_with(reason)).count();
    assert_eq!((of("Ready: "), of("PodsNotReady: ")), (1, 1), "{events:?}");
    Ok(())
}
