//! Nodes on which it does not work out: each is named with its reason, and holds up no other.

use std::time::Duration;

use accelerator_api::contract::DRIVER;
use serde_json::json;
use testbed::{Cluster, History, Recording, Trouble, Workload};

use super::{BLOCKED, Upgrade, assert_canary, assert_clean, drivers};

#[tokio::test]
async fn a_budget_that_never_allows_costs_one_node_its_upgrade() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(4).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 1, "eviction": {"timeout": "10s"},
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    Workload::npu("kept", &nodes[1]).never_disrupted().create(&upgrade.cluster).await?;
    let pods = upgrade.cluster.pods().await;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    let told = upgrade.expect_failed(&nodes[1], "EvictionTimedOut").await;
    assert!(told.contains("kept") && told.contains("disruption budget"), "{told}");
    for node in [&nodes[0], &nodes[2], &nodes[3]] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert!(history.evictions().iter().all(|request| request.name == "kept" && request.code == 429));
    assert_eq!(upgrade.cluster.workloads().await, ["kept"]);
    upgrade.expect_works(&nodes[1], "3.0.0").await;
    assert_eq!(
        drivers(&upgrade.cluster.pods().await, &nodes[1]),
        drivers(&pods, &nodes[1]),
        "its driver was left alone"
    );

    upgrade.cluster.unprotect("kept")?;
    upgrade.request(&nodes[1])?;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    assert_eq!(upgrade.cluster.workloads().await, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_job_is_waited_for_until_its_time_is_up() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(1).create().await?;
    let jobs = json!({"podSelector": "kind=training", "timeout": "8s"});
    let policy = json!({"autoUpgrade": true, "waitForJobs": jobs});
    let upgrade = Upgrade::new(cluster, policy).await?;
    Workload::npu("job", &nodes[0]).label("kind", "training").create(&upgrade.cluster).await?;
    Workload::npu("work", &nodes[0]).create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Cordoned").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(upgrade.cluster.workloads().await, ["job", "work"], "nobody is evicted while the job is waited for");
    upgrade.expect_done(&nodes[0], "3.1.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_eq!(upgrade.cluster.workloads().await, Vec::<String>::new());
    let cordon = history.writes()[&nodes[0]][0].ended;
    let evictions = history.evictions();
    let waited = Duration::try_from(evictions[0].begun.duration_since(cordon))?;
    assert!(waited >= Duration::from_secs(7), "evicted after {waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_node_that_goes_down_in_the_middle_is_passed_by_and_heals() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(4).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 2, "validationTimeout": "20s",
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(3)));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[1], "Restarting").await;
    upgrade.kubelets.power_off(&nodes[1]).await?;
    for node in [&nodes[0], &nodes[2], &nodes[3]] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.expect_state(&nodes[1], "Failed").await;
    upgrade.expect_schedulable(&nodes[1]).await;
    upgrade.kubelets.power_on(&nodes[1]).await?;
    // Where its old driver's pod had gone before the power did, it heals by itself; else it is tried again, in five minutes or on demand.
    upgrade.request(&nodes[1])?;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 1);
    Ok(())
}

/// Of the first four nodes, three crash. One failure is always tolerated, so that a node or two more may have begun meanwhile.
async fn crash_on_three_of_twenty(on_failure: &str) -> anyhow::Result<(Upgrade, Vec<String>, History)> {
    let cluster = Cluster::lease().await;
    let mut nodes = cluster.machines("n").count(20).create().await?;
    nodes.sort();
    let policy = json!({"autoUpgrade": true, "maxParallel": 3, "maxUnavailable": "25%", "validationTimeout": "15s",
                        "failureThreshold": "10%", "onFailure": on_failure});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::crash(":3.1.0", 1).on(&nodes[1..4]));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    let told = upgrade.cluster.expect_condition("default", BLOCKED, "True/FailureThresholdExceeded").await;
    if on_failure == "Rollback" {
        for node in &nodes {
            upgrade.expect_works(node, "3.0.0").await;
            upgrade.expect_schedulable(node).await;
        }
    } else {
        assert!(nodes[1..4].iter().any(|node| told.contains(node.as_str())), "{told}");
        upgrade.expect_done(&nodes[0], "3.1.0").await;
        for node in &nodes[1..4] {
            upgrade.expect_state(node, "Failed").await;
            upgrade.expect_schedulable(node).await;
        }
    }
    for node in &nodes {
        upgrade.expect_schedulable(node).await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 5, 3);
    assert_canary(&history);
    let touched = history.order();
    assert!(nodes[..4].iter().all(|node| touched.contains(node)) && touched.len() <= 6, "{touched:?}");
    Ok((upgrade, nodes, history))
}

#[tokio::test]
async fn a_driver_that_crashes_on_too_many_nodes_pauses_the_rollout() -> anyhow::Result<()> {
    let (upgrade, nodes, history) = crash_on_three_of_twenty("Pause").await?;
    for node in nodes.iter().filter(|node| !history.order().contains(node)) {
        upgrade.expect_works(node, "3.0.0").await;
    }
    // Another version is another try, for all of them.
    upgrade.configure("3.1.1").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.1").await;
    }
    assert_eq!(upgrade.cluster.condition("default", BLOCKED).await, "");
    Ok(())
}

#[tokio::test]
async fn a_driver_that_crashes_on_too_many_nodes_is_rolled_back() -> anyhow::Result<()> {
    let (_, nodes, history) = crash_on_three_of_twenty("Rollback").await?;
    for node in &nodes[..4] {
        assert!(history.states(node).len() > 3, "{node} was upgraded and rolled back: {:?}", history.states(node));
    }
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_missing_for_one_kernel_holds_up_no_other() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let old = cluster.machines("old").count(3).create().await?;
    let new = cluster.machines("new").count(2).kernel("6.8.0-60-generic").create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 2, "maxUnavailable": 2, "validationTimeout": "15s",
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    let tag = "3.1.0-6.8.0-60-generic-ubuntu22.04";
    upgrade.kubelets.trouble(Trouble::image_missing(tag));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &old {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let told = upgrade.cluster.expect_condition("default", DRIVER.condition_type, "False/DriverImageMissing").await;
    assert!(told.contains(tag) && told.contains(&new[0]), "{told}");
    upgrade.expect_works(&new[1], "3.0.0").await;

    upgrade.kubelets.heal();
    for node in &new {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 2);
    assert!(history.evictions().is_empty(), "nobody was in the way");
    Ok(())
}
