//! Which deploy labels a node gets, and when it loses them.

use std::time::Duration;

use accelerator_api::contract::DRIVER_POOL_LABEL;
use serde_json::json;
use testbed::nodes::{DEPLOY_PREFIX, DISCOVERED, npu_labels};
use testbed::{Access, Cluster, Wait, eventually};

use crate::{CONTAINER, LABELER, VM};

/// Long enough for a controller that would do something wrong to do it.
const A_WHILE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn each_mode_has_exactly_its_labels_and_runs_exactly_its_components() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("c", 2, "container").await?;
    cluster.npu_nodes("v", 1, "vm-passthrough").await?;
    cluster.npu_nodes("n", 1, "").await?;
    let before = cluster.labels("c-0").await?;
    cluster.configure("default", Access::enable_all()).await?;

    for node in ["c-0", "c-1"] {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    cluster.expect_deployed("v-0", VM).await;
    cluster.expect_ready("default").await;
    assert_eq!(cluster.deploy_labels("n-0").await, Vec::<String>::new(), "no mode, no default: left alone");

    let mut expected: Vec<_> =
        ["c-0", "c-1"].iter().flat_map(|node| CONTAINER.iter().map(move |one| format!("{one}@{node}"))).collect();
    expected.extend(VM.iter().map(|one| format!("{one}@v-0")));
    expected.sort();
    assert_eq!(cluster.pods().await.into_keys().collect::<Vec<_>>(), expected);

    let mut after = cluster.labels("c-0").await?;
    after.retain(|key, _| !key.starts_with(DEPLOY_PREFIX));
    assert!(after.remove(DRIVER_POOL_LABEL).is_some(), "the driver's controller says which pool serves the node");
    assert_eq!(after, before, "nothing else on the node changed");
    let counts = cluster.config("default").await["status"]["nodes"].clone();
    assert_eq!(counts, json!({"container": 2, "vmPassthrough": 1, "withoutMode": 1, "invalidMode": 0, "skipped": 0}));
    Ok(())
}

#[tokio::test]
async fn a_mode_switch_replaces_the_labels_and_taking_the_mode_away_removes_them() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("s", 2, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;

    cluster.set_mode("s-0", Some("vm-passthrough")).await?;
    cluster.expect_deployed("s-0", VM).await;
    cluster.set_mode("s-1", None).await?;
    cluster.expect_deployed("s-1", &[]).await;
    eventually("the pods to follow", async || {
        let pods: Vec<_> = cluster.pods().await.into_keys().collect();
        Wait::until(pods, |pods| *pods == VM.iter().map(|one| format!("{one}@s-0")).collect::<Vec<_>>())
    })
    .await;
    cluster.expect_ready("default").await;
    Ok(())
}

#[tokio::test]
async fn one_patch_per_node_per_decision() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let mark = cluster.mark()?;
    let _labeler = cluster.start(LABELER).await;
    let nodes = cluster.npu_nodes("p", 30, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    for node in &nodes {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    let patches = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes").count();
    assert_eq!(patches, nodes.len());
    Ok(())
}

#[tokio::test]
async fn a_typo_changes_nothing_and_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("t", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("t-0", CONTAINER).await;

    cluster.set_mode("t-0", Some("contianer")).await?;
    let event = cluster.expect_event("t-0", "WorkloadConfigInvalid").await;
    assert!(event.contains("contianer") && event.contains("vm-passthrough"), "{event}");
    tokio::time::sleep(A_WHILE).await;
    cluster.expect_deployed("t-0", CONTAINER).await;
    eventually("the status to count it", async || {
        let invalid = cluster.config("default").await["status"]["nodes"]["invalidMode"].clone();
        Wait::until(invalid, |invalid| *invalid == 1)
    })
    .await;

    // It is told once, also by the next process.
    labeler.stop()?;
    let _labeler = cluster.start(LABELER).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(cluster.events("t-0").await.len(), 1);
    Ok(())
}

#[tokio::test]
async fn values_of_others_are_neither_overwritten_nor_removed() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("o", 1, "container").await?;
    cluster.label("o-0", "rebellions.ai/npu.deploy.driver", Some("false")).await?;
    cluster.label("o-0", "rebellions.ai/npu.deploy.device-plugin", Some("paused-for-driver-upgrade")).await?;
    let _labeler = cluster.start(LABELER).await;
    cluster.configure("default", Access::enable_all()).await?;
    let expect = async |expected: &[&str]| {
        eventually(&format!("{expected:?}"), async || {
            Wait::until(cluster.deploy_labels("o-0").await, |labels| *labels == expected)
        })
        .await
    };
    let paused = "device-plugin=paused-for-driver-upgrade";
    expect(&[paused, "driver=false", "metric-exporter=true", "npu-feature-discovery=true"]).await;
    cluster.set_mode("o-0", Some("vm-passthrough")).await?;
    expect(&[paused, "driver=false", "npu-feature-discovery=true", "vfio-manager=true"]).await;
    cluster.unconfigure("default").await?;
    expect(&[paused, "driver=false"]).await;
    Ok(())
}

#[tokio::test]
async fn a_skipped_node_stays_as_it_is() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("k", 2, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("k-0", CONTAINER).await;
    cluster.expect_deployed("k-1", CONTAINER).await;

    cluster.label("k-0", "rebellions.ai/npu.deploy.skip", Some("true")).await?;
    for node in ["k-0", "k-1"] {
        cluster.set_mode(node, Some("vm-passthrough")).await?;
    }
    cluster.expect_deployed("k-1", VM).await;
    assert!(cluster.deploy_labels("k-0").await.contains(&"driver=true".to_owned()));
    cluster.label("k-0", "rebellions.ai/npu.deploy.skip", None).await?;
    cluster.expect_deployed("k-0", VM).await;
    Ok(())
}

#[tokio::test]
async fn the_default_mode_is_for_npu_nodes_without_a_mode() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("d", 2, "").await?;
    testbed::nodes::create(&cluster.client, ["cpu-0".into()], &[].into()).await?;
    cluster.set_mode("d-1", Some("container")).await?;
    let mut section = Access::enable_all();
    section["workload"] = json!({"default": "vm-passthrough"});
    cluster.configure("default", section).await?;
    cluster.expect_deployed("d-0", VM).await;
    cluster.expect_deployed("d-1", CONTAINER).await;
    assert_eq!(cluster.deploy_labels("cpu-0").await, Vec::<String>::new());

    // Without the default, what it gave is taken back; what the node says itself stays.
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("d-0", &[]).await;
    cluster.expect_deployed("d-1", CONTAINER).await;
    Ok(())
}

#[tokio::test]
async fn lost_discovery_is_held_down() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start_with(LABELER, &["--discovery-hold-down", "20s"]).await;
    cluster.npu_nodes("h", 2, "").await?;
    let mut section = Access::enable_all();
    section["workload"] = json!({"default": "container"});
    cluster.configure("default", section).await?;
    cluster.expect_deployed("h-0", CONTAINER).await;
    cluster.expect_deployed("h-1", CONTAINER).await;

    let mark = cluster.mark()?;
    for node in ["h-0", "h-1"] {
        cluster.label(node, DISCOVERED, None).await?;
    }
    tokio::time::sleep(A_WHILE).await;
    cluster.label("h-0", DISCOVERED, Some("true")).await?;
    let patches = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes").count();
    assert_eq!(patches, 0, "nothing happens within the hold-down");
    cluster.expect_deployed("h-1", &[]).await;
    cluster.expect_deployed("h-0", CONTAINER).await;
    Ok(())
}

#[tokio::test]
async fn an_explicit_mode_needs_no_discovery() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start_with(LABELER, &["--discovery-hold-down", "0s"]).await;
    testbed::nodes::create(&cluster.client, ["e-0".into()], &[].into()).await?;
    cluster.set_mode("e-0", Some("container")).await?;
    let mut section = Access::enable_all();
    section["workload"] = json!({"default": "vm-passthrough"});
    cluster.configure("default", section).await?;
    cluster.expect_deployed("e-0", CONTAINER).await;
    tokio::time::sleep(A_WHILE).await;
    cluster.expect_deployed("e-0", CONTAINER).await;
    Ok(())
}

#[tokio::test]
async fn labels_set_by_hand_outlive_the_arrival_of_the_labeler() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    testbed::nodes::create(&cluster.client, ["m-0".into()], &npu_labels()).await?;
    cluster.label("m-0", "rebellions.ai/npu.deploy.driver", Some("true")).await?;
    cluster.configure("default", Access::enable_all()).await?;
    let mark = cluster.mark()?;
    let _labeler = cluster.start(LABELER).await;
    cluster.expect_condition("default", "Accepted", "True/Active").await;
    tokio::time::sleep(A_WHILE).await;
    assert!(mark.our_writes()?.iter().all(|write| write.resource != "nodes"));
    cluster.expect_deployed("m-0", &["driver"]).await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_vanishes_under_a_patch_is_no_error() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let labeler = cluster.start(LABELER).await;
    cluster.configure("default", Access::enable_all()).await?;
    // Nodes that are there for a moment only, so that many patches meet none.
    for round in 0..5 {
        let nodes = cluster.npu_nodes(&format!("r{round}"), 20, "container").await?;
        for node in &nodes {
            cluster.all::<k8s_openapi::api::core::v1::Node>().delete(node, &kube::api::DeleteParams::default()).await?;
        }
    }
    cluster.npu_nodes("last", 1, "container").await?;
    cluster.expect_deployed("last-0", CONTAINER).await;
    let log = labeler.log();
    assert!(log.iter().all(|line| line["message"] != "Could not label node; trying again"), "{log:?}");
    assert_eq!(
        cluster
            .all::<k8s_openapi::api::core::v1::Node>()
            .list_metadata(&kube::api::ListParams::default())
            .await?
            .items
            .len(),
        1,
        "no ghosts"
    );
    Ok(())
}
