//! Upgrades in the middle of which somebody does something else.

use std::time::Duration;

use accelerator_api::contract::{
    DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_SKIP_LABEL,
};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use testbed::{Cluster, Recording, Trouble, Wait, Workload, eventually};

use super::{Upgrade, assert_canary, assert_clean, drivers};

/// Three nodes. On the first, which is begun, is a pod that does not leave.
async fn held(policy: Value) -> anyhow::Result<(Upgrade, Vec<String>, Recording)> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let upgrade = Upgrade::new(cluster, policy).await?;
    Workload::npu("kept", &nodes[0]).never_disrupted().create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Cordoned").await;
    Ok((upgrade, nodes, recording))
}

fn patient() -> Value {
    json!({"autoUpgrade": true, "eviction": {"timeout": "10m"}})
}

#[tokio::test]
async fn a_cordon_that_an_admin_lifted_is_not_set_again_and_the_admins_own_stays() -> anyhow::Result<()> {
    let mut policy = patient();
    policy["maxUnavailable"] = json!(2);
    let (upgrade, nodes, recording) = held(policy).await?;
    upgrade.cluster.kubectl(&["uncordon", &nodes[0]])?;
    eventually("the record to give up the cordon", async || {
        Wait::until(upgrade.record(&nodes[0]).await.map(|record| record.cordoned), |cordoned| *cordoned == Some(false))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    upgrade.expect_schedulable(&nodes[0]).await;
    upgrade.cluster.kubectl(&["cordon", &nodes[0]])?;
    upgrade.cluster.unprotect("kept")?;
    for node in &nodes {
        upgrade.expect_state(node, "Done").await;
        upgrade.expect_works(node, "3.1.0").await;
    }
    let mut history = recording.stop(&upgrade.cluster).await?;
    assert_eq!(history.end().unschedulable(), [nodes[0].clone()], "the admin's own cordon");
    let ours = history.writes().into_values().flatten().filter(|write| {
        write.name == nodes[0] && write.json().pointer("/spec/unschedulable").is_some_and(|value| *value == true)
    });
    assert_eq!(ours.count(), 1, "cordoned once by us");
    // Giving up the cordon is a write of its own, which only an upgrade costs that somebody interferes with.
    assert!(history.writes()[&nodes[0]].len() <= 7);
    history.requests.retain(|request| request.name != nodes[0]);
    assert_clean(&history, 2, 1);
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_deleted_holds_up_no_other_and_comes_back_as_a_new_one() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    upgrade.cluster.all::<Node>().delete(&nodes[0], &params).await?;
    for node in &nodes[1..] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    // The node is gone, and its cordon with it.
    assert_clean(&history, 1, 1);
    assert_eq!(upgrade.cluster.machines("n").create().await?, nodes[..1]);
    upgrade.expect_works(&nodes[0], "3.1.0").await;
    upgrade.expect_no_trace(&nodes[0]).await;
    upgrade.cluster.expect_ready("default").await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_changes_its_mode_is_given_back_as_it_was() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    upgrade.cluster.set_mode(&nodes[0], Some("vm-passthrough")).await?;
    upgrade.expect_no_trace(&nodes[0]).await;
    for node in &nodes[1..] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    eventually("no driver on the node", async || {
        Wait::until(drivers(&upgrade.cluster.pods().await, &nodes[0]), Vec::is_empty)
    })
    .await;
    let history = recording.stop(&upgrade.cluster).await?;
    // The node that left has no driver, and is unavailable to no one.
    assert_clean(&history, 2, 1);
    assert_eq!(upgrade.cluster.workloads().await, ["kept"]);
    Ok(())
}

/// Also when nothing of its driver is left by then.
#[tokio::test]
async fn a_node_that_changes_its_mode_while_its_driver_restarts_is_given_back() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(2).create().await?;
    let upgrade = Upgrade::new(cluster, patient()).await?;
    upgrade.kubelets.trouble(Trouble::never_ready(":3.1.0").on(&nodes[..1]));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Restarting").await;
    upgrade.cluster.set_mode(&nodes[0], Some("vm-passthrough")).await?;
    upgrade.expect_no_trace(&nodes[0]).await;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    upgrade.cluster.expect_deployed(&nodes[0], crate::VM).await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 1);
    upgrade.kubelets.heal();
    upgrade.cluster.set_mode(&nodes[0], Some("container")).await?;
    upgrade.expect_works(&nodes[0], "3.1.0").await;
    upgrade.expect_no_trace(&nodes[0]).await;
    Ok(())
}

#[tokio::test]
async fn a_config_that_is_deleted_leaves_no_trace_of_its_upgrade() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    upgrade.cluster.unconfigure("default").await?;
    for node in &nodes {
        upgrade.expect_no_trace(node).await;
    }
    upgrade.cluster.expect_operands(&[]).await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    assert!(history.evictions().iter().all(|request| request.code == 429));
    assert_eq!(upgrade.cluster.workloads().await, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn a_driver_that_is_disabled_leaves_no_trace_of_its_upgrade() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    let mut section = upgrade.section("3.1.0");
    section["driver"]["enabled"] = json!(false);
    upgrade.cluster.configure("default", section).await?;
    for node in &nodes {
        upgrade.expect_no_trace(node).await;
    }
    upgrade.cluster.expect_condition("default", DRIVER.condition_type, "False/Disabled").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    assert_eq!(upgrade.cluster.workloads().await, ["kept"]);
    // And on again: nobody waits for what was under way.
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_works(node, "3.1.0").await;
    }
    Ok(())
}

/// The hosts have a driver of their own now.
#[tokio::test]
async fn a_driver_that_is_preinstalled_from_now_on_leaves_no_trace() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    let mut section = upgrade.section("3.1.0");
    section["driver"]["mode"] = json!("preinstalled");
    upgrade.cluster.configure("default", section).await?;
    for node in &nodes {
        upgrade.expect_no_trace(node).await;
    }
    upgrade.cluster.expect_operands(&["device-plugin"]).await;
    upgrade.cluster.expect_condition("default", DRIVER.condition_type, "True/Preinstalled").await;
    upgrade.cluster.expect_ready("default").await;
    eventually("no driver", async || Wait::until(drivers(&upgrade.cluster.pods().await, ""), Vec::is_empty)).await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    for node in &nodes {
        let labels = upgrade.cluster.labels(node).await?;
        assert_eq!(labels.get(DRIVER_POOL_LABEL), None, "{node}");
    }
    Ok(())
}

#[tokio::test]
async fn a_version_that_changes_again_is_the_one_that_counts() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(4).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 2, "maxUnavailable": 2, "eviction": {"timeout": "10m"}});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(2)));
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(30)).on(&nodes[1..2]));
    Workload::npu("kept", &nodes[2]).never_disrupted().create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_done(&nodes[0], "3.1.0").await;
    // One whose driver is gone, and one whose driver still works.
    upgrade.expect_state(&nodes[2], "Cordoned").await;
    eventually("the second node to be without a driver", async || {
        let seen = upgrade.works(&nodes[1], "3.0.0").await.err().unwrap_or_default();
        Wait::until(seen, |seen| seen.contains("3.1.0"))
    })
    .await;
    upgrade.configure("3.2.0").await?;
    upgrade.cluster.unprotect("kept")?;
    for node in &nodes {
        upgrade.expect_works(node, "3.2.0").await;
        upgrade.expect_done(node, "3.2.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    let states = history.states(&nodes[1]);
    assert_eq!(
        states,
        ["Cordoned", "Restarting", "Validating", "Done"],
        "without a driver it goes on with the newer one"
    );
    // Its record is written once more for that; nothing else is written because another version is wanted.
    let writes: Vec<_> = history.writes_out_of_turn().into_iter().filter(|line| !line.contains(&nodes[1])).collect();
    assert_eq!(writes, Vec::<String>::new());
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    assert_eq!(history.evictions_out_of_turn(), Vec::<String>::new());
    assert!(history.most_unavailable().len() <= 2 && history.most_under_way().len() <= 2);
    Ok(())
}

#[tokio::test]
async fn nodes_that_join_in_the_middle_get_the_new_driver_at_once() -> anyhow::Result<()> {
    let (upgrade, nodes, recording) = held(patient()).await?;
    let joined = upgrade.cluster.machines("late").count(2).create().await?;
    for node in &joined {
        upgrade.expect_works(node, "3.1.0").await;
        upgrade.expect_no_trace(node).await;
    }
    upgrade.expect_state(&nodes[0], "Cordoned").await;
    upgrade.cluster.unprotect("kept")?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    let begun = history.order();
    assert!(joined.iter().all(|node| !begun.contains(node)), "{begun:?}");
    assert!(history.most_under_way().len() == 1);
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    for node in &joined {
        assert_eq!(history.states(node), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn each_kernel_is_proven_by_a_node_of_its_own() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let old = cluster.machines("old").count(3).create().await?;
    let new = cluster.machines("new").count(3).kernel("6.8.0-60-generic").os("ubuntu", "24.04").create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 4, "maxUnavailable": 4});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(1)));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in old.iter().chain(&new) {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 4, 4);
    for pool in [&old, &new] {
        let order: Vec<_> = history.order().into_iter().filter(|node| pool.contains(node)).collect();
        assert!(history.began_after(&order[0], "Done", &order[1..]), "{} was not upgraded alone: {order:?}", order[0]);
    }
    Ok(())
}

#[tokio::test]
async fn a_node_that_is_skipped_keeps_its_driver_and_one_that_is_asked_for_gets_a_new_pod_once() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true})).await?;
    upgrade.cluster.label(&nodes[0], DRIVER_UPGRADE_SKIP_LABEL, Some("true")).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes[1..] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.expect_works(&nodes[0], "3.0.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_canary(&history);
    assert!(!history.writes().contains_key(&nodes[0]), "a node that is skipped is not written");

    let (pods, recording) = (upgrade.cluster.pods().await, Recording::start(&upgrade.cluster).await?);
    Workload::npu("work", &nodes[1]).create(&upgrade.cluster).await?;
    upgrade.request(&nodes[1])?;
    eventually("the request to be heard", async || {
        let metadata = upgrade.cluster.all::<Node>().get_metadata(&nodes[1]).await.expect("a node");
        let asked = metadata.annotations().get(DRIVER_UPGRADE_REQUESTED_ANNOTATION).cloned();
        Wait::until(asked, Option::is_none)
    })
    .await;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_eq!(history.order(), [nodes[1].clone()]);
    assert_eq!(history.states(&nodes[1]), ["Done", "Cordoned", "Restarting", "Validating", "Done"], "once");
    let after = upgrade.cluster.pods().await;
    assert_ne!(drivers(&after, &nodes[1]), drivers(&pods, &nodes[1]));
    for node in [&nodes[0], &nodes[2]] {
        assert_eq!(drivers(&after, node), drivers(&pods, node));
    }
    Ok(())
}
