//! Upgrades while node-labeler, which makes the driver's users step aside, is not there.

use accelerator_api::contract::{DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::json;
use testbed::{Cluster, Recording, Trouble, Wait, Workload, eventually};

use super::{BLOCKED, Upgrade, assert_clean, drivers};
use crate::{CONTAINER, LABELER};

#[tokio::test]
async fn without_node_labeler_no_driver_is_touched_and_the_node_is_given_back() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(2).create().await?;
    let policy = json!({"autoUpgrade": true, "eviction": {"timeout": "20s"}});
    let mut upgrade = Upgrade::new(cluster, policy).await?;
    let pods = upgrade.cluster.pods().await;
    upgrade.kill(LABELER);
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        let told = upgrade.expect_failed(node, "DependentsStay").await;
        assert!(told.contains("node-labeler") && told.contains("rebellions-device-plugin"), "{told}");
        let metadata = upgrade.cluster.all::<Node>().get_metadata(node).await?;
        assert_eq!(metadata.annotations().get(DEPENDENTS_PAUSED_UNTIL_ANNOTATION), None);
    }
    let told = upgrade.cluster.expect_condition("default", BLOCKED, "True/NodesFailed").await;
    assert!(told.contains(&nodes[0]), "{told}");
    assert_eq!(upgrade.cluster.pods().await, pods, "nothing was disturbed");
    upgrade.start(LABELER).await?;
    for node in &nodes {
        upgrade.request(node)?;
        upgrade.expect_done(node, "3.1.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    Ok(())
}

/// It ends while the driver's users are aside: the new driver runs, and nobody brings them back.
#[tokio::test]
async fn a_node_whose_components_do_not_come_back_is_told_and_heals() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(2).create().await?;
    let policy = json!({"autoUpgrade": true, "validationTimeout": "20s"});
    let mut upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", std::time::Duration::from_secs(4)));
    Workload::npu("kept", &nodes[1]).never_disrupted().create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    let before = drivers(&upgrade.cluster.pods().await, &nodes[0]);
    eventually("the old driver to be gone", async || {
        Wait::until(drivers(&upgrade.cluster.pods().await, &nodes[0]), |pods| *pods != before)
    })
    .await;
    upgrade.kill(LABELER);
    let told = upgrade.expect_failed(&nodes[0], "NpusMissing").await;
    assert!(told.contains("node-labeler") && told.contains("device-plugin"), "{told}");
    upgrade.cluster.expect_condition("default", DRIVER.condition_type, "False/RolloutInProgress").await;
    upgrade.start(LABELER).await?;
    upgrade.cluster.expect_deployed(&nodes[0], CONTAINER).await;
    upgrade.expect_done(&nodes[0], "3.1.0").await;
    upgrade.cluster.unprotect("kept")?;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    Ok(())
}
