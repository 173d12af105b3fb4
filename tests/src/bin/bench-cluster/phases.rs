//! The run, phase by phase.

use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, DRIVER, NODE_LABELER};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use testbed::nodes::npu_labels;
use testbed::programs::shipped_binary;
use testbed::{ControlPlane, Controller, Profile, Wait, eventually_within, nodes, repository, say};

use crate::labelling::label;
use crate::machine::Usage;
use crate::measure::{ProcessFigures, Run};
use crate::meter::Bench;
use crate::rollout::{all_ready, compare, gone, ready, roll_out};
use crate::unready::unready;

/// Name of the AcceleratorConfig.
pub const CONFIG: &str = "default";
/// The phase in which nothing happens.
pub const SETTLED: &str = "settled minute";
/// Thousands of pods take their time on two cores.
pub const PATIENCE: Duration = Duration::from_mins(20);

pub async fn run(count: usize, components: &[String], labels_only: bool) -> anyhow::Result<Run> {
    let mut run = Run { labels_only, ..Run::new(count, components) };
    build()?;
    let mut bench = Bench::connect(ControlPlane::start(Profile::Scale)?).await?;
    bench.cluster.install().await?;
    say(format!("1. {count} nodes in mode container, labelled by a raw client and by node-labeler"));
    let names = bench.cluster.npu_nodes("npu", count, "container").await?;
    label(&mut bench, &names, &mut run).await?;
    if labels_only {
        return Ok(run);
    }
    roll_out(&mut bench, &names, &mut run).await?;
    settled(&mut bench, &names, &mut run).await?;
    changes(&mut bench, &names, &mut run).await?;
    processes(&bench.controllers, &mut run)?;
    restarts(&mut bench, &mut run).await?;
    unready(&mut bench, count, &mut run).await?;
    deletion(&mut bench, &mut run).await?;
    bench.controllers.clear();
    compare(&mut bench, &names, &mut run).await?;
    Ok(run)
}

/// Builds the programs before anything is measured.
pub fn build() -> anyhow::Result<()> {
    say("Building the programs as they are shipped ...");
    for name in repository::programs() {
        shipped_binary(name)?;
    }
    Ok(())
}

async fn settled(bench: &mut Bench, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    say("3. A settled minute, one node that joins, one change that is none of our business");
    let meter = bench.meter().await?;
    tokio::time::sleep(Duration::from_mins(1)).await;
    bench.stop(&meter, SETTLED, run).await?;

    let (meter, mark) = (bench.meter().await?, bench.cluster.mark()?);
    bench.cluster.npu_nodes("late", 1, "container").await?;
    all_ready(&bench.cluster, run, names.len() + 1).await;
    ready(&bench.cluster).await;
    bench.stop(&meter, "one node joins", run).await?;
    let writes = mark.our_writes()?;
    let by = |user: &str| writes.iter().filter(|write| write.resource == "nodes" && write.user == user).count();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    for (figure, user) in [
        ("node patches when one joins, of node-labeler", NODE_LABELER),
        ("node patches when one joins, of the driver controller", DRIVER.controller),
    ] {
        run.set(figure, by(user) as f64);
    }

    let meter = bench.meter().await?;
    nodes::label(&bench.cluster.client, &names[0], &[("example.com/rack", Some("7"))]).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.stop(&meter, "one unrelated change", run).await?;
    Ok(())
}

/// Flapping discovery, and a thousand node changes, which must not make anything grow.
async fn changes(bench: &mut Bench, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    say("4. Ten nodes whose discovery flaps, and a thousand changes of nodes");
    let discovery = npu_labels().into_keys().next().unwrap_or_default();
    let meter = bench.meter().await?;
    for round in 0..10 {
        for name in names.iter().take(10) {
            let value = (round % 2 == 1).then_some("true");
            nodes::label(&bench.cluster.client, name, &[(discovery.as_str(), value)]).await?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bench.stop(&meter, "ten nodes flap ten times", run).await?;

    let resident = |controllers: &[Controller]| {
        controllers.iter().map(|one| Usage::of(one.process().id()).resident_mb).sum::<f64>()
    };
    let before = resident(&bench.controllers);
    let meter = bench.meter().await?;
    for round in 0..1000_usize {
        let label = ("example.com/round", Some(if round % 2 == 0 { "even" } else { "odd" }));
        nodes::label(&bench.cluster.client, &names[round % names.len()], &[label]).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    bench.stop(&meter, "a thousand node changes", run).await?;
    run.set("growth over a thousand node changes, all six (MB)", resident(&bench.controllers) - before);
    Ok(())
}

fn processes(controllers: &[Controller], run: &mut Run) -> anyhow::Result<()> {
    for controller in controllers {
        let usage = Usage::of(controller.process().id());
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let binary_mb = std::fs::metadata(shipped_binary(controller.name)?)?.len() as f64 / 1e6;
        run.processes.push(ProcessFigures {
            name: controller.name.into(),
            settled_mb: usage.resident_mb,
            peak_mb: usage.peak_mb,
            cpu_seconds: usage.cpu_seconds,
            binary_mb,
            listed_kb: 0.0,
        });
    }
    let sum = run.processes.iter().map(|one| one.settled_mb).sum();
    run.set("settled memory, all six (MB)", sum);
    for (figure, program) in [
        ("settled memory, node-labeler (MB)", NODE_LABELER),
        ("settled memory, driver controller (MB)", DRIVER.controller),
    ] {
        let one = run.processes.iter().find(|one| one.name == program);
        run.set(figure, one.map_or(f64::NAN, |one| one.settled_mb));
    }
    Ok(())
}

async fn restarts(bench: &mut Bench, run: &mut Run) -> anyhow::Result<()> {
    say("5. A restart of every controller");
    let meter = bench.meter().await?;
    bench.restart().await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let work = bench.stop(&meter, "restart of every controller", run).await?;
    for controller in &mut bench.controllers {
        let listed = controller.metric("accelerator_api_received_bytes_total", "verb=\"list\"").await?;
        if let Some(process) = run.processes.iter_mut().find(|process| process.name == controller.name) {
            process.listed_kb = listed / 1e3;
        }
    }
    ready(&bench.cluster).await;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    run.set("writes after restarts", work.writes as f64);
    Ok(())
}

async fn deletion(bench: &mut Bench, run: &mut Run) -> anyhow::Result<()> {
    say("7. The config is deleted");
    let begun = Instant::now();
    let meter = bench.meter().await?;
    let cluster = &bench.cluster;
    cluster.unconfigure(CONFIG).await?;
    gone(cluster).await;
    let labelled = COMPONENTS.iter().map(|one| one.deploy_label).next().unwrap_or_default();
    eventually_within(PATIENCE, "the labels to be gone", async || {
        let nodes = cluster.all::<Node>().list_metadata(&ListParams::default().labels(labelled).limit(1)).await;
        Wait::until(nodes.map_or(1, |list| list.items.len()), |left| *left == 0)
    })
    .await;
    run.set("deletion of the config, until nothing is left (s)", begun.elapsed().as_secs_f64());
    bench.stop(&meter, "deletion", run).await?;
    Ok(())
}
