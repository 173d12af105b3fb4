//! Users of the driver step aside while the driver controller asks for it, and come back whatever happens meanwhile; and what
//! a dead driver manager left paused is set again.

use std::time::Duration;

use accelerator_api::contract::{DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER, OWNED_LABELS_ANNOTATION};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::audit::Mark;
use testbed::{Access, Cluster, Controller, Leased, Wait, eventually, repository};

use crate::{CONTAINER, LABELER, VM};

/// Long enough for a controller that would do something wrong to do it.
const A_WHILE: Duration = Duration::from_secs(2);
const DEVICE_PLUGIN: &str = "rebellions.ai/npu.deploy.device-plugin";
const METRIC_EXPORTER: &str = "rebellions.ai/npu.deploy.metric-exporter";
const DISCOVERY: &str = "rebellions.ai/npu.deploy.npu-feature-discovery";

/// Sets the annotation as the driver controller does.
async fn pause(cluster: &Cluster, node: &str, until: Option<&str>) -> anyhow::Result<()> {
    let params = PatchParams { field_manager: Some("rebellions-driver-controller".into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"annotations": {DEPENDENTS_PAUSED_UNTIL_ANNOTATION: until}}}));
    cluster.all::<Node>().patch_metadata(node, &params, &patch).await?;
    Ok(())
}

/// This many seconds from now.
#[expect(clippy::disallowed_methods, reason = "the driver controller is played, by its clock")]
fn ahead(seconds: i64) -> String {
    (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string()
}

async fn record(cluster: &Cluster, node: &str) -> Option<String> {
    let node = cluster.all::<Node>().get_metadata(node).await.ok()?;
    node.metadata.annotations.unwrap_or_default().remove(OWNED_LABELS_ANNOTATION)
}

fn writes_to(mark: &Mark, node: &str) -> anyhow::Result<usize> {
    Ok(mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes" && write.name == node).count())
}

/// A cluster with nodes in mode `container` that have their labels, and its labeler.
async fn labelled(nodes: usize) -> anyhow::Result<(Leased, Controller)> {
    let cluster = Cluster::lease().await;
    let labeler = cluster.start(LABELER).await;
    let names = cluster.npu_nodes("p", nodes, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    for name in names {
        cluster.expect_deployed(&name, CONTAINER).await;
    }
    Ok((cluster, labeler))
}

#[tokio::test]
async fn dependents_step_aside_with_one_patch_and_come_back_with_one_and_ready_says_why() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    // All but the driver's, which is played.
    let mut controllers = vec![];
    for program in repository::programs().filter(|program| *program != DRIVER.controller) {
        controllers.push(cluster.start(program).await);
    }
    cluster.npu_nodes("p", 2, "container").await?;
    let mut section = Access::enable_all();
    section["driver"]["enabled"] = json!(false);
    cluster.configure("default", section).await?;
    cluster.expect_ready("default").await;
    let (mark, owned) = (cluster.mark()?, record(&cluster, "p-0").await);

    pause(&cluster, "p-0", Some(&ahead(600))).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    eventually("the pods to leave", async || {
        let pods = cluster.pods().await;
        Wait::until(pods, |pods| !pods.keys().any(|pod| pod.ends_with("@p-0")))
    })
    .await;
    let aside =
        "while their driver is upgraded, device-plugin, metric-exporter, npu-feature-discovery step aside on node p-0";
    eventually("Ready to say so and nothing else", async || {
        let told = cluster.condition("default", "Ready").await;
        Wait::until(told, |told| *told == format!("False/NodesChanging: {aside}"))
    })
    .await;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "True/Ready").await;
    cluster.expect_deployed("p-1", CONTAINER).await;
    assert_eq!(record(&cluster, "p-0").await, owned, "they are still ours");

    pause(&cluster, "p-0", None).await?;
    cluster.expect_deployed("p-0", CONTAINER).await;
    cluster.expect_ready("default").await;
    assert_eq!((writes_to(&mark, "p-0")?, writes_to(&mark, "p-1")?), (2, 0));
    assert_eq!(record(&cluster, "p-0").await, owned);
    Ok(())
}

#[tokio::test]
async fn a_pause_ends_when_its_time_comes_whether_or_not_the_labeler_was_there() -> anyhow::Result<()> {
    let (cluster, labeler) = labelled(2).await?;
    let mark = cluster.mark()?;
    for (node, seconds) in [("p-0", 10), ("p-1", 20)] {
        pause(&cluster, node, Some(&ahead(seconds))).await?;
        cluster.expect_deployed(node, &["driver"]).await;
    }
    cluster.expect_deployed("p-0", CONTAINER).await;
    // One that dies in between, and comes back when nobody is paused any more.
    assert_eq!(cluster.deploy_labels("p-1").await, ["driver=true"]);
    labeler.stop()?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let _labeler = cluster.start(LABELER).await;
    cluster.expect_deployed("p-1", CONTAINER).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((writes_to(&mark, "p-0")?, writes_to(&mark, "p-1")?), (2, 2), "what is over is over");
    Ok(())
}

#[tokio::test]
async fn a_labeler_that_is_restarted_during_the_pause_keeps_to_it() -> anyhow::Result<()> {
    let (cluster, labeler) = labelled(1).await?;
    pause(&cluster, "p-0", Some(&ahead(600))).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    labeler.stop()?;
    let mark = cluster.mark()?;
    let labeler = cluster.start(LABELER).await;
    cluster.expect_condition("default", "Accepted", "True/Active").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((writes_to(&mark, "p-0")?, cluster.deploy_labels("p-0").await), (0, vec!["driver=true".to_owned()]));
    labeler.stop()?;
    pause(&cluster, "p-0", None).await?;
    let _labeler = cluster.start(LABELER).await;
    cluster.expect_deployed("p-0", CONTAINER).await;
    assert_eq!(writes_to(&mark, "p-0")?, 1);
    Ok(())
}

#[tokio::test]
async fn another_mode_during_the_pause_does_not_wait_and_the_first_one_does() -> anyhow::Result<()> {
    let (cluster, _labeler) = labelled(1).await?;
    pause(&cluster, "p-0", Some(&ahead(600))).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    cluster.set_mode("p-0", Some("vm-passthrough")).await?;
    cluster.expect_deployed("p-0", VM).await;
    cluster.set_mode("p-0", Some("container")).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    // A typo keeps the node as it is; those that stepped aside come back all the same.
    cluster.set_mode("p-0", Some("contianer")).await?;
    cluster.expect_event("p-0", "WorkloadConfigInvalid").await;
    pause(&cluster, "p-0", None).await?;
    cluster.expect_deployed("p-0", CONTAINER).await;
    cluster.set_mode("p-0", None).await?;
    cluster.expect_deployed("p-0", &[]).await;
    eventually("the record to go", async || Wait::until(record(&cluster, "p-0").await, Option::is_none)).await;
    Ok(())
}

#[tokio::test]
async fn a_config_that_is_deleted_during_the_pause_takes_all_labels_and_the_next_one_keeps_to_it() -> anyhow::Result<()>
{
    let (cluster, _labeler) = labelled(1).await?;
    pause(&cluster, "p-0", Some(&ahead(600))).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    cluster.unconfigure("default").await?;
    cluster.expect_deployed("p-0", &[]).await;
    assert_eq!(record(&cluster, "p-0").await, None, "nothing is ours any more");
    cluster.configure("next", Access::enable_all()).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    pause(&cluster, "p-0", None).await?;
    cluster.expect_deployed("p-0", CONTAINER).await;
    Ok(())
}

#[tokio::test]
async fn a_pause_that_cannot_be_read_or_is_too_long_counts_as_nothing_and_is_logged_once() -> anyhow::Result<()> {
    let (cluster, labeler) = labelled(2).await?;
    let mark = cluster.mark()?;
    pause(&cluster, "p-0", Some("for a while")).await?;
    pause(&cluster, "p-1", Some(&ahead(3 * 3600))).await?;
    for value in ["a", "b"] {
        cluster.label("p-0", "example.com/unrelated", Some(value)).await?;
    }
    tokio::time::sleep(A_WHILE).await;
    for node in ["p-0", "p-1"] {
        cluster.expect_deployed(node, CONTAINER).await;
        assert_eq!(writes_to(&mark, node)?, 0);
        let log = labeler.log();
        let told: Vec<_> = log
            .iter()
            .filter(|line| {
                line["message"] == "Components do not step aside for a driver upgrade" && line["node"] == node
            })
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
    }
    pause(&cluster, "p-0", Some(&ahead(600))).await?;
    cluster.expect_deployed("p-0", &["driver"]).await;
    Ok(())
}

#[tokio::test]
async fn labels_that_a_dead_driver_manager_left_paused_are_set_again_and_told() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start_with(LABELER, &["--paused-labels-hold-down", "8s"]).await;
    for node in cluster.npu_nodes("p", 2, "container").await? {
        cluster.label(&node, METRIC_EXPORTER, Some("paused-by-hand")).await?;
    }
    cluster.configure("default", Access::enable_all()).await?;
    let expect = async |node: &str, expected: &[&str]| {
        eventually(&format!("{node} to have {expected:?}"), async || {
            Wait::until(cluster.deploy_labels(node).await, |labels| *labels == expected)
        })
        .await;
    };
    let theirs = "metric-exporter=paused-by-hand";
    for node in ["p-0", "p-1"] {
        expect(node, &["device-plugin=true", "driver=true", theirs, "npu-feature-discovery=true"]).await;
    }
    let mark = cluster.mark()?;
    // On the other node the driver controller is at work.
    pause(&cluster, "p-1", Some(&ahead(600))).await?;
    for node in ["p-0", "p-1"] {
        cluster.label(node, DEVICE_PLUGIN, Some("paused-for-driver-upgrade")).await?;
    }
    cluster.label("p-0", DISCOVERY, Some("false")).await?;
    tokio::time::sleep(A_WHILE).await;
    let paused = "device-plugin=paused-for-driver-upgrade";
    expect("p-0", &[paused, "driver=true", theirs, "npu-feature-discovery=false"]).await;
    assert_eq!(writes_to(&mark, "p-0")?, 0, "the driver manager may be alive");

    expect("p-0", &["device-plugin=true", "driver=true", theirs, "npu-feature-discovery=false"]).await;
    let event = cluster.expect_event("p-0", "DeployLabelsRestored").await;
    assert!(event.contains(DEVICE_PLUGIN) && !event.contains(METRIC_EXPORTER), "{event}");
    tokio::time::sleep(A_WHILE).await;
    assert_eq!((writes_to(&mark, "p-0")?, cluster.events("p-0").await.len()), (1, 1));
    assert!(cluster.deploy_labels("p-1").await.contains(&paused.to_owned()));
    pause(&cluster, "p-1", None).await?;
    expect("p-1", &["device-plugin=true", "driver=true", theirs, "npu-feature-discovery=true"]).await;
    Ok(())
}
