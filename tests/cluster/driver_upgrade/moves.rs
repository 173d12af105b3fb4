//! Nodes that move from one living pool to another without a reboot.

use accelerator_api::contract::{DRIVER_POOL_LABEL, NODE_LABELER};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde_json::json;
use testbed::{Cluster, Recording, Wait, Workload, eventually};

use super::{Upgrade, assert_canary};

/// An upgrade's writes to a node, and two for its pool.
const WRITES: usize = 8;

/// Pods take two seconds to end, so that one that does not wait for the other is seen beside it.
#[tokio::test]
async fn the_old_driver_ends_before_another_pools_begins() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true, "maxParallel": 2, "maxUnavailable": 2})).await?;
    let section = |template: &str, version: &str| {
        let mut section = upgrade.section(version);
        section["driver"]["imageTagTemplate"] = template.into();
        section["daemonsets"] = json!({"annotations": {"sim.test/term": "2s"}});
        section
    };
    // With another driver each node gets a pod with that annotation.
    upgrade.cluster.configure("default", section("", "3.1.0")).await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;

    Workload::npu("work", &nodes[1]).create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.cluster.configure("default", section("{version}-{arch}-{kernel}", "3.1.0")).await?;
    for node in &nodes {
        eventually(&format!("{node} to be in its new pool"), async || {
            let metadata = upgrade.cluster.all::<Node>().get_metadata(node).await.expect("a node");
            let pool = metadata.labels().get(DRIVER_POOL_LABEL).cloned().unwrap_or_default();
            Wait::until(pool, |pool| pool.ends_with("-amd64"))
        })
        .await;
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_eq!(history.two_drivers(), Vec::<String>::new());
    assert_canary(&history);
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    assert_eq!(history.evictions_out_of_turn(), Vec::<String>::new());
    assert!(history.most_unavailable().len() <= 2 && history.most_under_way().len() <= 2);
    for (node, writes) in history.writes() {
        assert!(writes.len() <= WRITES, "{node}: {writes:?}");
        assert!(writes.iter().filter(|write| write.user == NODE_LABELER).count() <= 2, "{node}: {writes:?}");
        assert_eq!(history.drivers(&node), 2, "{node}: the old one and the new one");
    }
    Ok(())
}
