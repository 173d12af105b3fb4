//! A settled cluster costs nothing.

use std::time::Duration;

use accelerator_api::contract::DEVICE_PLUGIN;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{Access, Cluster, Wait, eventually};

use crate::leadership::becomes;
use crate::{CONTAINER, LABELER};

/// What a kubelet writes now and then.
async fn heartbeat(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a heartbeat carries the time of day")]
    let now = Timestamp::now().to_string();
    let status = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "reason": "SimulatedUp", "message": "up", "lastHeartbeatTime": now}]}});
    cluster.all::<Node>().patch_status(node, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

#[tokio::test]
async fn a_settled_cluster_sees_no_write_and_no_restart_of_ours_causes_one() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let mut controllers = cluster.start_all().await;
    let mut nodes = cluster.npu_nodes("q", 3, "container").await?;
    nodes.extend(cluster.npu_nodes("z", 2, "vm-passthrough").await?);
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;
    // The last event of the rollout may still be on its way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pods = cluster.pods().await;

    let mark = cluster.mark()?;
    for round in 0..30 {
        for node in &nodes {
            heartbeat(&cluster, node).await?;
        }
        cluster.label(&nodes[round % nodes.len()], "example.com/round", Some(&round.to_string())).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let writes: Vec<_> = mark.our_writes()?.iter().map(ToString::to_string).collect();
    assert_eq!(writes, Vec::<String>::new(), "during a minute of heartbeats and unrelated labels");

    let mark = cluster.mark()?;
    for controller in std::mem::take(&mut controllers) {
        let name = controller.name;
        assert!(controller.stop()?.success(), "{name} did not end well");
        let mut next = cluster.start(name).await;
        let address = next.admin_address().await?;
        // A follower writes nothing anyway.
        becomes(&address, "leader").await;
        eventually(&format!("{name} to be ready again"), async || {
            Wait::until(crate::programs::get(&address, "/readyz").await.0, |code| *code == 200)
        })
        .await;
        controllers.push(next);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let writes: Vec<_> = mark.our_writes()?.iter().map(ToString::to_string).collect();
    assert_eq!(writes, Vec::<String>::new(), "after a restart of every controller");
    assert_eq!(cluster.pods().await, pods, "no pod was replaced");
    Ok(())
}

#[tokio::test]
async fn one_node_joins_two_hundred_with_one_patch_of_each_who_labels_it() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("many", 200, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    let mark = cluster.mark()?;
    cluster.npu_nodes("late", 1, "container").await?;
    cluster.expect_deployed("late-0", CONTAINER).await;
    eventually("the node to be counted", async || {
        let count = cluster.config("default").await["status"]["nodes"]["container"].clone();
        Wait::until(count, |count| *count == 201)
    })
    .await;
    cluster.expect_ready("default").await;
    let writes = mark.our_writes()?;
    let patches: Vec<_> = writes.iter().filter(|write| write.resource == "nodes").collect();
    let mut who: Vec<_> = patches.iter().map(|write| (write.user.as_str(), write.name.as_str())).collect();
    who.sort_unstable();
    // Which component runs there, and which pool's driver.
    assert_eq!(who, [("node-labeler", "late-0"), ("rebellions-driver-controller", "late-0")], "{patches:?}");
    let others: Vec<_> = writes
        .iter()
        .filter(|write| !matches!(write.resource.as_str(), "nodes" | "acceleratorconfigs/status" | "events"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    // Pods and events are asked for what a rollout waits for that takes long.
    let lists = mark.requests()?.into_iter().filter(|request| {
        request.is_ours() && request.verb == "list" && !matches!(request.resource.as_str(), "pods" | "events")
    });
    assert_eq!(lists.count(), 0, "nobody reads everything again");
    Ok(())
}

/// How often a program has looked at everything.
async fn looks(address: &str) -> f64 {
    let (_, metrics) = crate::programs::get(address, "/metrics").await;
    let counts = metrics.lines().filter(|line| line.starts_with("accelerator_reconcile_total{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A program that waited for a time that has passed would never rest.
async fn expect_rest(addresses: &[String], when: &str) {
    for address in addresses {
        let before = looks(address).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let looks = looks(address).await - before;
        assert!(looks <= 15.0, "{looks} looks in five seconds {when}");
    }
}

#[tokio::test]
async fn who_has_nothing_to_do_rests() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let mut controllers = [cluster.start(LABELER).await, cluster.start(DEVICE_PLUGIN.controller).await];
    let mut addresses = vec![];
    for controller in &mut controllers {
        addresses.push(controller.admin_address().await?);
    }
    cluster.npu_nodes("i", 1, "container").await?;
    let mut section = Access::enable(&["device-plugin"]);
    section["daemonsets"]["labels"] = json!({"sim.test/unready": "true"});
    cluster.configure("default", section.clone()).await?;
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "False/PodsNotReady").await;
    expect_rest(&addresses, "while pods are not ready").await;
    section["devicePlugin"]["enabled"] = json!(false);
    cluster.configure("default", section).await?;
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "False/Disabled").await;
    // For so long it waited between two looks at pods.
    tokio::time::sleep(Duration::from_secs(16)).await;
    expect_rest(&addresses, "when its component is disabled").await;
    cluster.unconfigure("default").await?;
    cluster.expect_deployed("i-0", &[]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    expect_rest(&addresses, "when there is no config").await;
    Ok(())
}
