//! An upgrade of the driver on every node, beside its floor: the same pods replaced by a raw client that does nothing else,
//! as many at once as the policy allows.

use std::time::{Duration, Instant};

use accelerator_api::contract::{DRIVER, DRIVER_UPGRADE_STATE_LABEL};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt, wait, watcher};
use serde_json::json;
use testbed::access::OPERANDS;
use testbed::nodes::ATOM;
use testbed::{
    Access, Cluster, ControlPlane, Controller, Kubelets, Profile, Trouble, Wait, eventually_within, is_ready,
    repository, say,
};

use crate::machine::Usage;

const CONFIG: &str = "default";
/// How long a driver takes to load, without which the machine that plays the cluster would be all that is measured.
const LOADS: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_mins(20);

/// Measures an upgrade of so many nodes, so many at once. Keeps nothing but what it says.
pub async fn run(count: usize, parallel: usize) -> anyhow::Result<()> {
    let cluster = Cluster::connect(ControlPlane::start(Profile::Scale)?).await?;
    cluster.install().await?;
    let kubelets = Kubelets::start(&cluster).await?;
    kubelets.trouble(Trouble::slow("rbln-driver", LOADS));
    let mut controllers = vec![];
    for name in repository::programs() {
        controllers.push(Controller::start_shipped(&cluster, name).await?);
    }
    say(format!("1. {count} nodes with their driver"));
    let nodes = cluster.machines("npu").count(count).create().await?;
    let begun = Instant::now();
    configure(&cluster, "3.0.0", parallel).await?;
    all_have_npus(&cluster, count).await;
    say(format!("  first installation: {:.1} s", begun.elapsed().as_secs_f64()));

    say(format!("2. Every driver's pod replaced by a raw client, {parallel} at once"));
    let before = floor(&cluster, &nodes, parallel).await?;
    say(format!("3. An upgrade by us, maxParallel {parallel}"));
    let mark = cluster.mark()?;
    let begun = Instant::now();
    configure(&cluster, "3.1.0", parallel).await?;
    let done = ListParams::default().labels(&format!("{DRIVER_UPGRADE_STATE_LABEL}=Done"));
    eventually_within(PATIENCE, "every node to be done", async || {
        tokio::time::sleep(Duration::from_millis(450)).await;
        let done = cluster.all::<Node>().list_metadata(&done).await.map_or(0, |list| list.items.len());
        Wait::until(done, |done| *done >= count)
    })
    .await;
    let ours = begun.elapsed().as_secs_f64();
    let after = floor(&cluster, &nodes, parallel).await?;
    let floor = f64::midpoint(before, after);
    say(format!("  ours {ours:.1} s, floor {floor:.1} s ({before:.1} and {after:.1}), {:.2} times", ours / floor));
    let requests = mark.requests()?;
    let ours: Vec<_> = requests.iter().filter(|request| request.is_ours() && request.resource != "leases").collect();
    let writes = ours.iter().filter(|request| request.is_write()).count();
    let nodes = ours.iter().filter(|request| request.is_write() && request.resource == "nodes").count();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let each = |number: usize| number as f64 / count as f64;
    say(format!(
        "  per node: {:.2} writes of which {:.2} to the node, {:.2} reads and watches",
        each(writes),
        each(nodes),
        each(ours.len() - writes)
    ));
    for controller in controllers.iter().filter(|one| one.name == DRIVER.controller) {
        let usage = Usage::of(controller.process().id());
        let (peak, cpu) = (usage.peak_mb, usage.cpu_seconds);
        say(format!("  {}: at most {peak:.1} MB, {cpu:.1} s of processor time", controller.name));
    }
    Ok(())
}

async fn configure(cluster: &Cluster, version: &str, parallel: usize) -> anyhow::Result<()> {
    let mut section = Access::enable(&["driver", "device-plugin"]);
    section["driver"]["version"] = version.into();
    section["driver"]["upgradePolicy"] =
        json!({"autoUpgrade": true, "maxParallel": parallel, "maxUnavailable": parallel});
    Ok(cluster.configure(CONFIG, section).await?)
}

fn has_npus(node: &Node) -> bool {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    allocatable.and_then(|all| all.get(ATOM)).is_some_and(|count| count.0 != "0")
}

async fn all_have_npus(cluster: &Cluster, count: usize) {
    eventually_within(PATIENCE, "NPUs on every node", async || {
        tokio::time::sleep(Duration::from_millis(450)).await;
        let nodes = cluster.all::<Node>().list(&ListParams::default()).await;
        let with = nodes.map_or(0, |list| list.items.iter().filter(|node| has_npus(node)).count());
        Wait::until(with, |with| *with >= count)
    })
    .await;
}

/// How long a client takes that deletes each driver's pod and waits for the next one and for the NPUs.
async fn floor(cluster: &Cluster, nodes: &[String], parallel: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let each: Vec<_> = nodes.iter().map(|node| replace(cluster, node)).collect();
    futures::stream::iter(each).buffer_unordered(parallel).try_collect::<()>().await?;
    let seconds = begun.elapsed().as_secs_f64();
    say(format!("  {seconds:.1} s"));
    Ok(seconds)
}

async fn replace(cluster: &Cluster, node: &str) -> anyhow::Result<()> {
    let api = cluster.namespaced::<Pod>(OPERANDS);
    let of_node = watcher::Config::default()
        .labels(&format!("app.kubernetes.io/name={}", DRIVER.operand))
        .fields(&format!("spec.nodeName={node}"));
    let mut pods = std::pin::pin!(watcher(api.clone(), of_node).default_backoff().applied_objects());
    let old = pods.next().await.context("a watch that goes on")??;
    api.delete(old.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await?;
    loop {
        let pod = pods.next().await.context("a watch that goes on")??;
        if pod.metadata.uid != old.metadata.uid && is_ready(&pod) {
            break;
        }
    }
    wait::await_condition(cluster.all::<Node>(), node, |node: Option<&Node>| node.is_some_and(has_npus)).await?;
    Ok(())
}
