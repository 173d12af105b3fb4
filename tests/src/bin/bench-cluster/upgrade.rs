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
use crate::measure::{Run, Work};
use crate::meter::Bench;
use crate::phases::{CONFIG, PATIENCE, build};

/// How long a driver takes to load, without which the machine that plays the cluster would be all that is measured.
const LOADS: Duration = Duration::from_secs(2);

/// The phases that are measured, in their order.
const BEFORE: &str = "drivers replaced by a raw client, before";
const OURS: &str = "driver upgrade";
const AFTER: &str = "drivers replaced by a raw client, after";

/// Measures an upgrade of so many nodes, so many at once.
pub async fn run(count: usize, parallel: usize) -> anyhow::Result<Run> {
    let components = ["driver", "device-plugin"].map(str::to_owned);
    let mut run = Run { upgrade: Some(parallel), ..Run::new(count, &components) };
    build()?;
    let mut bench = Bench::connect(ControlPlane::start(Profile::Scale)?).await?;
    bench.cluster.install().await?;
    let kubelets = Kubelets::start(&bench.cluster).await?;
    kubelets.trouble(Trouble::slow("rbln-driver", LOADS));
    for name in repository::programs() {
        bench.controllers.push(Controller::start_shipped(&bench.cluster, name).await?);
    }
    say(format!("1. {count} nodes with their driver"));
    let nodes = bench.cluster.machines("npu").count(count).create().await?;
    let begun = Instant::now();
    configure(&bench.cluster, "3.0.0", parallel).await?;
    all_have_npus(&bench.cluster, count).await;
    run.set("first installation (s)", begun.elapsed().as_secs_f64());

    say(format!("2. Every driver's pod replaced by a raw client, {parallel} at once"));
    let before = floor(&mut bench, &nodes, BEFORE, &mut run).await?;
    say(format!("3. An upgrade by us, maxParallel {parallel}"));
    let meter = bench.meter().await?;
    configure(&bench.cluster, "3.1.0", parallel).await?;
    all_done(&bench.cluster, count).await;
    let work = bench.stop(&meter, OURS, &mut run).await?;
    say("4. The raw client once more");
    let after = floor(&mut bench, &nodes, AFTER, &mut run).await?;
    run.set("its floor, before (s)", before);
    run.set("its floor, after (s)", after);
    let floor = f64::midpoint(before, after);
    run.set("its floor (s)", floor);
    run.set("upgrade by us (s)", work.seconds);
    run.set("upgrade, ours to its floor", work.seconds / floor);
    run.set("processor time of ours (s)", work.own_cpu);
    requests(&work, &mut run);
    memory(&bench.controllers, &mut run);
    Ok(run)
}

/// What was asked for each node.
fn requests(work: &Work, run: &mut Run) {
    let is_write = |verb: &str| matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    let (nodes, events) = (
        run.count(OURS, |verb, what| is_write(verb) && what == "nodes"),
        run.count(OURS, |verb, what| is_write(verb) && what == "events"),
    );
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let each = |number: usize| number as f64 / run.nodes as f64;
    let figures = [
        ("writes to the node, per node", each(nodes)),
        ("events per node", each(events)),
        ("writes per node, all of ours", each(work.writes)),
        ("reads per node, watches included", each(work.requests - work.writes)),
    ];
    for (name, value) in figures {
        run.set(name, value);
    }
}

fn memory(controllers: &[Controller], run: &mut Run) {
    let driver = controllers.iter().find(|one| one.name == DRIVER.controller);
    let peak = driver.map_or(f64::NAN, |one| Usage::of(one.process().id()).peak_mb);
    run.set("most memory of the driver controller (MB)", peak);
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

async fn all_done(cluster: &Cluster, count: usize) {
    let done = ListParams::default().labels(&format!("{DRIVER_UPGRADE_STATE_LABEL}=Done"));
    eventually_within(PATIENCE, "every node to be done", async || {
        tokio::time::sleep(Duration::from_millis(450)).await;
        let done = cluster.all::<Node>().list_metadata(&done).await.map_or(0, |list| list.items.len());
        Wait::until(done, |done| *done >= count)
    })
    .await;
}

/// How long a client takes that deletes each driver's pod and waits for the next one and for the NPUs.
async fn floor(bench: &mut Bench, nodes: &[String], phase: &str, run: &mut Run) -> anyhow::Result<f64> {
    let meter = bench.meter().await?;
    let parallel = run.upgrade.unwrap_or(1);
    let each: Vec<_> = nodes.iter().map(|node| replace(&bench.cluster, node)).collect();
    futures::stream::iter(each).buffer_unordered(parallel).try_collect::<()>().await?;
    Ok(bench.stop(&meter, phase, run).await?.seconds)
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
