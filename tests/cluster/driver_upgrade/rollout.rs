//! Upgrades that go well, or that somebody interferes with.

use std::time::Duration;

use serde_json::json;
use testbed::access::OPERANDS;
use testbed::{Cluster, Recording, Trouble, Wait, Workload, eventually};

use super::{Upgrade, assert_canary, assert_clean, drivers};

#[tokio::test]
async fn twenty_nodes_are_upgraded_within_the_budget() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(20).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 4, "maxUnavailable": "25%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(1)));
    for (number, node) in nodes.iter().enumerate().take(6) {
        Workload::npu(&format!("work-{number}"), node).create(&upgrade.cluster).await?;
    }
    Workload::npu("init", &nodes[6]).in_init_container().create(&upgrade.cluster).await?;
    Workload::npu("claim", &nodes[7]).by_claim().create(&upgrade.cluster).await?;
    Workload::plain("bystander", &nodes[8]).create(&upgrade.cluster).await?;

    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 5, 4);
    assert_canary(&history);
    assert_eq!(history.most_under_way().len(), 4, "as many at once as may be");
    for node in &nodes {
        assert_eq!(history.states(node), ["Cordoned", "Restarting", "Validating", "Done"], "{node}");
        assert!(history.events(node) <= 3, "{node}: {} events", history.events(node));
    }
    assert_eq!(upgrade.cluster.workloads().await, ["bystander"], "only who uses NPUs had to leave");
    let mut evicted: Vec<_> = history.evictions().iter().map(|request| request.name.clone()).collect();
    evicted.sort();
    assert_eq!(evicted, ["claim", "init", "work-0", "work-1", "work-2", "work-3", "work-4", "work-5"], "each once");
    Ok(())
}

/// What is not installed on a node: labels, resources, tolerations.
#[tokio::test]
async fn a_change_that_installs_nothing_upgrades_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true})).await?;
    Workload::npu("work", &nodes[0]).create(&upgrade.cluster).await?;
    let (pods, recording) = (upgrade.cluster.pods().await, Recording::start(&upgrade.cluster).await?);
    let mut section = upgrade.section("3.0.0");
    section["daemonsets"] = json!({
        "labels": {"example.com/team": "a"}, "annotations": {"example.com/note": "b"},
        "tolerations": [{"key": "example.com/reserved", "operator": "Exists"}],
    });
    section["driver"]["resources"] = json!({"requests": {"cpu": "300m"}});
    upgrade.cluster.configure("default", section).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 0, 0);
    assert!(history.writes().is_empty() && history.evictions().is_empty());
    assert_eq!(drivers(&upgrade.cluster.pods().await, ""), drivers(&pods, ""));
    Ok(())
}

#[tokio::test]
async fn an_admins_cordon_is_last_in_turn_and_stays() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 2});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.cluster.kubectl(&["cordon", &nodes[0]])?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_state(node, "Done").await;
        upgrade.expect_works(node, "3.1.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 1);
    assert_eq!(history.order(), [nodes[1].clone(), nodes[2].clone(), nodes[0].clone()]);
    assert_eq!(history.end().unschedulable(), [nodes[0].clone()]);
    Ok(())
}

#[tokio::test]
async fn an_upgrade_that_is_called_off_lifts_its_cordons() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let mut upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true, "eviction": {"timeout": "10m"}})).await?;
    for (number, node) in nodes.iter().enumerate() {
        Workload::npu(&format!("kept-{number}"), node).never_disrupted().create(&upgrade.cluster).await?;
    }
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Cordoned").await;
    upgrade.policy["autoUpgrade"] = json!(false);
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_no_trace(node).await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_eq!(upgrade.cluster.workloads().await, ["kept-0", "kept-1", "kept-2"]);
    Ok(())
}

/// A reboot into another kernel needs no upgrade: what ran is gone anyway.
#[tokio::test]
async fn a_node_that_boots_another_kernel_gets_the_driver_for_it() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(2).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true})).await?;
    upgrade.kubelets.reboot(&nodes[1], Some("6.8.0-60-generic"), Duration::from_secs(1)).await?;
    eventually("the driver of the new kernel", async || {
        let images = ["-n", OPERANDS, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"];
        let images = upgrade.cluster.kubectl(&images).unwrap_or_default();
        Wait::until(images, |images| {
            let of = |kernel: &str| images.matches(&format!(":3.0.0-{kernel}-ubuntu22.04")).count();
            (of("5.15.0-130-generic"), of("6.8.0-60-generic")) == (1, 1)
        })
    })
    .await;
    for node in &nodes {
        upgrade.expect_works(node, "3.0.0").await;
        upgrade.expect_schedulable(node).await;
    }
    Ok(())
}
