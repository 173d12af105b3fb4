//! What a program knows of the cluster is right in the end, in whatever order it hears of it.

use std::time::Duration;

use accelerator_api::contract::DEVICE_PLUGIN;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::DeleteParams;
use serde_json::json;
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Controller, Fault, Leased, Proxy, Rule, Wait, eventually};

use crate::{CONTAINER, LABELER};

/// How late an answer is.
const LATE: Duration = Duration::from_secs(2);

/// A program that reaches the cluster by way of a proxy. The cluster last: it is given back when the program has ended.
struct Proxied {
    controller: Controller,
    proxy: Proxy,
    cluster: Leased,
}

async fn start(program: &'static str, arguments: &[&str]) -> anyhow::Result<Proxied> {
    let cluster = Cluster::lease().await;
    let proxy = Proxy::start(&cluster.entry, &cluster.folder, "store")?;
    let through = Access { entry: proxy.entry.clone(), ..Access::clone(&cluster) };
    let controller = through.start_with(program, arguments).await;
    Ok(Proxied { controller, proxy, cluster })
}

/// The answer tells of a state that is over when it comes.
#[tokio::test]
async fn a_daemon_set_that_is_deleted_before_the_answer_to_its_apply_is_made_again() -> anyhow::Result<()> {
    let Proxied { controller: _controller, proxy, cluster } = start(DEVICE_PLUGIN.controller, &[]).await?;
    cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "True/NoNodesSelected").await;
    let uid = cluster.daemon_set("device-plugin").await["metadata"]["uid"].clone();

    proxy.set([Rule::nth(1, "patch", "daemonsets", Fault::DelayAnswer(LATE))]);
    let mut section = Access::enable(&["device-plugin"]);
    section["devicePlugin"]["env"] = json!([{"name": "NEWS", "value": "1"}]);
    cluster.configure("default", section).await?;
    eventually("the apply to be carried out", async || {
        let text = cluster.daemon_set("device-plugin").await.to_string();
        Wait::until(text, |text| text.contains("NEWS"))
    })
    .await;
    cluster.namespaced::<DaemonSet>(OPERANDS).delete(DEVICE_PLUGIN.operand, &DeleteParams::default()).await?;
    eventually("another DaemonSet", async || {
        let now = cluster.daemon_set("device-plugin").await["metadata"]["uid"].clone();
        Wait::until(now, |now| !now.is_null() && *now != uid)
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_config_that_is_deleted_before_the_answer_to_a_status_write_loses_its_labels() -> anyhow::Result<()> {
    let Proxied { controller: _controller, proxy, cluster } = start(LABELER, &[]).await?;
    cluster.npu_nodes("s", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("s-0", CONTAINER).await;
    cluster.expect_condition("default", "Ready", "False/ComponentNotReporting").await;

    // A node with a typo makes a status write; what it wrote is seen when it has been carried out.
    proxy.set([Rule::every("patch", "acceleratorconfigs/status", Fault::DelayAnswer(LATE))]);
    cluster.npu_nodes("t", 1, "typo").await?;
    eventually("the status write to be carried out", async || {
        let counted = cluster.config("default").await["status"]["nodes"]["invalidMode"].clone();
        Wait::until(counted, |counted| *counted == 1)
    })
    .await;
    cluster.unconfigure("default").await?;
    cluster.expect_deployed("s-0", &[]).await;
    Ok(())
}

/// A gateway that answers 404 for a moment says nothing about our objects.
#[tokio::test]
async fn what_a_write_does_not_find_is_not_forgotten() -> anyhow::Result<()> {
    let Proxied { controller: _controller, proxy, cluster } = start(LABELER, &[]).await?;
    proxy.set([
        Rule { times: 2, ..Rule::every("patch", "nodes", Fault::Refuse(404, None)) },
        Rule { times: 2, ..Rule::every("patch", "acceleratorconfigs/status", Fault::Refuse(404, None)) },
    ]);
    cluster.npu_nodes("f", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("f-0", CONTAINER).await;
    cluster.expect_condition("default", "Accepted", "True/Active").await;
    Ok(())
}

/// Something between the API server and us swallows an event, which nothing else would ever tell.
#[tokio::test]
async fn an_event_that_never_came_is_found_by_the_comparison() -> anyhow::Result<()> {
    let Proxied { mut controller, proxy, cluster } = start(LABELER, &["--resync-interval", "3s"]).await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.npu_nodes("e", 1, "container").await?;
    cluster.expect_deployed("e-0", CONTAINER).await;
    let differences = async |controller: &mut Controller| -> anyhow::Result<String> {
        let address = controller.admin_address().await?;
        let (_, metrics) = crate::programs::get(&address, "/metrics").await;
        Ok(metrics.lines().filter(|line| line.contains("store_differences_total{")).collect())
    };
    assert_eq!(differences(&mut controller).await?, "", "a comparison that finds nothing is silent");

    proxy.set([Rule::every("event", "nodes", Fault::Drop).of("lost-0")]);
    cluster.npu_nodes("lost", 1, "container").await?;
    cluster.expect_deployed("lost-0", CONTAINER).await;
    assert!(differences(&mut controller).await?.contains("nodes"));
    let log = controller.log();
    let told = log.iter().find(|line| line["level"] == "ERROR").expect("it is told as a fault");
    assert!(told["err"].as_str().is_some_and(|why| why.contains("lost-0 is not known")), "{told}");
    Ok(())
}
