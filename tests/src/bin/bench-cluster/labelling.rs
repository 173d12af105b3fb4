//! Labelling: by node-labeler, and by a raw client that only sends patches.

use std::time::Duration;

use accelerator_api::contract::{COMPONENTS, NODE_LABELER, Workload};
use futures::{StreamExt, TryStreamExt};
use testbed::{Access, Cluster, Controller, Wait, eventually_within, nodes, say};

use crate::machine::Usage;
use crate::measure::{Run, span};
use crate::meter::Bench;
use crate::phases::{CONFIG, PATIENCE};

/// Starts node-labeler. The raw client works before and after it, because the machine is not the same all the time.
pub async fn label(bench: &mut Bench, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    let before = raw(&bench.cluster, names, "bench.example.com/before").await?;
    let meter = bench.meter().await?;
    let mark = bench.cluster.mark()?;
    let mut labeler = Controller::start_shipped(&bench.cluster, NODE_LABELER).await?;
    labeler.admin_address().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let process = labeler.process().id();
    bench.controllers.push(labeler);
    let idle = Usage::of(process).cpu_seconds;
    // Labels say where; nothing is enabled yet, so that nothing else keeps the API server busy.
    bench.cluster.configure(CONFIG, Access::enable(&[])).await?;
    let patches = || -> anyhow::Result<Vec<_>> {
        let requests = mark.requests()?.into_iter();
        Ok(requests.filter(|one| one.user == NODE_LABELER && one.resource == "nodes" && one.verb == "patch").collect())
    };
    let done = async || Wait::until(patches().map_or(0, |patches| patches.len()), |seen| *seen >= names.len());
    eventually_within(PATIENCE, "every node to be labelled", done).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let patches = patches()?;
    bench.stop(&meter, "labelling", run).await?;
    run.set("labelling by node-labeler (s)", span(&patches));
    run.set("processor time of node-labeler while labelling (s)", Usage::of(process).cpu_seconds - idle);
    let after = raw(&bench.cluster, names, "bench.example.com/after").await?;
    say(format!("  raw client before and after: {before:.2} s, {after:.2} s"));
    run.set("labelling by a raw client (s)", f64::midpoint(before, after));
    run.set("labelling, ours to raw", span(&patches) / f64::midpoint(before, after));
    run.set("memory of node-labeler after labelling (MB)", Usage::of(process).resident_mb);
    run.set("most memory of node-labeler while labelling (MB)", Usage::of(process).peak_mb);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    run.set("patches per node", patches.len() as f64 / names.len() as f64);
    Ok(())
}

/// Writes as many labels to each node as node-labeler does, with as many writes under way at once.
async fn raw(cluster: &Cluster, names: &[String], prefix: &str) -> anyhow::Result<f64> {
    let mark = cluster.mark()?;
    let container = COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container));
    let keys: Vec<_> = container.map(|one| format!("{prefix}.{}", one.name)).collect();
    let change: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("true"))).collect();
    let each: Vec<_> = names.iter().map(|name| nodes::label(&cluster.client, name, &change)).collect();
    futures::stream::iter(each).buffer_unordered(nodes::IN_FLIGHT).try_collect::<()>().await?;
    let mut requests = mark.requests()?;
    requests.retain(|request| request.user == "admin" && request.verb == "patch" && request.resource == "nodes");
    Ok(span(&requests))
}
