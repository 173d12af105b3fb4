//! An upgrade of the driver on every node, beside its floor: the same pods replaced in the same order by a raw client that does
//! nothing else, as many at once as the policy allows.

use std::time::{Duration, Instant};

use accelerator_api::contract::{Component, DEVICE_PLUGIN, DRIVER, DRIVER_UPGRADE_STATE_LABEL};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::{self, conditions};
use kube::runtime::{WatchStreamExt, watcher};
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
const ALONE: &str = "drivers alone replaced by a raw client";
const BEFORE: &str = "drivers and device plugins replaced by a raw client, before";
const OURS: &str = "driver upgrade";
const AFTER: &str = "drivers and device plugins replaced by a raw client, after";

/// What a driver manager writes over the deploy label of a component that it stops, and node-labeler leaves alone.
const PAUSED: &str = "paused-for-driver-upgrade";

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
    let alone = measure_floor(&mut bench, &nodes, Pods::Driver, ALONE, &mut run).await?;
    say("3. The device plugin's stopped before and started after it, and the first node alone");
    let before = measure_floor(&mut bench, &nodes, Pods::All, BEFORE, &mut run).await?;
    say(format!("4. An upgrade by us, maxParallel {parallel}"));
    let meter = bench.meter().await?;
    configure(&bench.cluster, "3.1.0", parallel).await?;
    all_done(&bench.cluster, count).await;
    let work = bench.stop(&meter, OURS, &mut run).await?;
    say("5. The raw client once more");
    let after = measure_floor(&mut bench, &nodes, Pods::All, AFTER, &mut run).await?;
    let floor = f64::midpoint(before, after);
    for (name, value) in [
        ("drivers' pods alone (s)", alone),
        ("its floor, before (s)", before),
        ("its floor, after (s)", after),
        ("its floor (s)", floor),
        ("upgrade by us (s)", work.seconds),
        ("upgrade, ours to its floor", work.seconds / floor),
        ("upgrade, ours to the drivers' pods alone", work.seconds / alone),
        ("processor time of ours (s)", work.own_cpu),
    ] {
        run.set(name, value);
    }
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

/// Which pods of a node are replaced.
#[derive(Clone, Copy, PartialEq)]
enum Pods {
    /// The driver's.
    Driver,
    /// Those that an upgrade replaces. The device plugin uses the driver: it is stopped before, and started after it.
    All,
}

/// How long a client takes that replaces pods and waits for the NPUs. As in an upgrade, the first node goes alone where all are
/// replaced.
async fn measure_floor(
    bench: &mut Bench,
    nodes: &[String],
    pods: Pods,
    phase: &str,
    run: &mut Run,
) -> anyhow::Result<f64> {
    let meter = bench.meter().await?;
    let parallel = run.upgrade.unwrap_or(1);
    let (first, others) = nodes.split_at(usize::from(pods == Pods::All));
    for (nodes, parallel) in [(first, 1), (others, parallel)] {
        let each: Vec<_> = nodes.iter().map(|node| replace(&bench.cluster, node, pods)).collect();
        futures::stream::iter(each).buffer_unordered(parallel).try_collect::<()>().await?;
    }
    Ok(bench.stop(&meter, phase, run).await?.seconds)
}

async fn replace(cluster: &Cluster, node: &str, pods: Pods) -> anyhow::Result<()> {
    let api = cluster.namespaced::<Pod>(OPERANDS);
    if pods == Pods::All {
        let plugins = api.list(&ListParams::default().labels(&of(&DEVICE_PLUGIN)).fields(&on(node))).await?;
        cluster.label(node, DEVICE_PLUGIN.deploy_label, Some(PAUSED)).await?;
        for plugin in plugins {
            let uid = plugin.uid().unwrap_or_default();
            wait::await_condition(api.clone(), &plugin.name_any(), conditions::is_deleted(&uid)).await?;
        }
    }
    let config = watcher::Config::default().labels(&of(&DRIVER)).fields(&on(node));
    let mut drivers = std::pin::pin!(watcher(api.clone(), config).default_backoff().applied_objects());
    let old = drivers.next().await.context("a watch that goes on")??;
    api.delete(&old.name_any(), &DeleteParams::default()).await?;
    loop {
        let pod = drivers.next().await.context("a watch that goes on")??;
        if pod.metadata.uid != old.metadata.uid && is_ready(&pod) {
            break;
        }
    }
    if pods == Pods::All {
        cluster.label(node, DEVICE_PLUGIN.deploy_label, Some("true")).await?;
    }
    wait::await_condition(cluster.all::<Node>(), node, |node: Option<&Node>| node.is_some_and(has_npus)).await?;
    Ok(())
}

/// A selector of a component's pods.
fn of(component: &Component) -> String {
    format!("app.kubernetes.io/name={}", component.operand)
}

/// A selector of a node's pods.
fn on(node: &str) -> String {
    format!("spec.nodeName={node}")
}
