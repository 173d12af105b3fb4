//! Pods of one component that run and are not ready: how soon a node is named, and what that costs.

use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, Component, DRIVER};
use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::nodes::IN_FLIGHT;
use testbed::{Wait, eventually_within, say};

use crate::measure::Run;
use crate::meter::Bench;
use crate::phases::CONFIG;
use crate::phases::PATIENCE;
use crate::rollout::ready;

/// How much is not ready, as phases and figures call it.
pub const ONE: &str = "one pod unready";
pub const MANY: &str = "500 pods unready";

/// The two phases of each.
pub const FIRST_LOOK: &str = "first look";
pub const MINUTE_AFTER: &str = "minute after";

/// A first look takes at least this long: events are asked for when a pod has been unexplained for some seconds.
const LOOKING: Duration = Duration::from_secs(20);

/// The label by which a simulated pod is not ready.
const UNREADY: &str = "sim.test/unready";

/// One pod, and then 500 (at most half of them): a first look, and the minute after it in which nothing changes.
pub async fn unready(bench: &mut Bench, nodes: usize, run: &mut Run) -> anyhow::Result<()> {
    say("6. Pods of one component that are not ready: one, and then 500");
    // The driver's pods are in a DaemonSet per pool; the others stand for each other.
    let component =
        COMPONENTS.iter().find(|one| one.name != DRIVER.name && run.components.iter().any(|name| name == one.name));
    let component = component.context("a component besides the driver has to be rolled out")?;
    let pods = bench.cluster.namespaced::<Pod>(OPERANDS);
    let own = ListParams::default().labels(&format!("app.kubernetes.io/name={}", component.operand));
    let names = pods.list_metadata(&own).await?.items.into_iter().filter_map(|pod| pod.metadata.name);
    let names: Vec<_> = names.collect();
    for (what, count) in [(ONE, 1), (MANY, 500.min(nodes / 2))] {
        let names = &names[..count];
        let meter = bench.meter().await?;
        let begun = Instant::now();
        mark(&pods, names, json!("true")).await?;
        named(bench, component).await;
        run.set(&format!("{what}: until a node is named (s)"), begun.elapsed().as_secs_f64());
        tokio::time::sleep(LOOKING.saturating_sub(begun.elapsed())).await;
        bench.stop(&meter, &format!("{what}, {FIRST_LOOK}"), run).await?;

        let meter = bench.meter().await?;
        tokio::time::sleep(Duration::from_mins(1)).await;
        bench.stop(&meter, &format!("{what}, {MINUTE_AFTER}"), run).await?;
        mark(&pods, names, Value::Null).await?;
        ready(&bench.cluster).await;
        // Pods are followed for a while after all is well; what is next is to be a first look again.
        bench.restart().await?;
        ready(&bench.cluster).await;
    }
    Ok(())
}

/// Makes pods not ready, or ready again.
async fn mark(pods: &Api<Pod>, names: &[String], value: Value) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"labels": {UNREADY: value}}}));
    let params = PatchParams::default();
    let each: Vec<_> = names.iter().map(|name| pods.patch_metadata(name, &params, &patch)).collect();
    futures::stream::iter(each).buffer_unordered(IN_FLIGHT).try_for_each(async |_| Ok(())).await?;
    Ok(())
}

/// Until the component's condition names a node and says what is wrong with it.
async fn named(bench: &Bench, component: &Component) {
    eventually_within(PATIENCE, "a node to be named", async || {
        let told = bench.cluster.condition(CONFIG, component.condition_type).await;
        Wait::until(told, |told| told.starts_with("False/PodsNotReady: ") && told.contains(" (not ready"))
    })
    .await;
}
