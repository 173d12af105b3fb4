//! What becomes of the driver of the release before this one: one DaemonSet for all nodes, with a tag that an admin wrote.

use std::time::Duration;

use accelerator_api::AcceleratorConfig;
use accelerator_api::contract::{DRIVER, DRIVER_POOL_LABEL};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Cluster, Kubelets, Recording, Trouble, Wait, eventually, repository};

use super::{Upgrade, assert_canary, drivers};
use crate::LABELER;

/// What the release before applied for the tag below.
const MANIFEST: &str = include_str!("release_before.yaml");

/// What the template makes for the nodes of these tests.
const TAG: &str = "3.0.0-5.15.0-130-generic-ubuntu22.04";

fn tagged(mut section: Value) -> Value {
    section["driver"]["image"] = json!({"tag": TAG});
    section
}

/// A cluster as the release before left it. Of the programs there is only node-labeler.
async fn release_before(count: usize, policy: Value) -> anyhow::Result<(Upgrade, Vec<String>)> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(count).create().await?;
    let kubelets = Kubelets::start(&cluster).await?;
    let upgrade = Upgrade { kubelets, controllers: vec![cluster.start(LABELER).await], policy, cluster };
    upgrade.cluster.configure("default", tagged(upgrade.section("3.0.0"))).await?;
    let mut old: DaemonSet = serde_saphyr::from_str(MANIFEST)?;
    let config = upgrade.cluster.all::<AcceleratorConfig>().get("default").await?;
    old.metadata.owner_references.as_mut().expect("an owner")[0].uid = config.metadata.uid.expect("a uid");
    // As the controller of that release, whose token this is.
    let client = upgrade.cluster.client_of(DRIVER.controller).await?;
    let api = Api::<DaemonSet>::namespaced(client, OPERANDS);
    api.patch(DRIVER.operand, &PatchParams::apply(DRIVER.controller).force(), &Patch::Apply(&old)).await?;
    eventually("the drivers of the release before to run", async || {
        let params = ListParams::default().labels("name=rebellions-driver");
        let pods = upgrade.cluster.namespaced::<Pod>(OPERANDS).list(&params).await.expect("pods").items;
        Wait::until(pods.iter().filter(|pod| testbed::is_ready(pod)).count(), |ready| *ready == count)
    })
    .await;
    Ok((upgrade, nodes))
}

/// Nodes that carry the label of a pool.
async fn with_pool(upgrade: &Upgrade) -> Vec<String> {
    let nodes = upgrade.cluster.all::<Node>().list_metadata(&ListParams::default()).await.expect("nodes").items;
    nodes.iter().filter(|node| node.labels().contains_key(DRIVER_POOL_LABEL)).map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn the_driver_of_the_release_before_is_kept_until_another_is_wanted() -> anyhow::Result<()> {
    let policy = json!({"autoUpgrade": true, "maxParallel": 2, "maxUnavailable": 2});
    let (mut upgrade, nodes) = release_before(4, policy).await?;
    let before = drivers(&upgrade.cluster.pods().await, "");
    let unchanged = async |upgrade: &Upgrade, what: &str| {
        for node in &nodes {
            upgrade.expect_works(node, "3.0.0").await;
        }
        upgrade.cluster.expect_ready("default").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(drivers(&upgrade.cluster.pods().await, ""), before, "{what}: no driver is replaced");
        assert_eq!(with_pool(upgrade).await, Vec::<String>::new(), "{what}: no node is written");
        for node in &nodes {
            upgrade.expect_no_trace(node).await;
        }
    };
    for program in repository::programs().filter(|program| *program != LABELER) {
        upgrade.start(program).await?;
    }
    unchanged(&upgrade, "this release").await;
    assert_eq!(daemon_sets(&upgrade).await, ["rebellions-device-plugin", "rebellions-driver"]);

    // The same image by the template.
    upgrade.configure("3.0.0").await?;
    eventually("the DaemonSet of all nodes to be gone", async || {
        let names = daemon_sets(&upgrade).await;
        Wait::until(names, |names| names.iter().all(|name| name != "rebellions-driver") && names.len() == 2)
    })
    .await;
    unchanged(&upgrade, "the same image").await;

    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(1)));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_canary(&history);
    assert_eq!(history.two_drivers(), Vec::<String>::new());
    assert_eq!(history.cordons_left(), Vec::<String>::new());
    assert!(history.most_unavailable().len() <= 2 && history.most_under_way().len() <= 2);
    // One more than in another upgrade, for the pool.
    assert!(history.writes().values().all(|writes| writes.len() <= 7), "{:?}", history.writes());
    assert_eq!(with_pool(&upgrade).await, nodes);
    let names = daemon_sets(&upgrade).await;
    assert!(!names.contains(&"rebellions-driver".to_owned()), "{names:?}");
    Ok(())
}

async fn daemon_sets(upgrade: &Upgrade) -> Vec<String> {
    upgrade.cluster.daemon_sets().await.iter().map(ResourceExt::name_any).collect()
}
