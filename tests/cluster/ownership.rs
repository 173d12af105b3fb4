//! Whose a deploy label is: what node-labeler set goes when it is no longer wanted, whatever others did to it meanwhile,
//! and what an admin set stays.

use accelerator_api::contract::{NODE_LABELER, OWNED_LABELS_ANNOTATION};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::nodes::npu_labels;
use testbed::{Access, Cluster, Wait, eventually};

use crate::{CONTAINER, LABELER};

const DEVICE_PLUGIN: &str = "rebellions.ai/npu.deploy.device-plugin";
const DRIVER: &str = "rebellions.ai/npu.deploy.driver";

/// Sets labels as somebody with this field manager.
async fn label_as(cluster: &Cluster, manager: &str, node: &str, labels: Value) -> anyhow::Result<()> {
    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    cluster.all::<Node>().patch_metadata(node, &params, &patch).await?;
    Ok(())
}

/// As a backup tool does, which reads an object and writes it back without the API server's book-keeping.
async fn wipe_managed_fields(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
    cluster.all::<Node>().patch_metadata(node, &PatchParams::default(), &patch).await?;
    let api = cluster.all::<Node>();
    let mut object = api.get(node).await?;
    object.metadata.managed_fields = Some(vec![]);
    let params = PostParams { field_manager: Some("backup-tool".into()), ..PostParams::default() };
    api.replace(node, &params, &object).await?;
    let managers = api.get_metadata(node).await?.metadata.managed_fields.unwrap_or_default();
    assert!(managers.iter().all(|entry| entry.manager.as_deref() != Some(LABELER)), "{managers:?}");
    Ok(())
}

async fn record(cluster: &Cluster, node: &str) -> Option<String> {
    let node = cluster.all::<Node>().get_metadata(node).await.ok()?;
    node.metadata.annotations.unwrap_or_default().remove(OWNED_LABELS_ANNOTATION)
}

async fn expect_labels(cluster: &Cluster, node: &str, expected: &[&str]) {
    eventually(&format!("{node} to have {expected:?}"), async || {
        Wait::until(cluster.deploy_labels(node).await, |labels| *labels == expected)
    })
    .await;
}

#[tokio::test]
async fn a_label_that_was_paused_and_resumed_by_another_goes_with_the_mode() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("p", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("p-0", CONTAINER).await;
    for value in ["paused-for-driver-upgrade", "true"] {
        label_as(&cluster, "k8s-driver-manager", "p-0", json!({DEVICE_PLUGIN: value})).await?;
    }
    cluster.set_mode("p-0", None).await?;
    cluster.expect_deployed("p-0", &[]).await;
    eventually("the record to go as well", async || Wait::until(record(&cluster, "p-0").await, Option::is_none)).await;
    Ok(())
}

#[tokio::test]
async fn wiped_managed_fields_take_nothing_from_us_and_an_admins_label_stays() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("w", 1, "container").await?;
    testbed::nodes::create(&cluster.client, ["m-0".into()], &npu_labels()).await?;
    label_as(&cluster, "kubectl-label", "m-0", json!({DRIVER: "true"})).await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("w-0", CONTAINER).await;

    labeler.stop()?;
    wipe_managed_fields(&cluster, "w-0").await?;
    wipe_managed_fields(&cluster, "m-0").await?;
    let mark = cluster.mark()?;
    let _labeler = cluster.start(LABELER).await;
    cluster.unconfigure("default").await?;
    cluster.configure("next", Access::enable(&[])).await?;
    cluster.set_mode("w-0", None).await?;
    cluster.expect_deployed("w-0", &[]).await;
    assert_eq!(cluster.deploy_labels("m-0").await, ["driver=true"], "it is the admin's");
    let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes").count();
    assert_eq!(writes, 1, "one PATCH takes all of them away");
    Ok(())
}

/// Labelled by a release that left no record. Nothing is written for it, until the API server's word is about to be lost.
#[tokio::test]
async fn labels_of_the_release_before_are_taken_over_when_somebody_pauses_one() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.npu_nodes("u", 2, "container").await?;
    for node in &nodes {
        let all: serde_json::Map<_, _> =
            CONTAINER.iter().map(|name| (format!("rebellions.ai/npu.deploy.{name}"), json!("true"))).collect();
        label_as(&cluster, NODE_LABELER, node, all.into()).await?;
    }
    cluster.configure("default", Access::enable_all()).await?;
    let mark = cluster.mark()?;
    let labeler = cluster.start(LABELER).await;
    cluster.expect_condition("default", "Accepted", "True/Active").await;
    let patches = || -> anyhow::Result<Vec<String>> {
        let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes");
        Ok(writes.map(|write| write.name).collect())
    };
    assert_eq!(patches()?, Vec::<String>::new(), "an upgrade writes no node");

    label_as(&cluster, "k8s-driver-manager", "u-0", json!({DEVICE_PLUGIN: "paused-for-driver-upgrade"})).await?;
    eventually("the record", async || Wait::until(record(&cluster, "u-0").await, Option::is_some)).await;
    labeler.stop()?;
    label_as(&cluster, "k8s-driver-manager", "u-0", json!({DEVICE_PLUGIN: "true"})).await?;
    let _labeler = cluster.start(LABELER).await;
    for node in &nodes {
        cluster.set_mode(node, None).await?;
        expect_labels(&cluster, node, &[]).await;
    }
    let mut written = patches()?;
    written.sort();
    assert_eq!(written, ["u-0", "u-0", "u-1"], "the record, and what takes the labels away");
    Ok(())
}

#[tokio::test]
async fn a_withdrawal_that_is_refused_at_first_does_not_wait_for_another_hold_down() -> anyhow::Result<()> {
    use std::time::{Duration, Instant};
    use testbed::nodes::DISCOVERED;
    use testbed::{Fault, Proxy, Rule};
    let cluster = Cluster::lease().await;
    let proxy = Proxy::start(&cluster.entry, &cluster.folder, "hold")?;
    let through = Access { entry: proxy.entry.clone(), ..Access::clone(&cluster) };
    let labeler = through.start_with(LABELER, &["--discovery-hold-down", "30s"]).await;
    cluster.npu_nodes("h", 2, "").await?;
    let mut section = Access::enable_all();
    section["workload"] = json!({"default": "container"});
    cluster.configure("default", section).await?;
    for node in ["h-0", "h-1"] {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    proxy.set([
        Rule::nth(1, "patch", "nodes", Fault::Refuse(429, Some(1))).of("h-0"),
        Rule::nth(1, "patch", "nodes", Fault::Refuse(409, None)).of("h-1"),
    ]);
    let begun = Instant::now();
    for node in ["h-0", "h-1"] {
        cluster.label(node, DISCOVERED, None).await?;
    }
    for node in ["h-0", "h-1"] {
        cluster.expect_deployed(node, &[]).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    let log = labeler.log();
    let at = |message: &str| log.iter().position(|line| line["message"] == message);
    let (failed, ended) = (at("Could not label node; trying again"), at("Nodes can be labelled again"));
    let withdrawn = log.iter().rposition(|line| line["message"] == "Labelled node" && line["node"] == "h-0");
    assert!(failed.is_some() && failed < withdrawn && withdrawn < ended, "{log:#?}");
    Ok(())
}
