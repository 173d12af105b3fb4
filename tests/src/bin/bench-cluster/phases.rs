//! The run, phase by phase.

use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, NODE_LABELER, Workload};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use serde_json::Value;
use testbed::access::OPERANDS;
use testbed::nodes::npu_labels;
use testbed::programs::shipped_binary;
use testbed::{
    Access, Cluster, ControlPlane, Controller, Profile, Proxy, Wait, eventually_within, install, nodes, repository, say,
};

use crate::machine::{Machine, Usage};
use crate::measure::{ProcessFigures, Run, span};

/// Writes of the raw client under way at once: as many as node-labeler has.
const IN_FLIGHT: usize = 16;
const CONFIG: &str = "default";
/// Thousands of pods take their time on two cores.
const PATIENCE: Duration = Duration::from_mins(20);

pub async fn run(count: usize, labelling_only: bool) -> anyhow::Result<Run> {
    let mut run =
        Run { nodes: count, machine: Machine::this(), figures: [].into(), requests: vec![], processes: vec![] };
    say("Building the programs as they are shipped ...");
    for name in repository::programs() {
        shipped_binary(name)?;
    }
    let cluster = Cluster::connect(ControlPlane::start(Profile::Scale)?).await?;
    cluster.install().await?;
    say(format!("1. {count} nodes in mode container, labelled by a raw client and by node-labeler"));
    let names = cluster.npu_nodes("npu", count, "container").await?;
    let mut controllers = label(&cluster, &names, &mut run).await?;
    if labelling_only {
        return Ok(run);
    }

    say("2. All components, until every pod is ready: applied by kubectl, and by us");
    let before = bare(&cluster, count).await?;
    install::kubectl(&cluster.kubeconfig, &["delete", "daemonsets", "--all", "-n", OPERANDS], b"")?;
    gone(&cluster).await;
    for operand in repository::operands() {
        controllers.push(Controller::start_shipped(&cluster, operand.component.controller).await?);
    }
    for component in COMPONENTS {
        cluster.expect_condition(CONFIG, component.condition_type, "False/Disabled").await;
    }
    let mark = cluster.mark()?;
    let begun = Instant::now();
    cluster.configure(CONFIG, Access::enable_all()).await?;
    all_ready(&cluster, count).await;
    run.set("rollout of ours (s)", begun.elapsed().as_secs_f64());
    ready(&cluster).await;
    run.count("rollout", &mark)?;

    settled(&cluster, &names, &mut run).await?;
    changes(&cluster, &names, &controllers, &mut run).await?;
    processes(&controllers, &mut run)?;
    restarts(&cluster, &mut controllers, &mut run).await?;
    deletion(&cluster, &mut run).await?;
    drop(controllers);
    bare_again(&cluster, &names, before, &mut run).await?;
    Ok(run)
}

/// The raw client before and after, because the machine is not the same all the time.
async fn label(cluster: &Cluster, names: &[String], run: &mut Run) -> anyhow::Result<Vec<Controller>> {
    let before = raw(cluster, names, "bench.example.com/before").await?;
    let mark = cluster.mark()?;
    let mut labeler = Controller::start_shipped(cluster, NODE_LABELER).await?;
    labeler.admin_address().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let idle = Usage::of(labeler.process().id()).cpu_seconds;
    // Labels say where; nothing is enabled yet, so that nothing else keeps the API server busy.
    cluster.configure(CONFIG, Access::enable(&[])).await?;
    let patches = || -> anyhow::Result<Vec<_>> {
        let requests = mark.requests()?.into_iter();
        Ok(requests.filter(|one| one.user == NODE_LABELER && one.resource == "nodes" && one.verb == "patch").collect())
    };
    let done = async || Wait::until(patches().map_or(0, |patches| patches.len()), |seen| *seen >= names.len());
    eventually_within(PATIENCE, "every node to be labelled", done).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let patches = patches()?;
    run.set("labelling by node-labeler (s)", span(&patches));
    let busy = Usage::of(labeler.process().id()).cpu_seconds;
    run.set("processor time of node-labeler while labelling (s)", busy - idle);
    let after = raw(cluster, names, "bench.example.com/after").await?;
    say(format!("  raw client before and after: {before:.2} s, {after:.2} s"));
    run.set("labelling by a raw client (s)", f64::midpoint(before, after));
    run.set("labelling, ours to raw", span(&patches) / f64::midpoint(before, after));
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    run.set("patches per node", patches.len() as f64 / names.len() as f64);
    run.count("labelling", &mark)?;
    Ok(vec![labeler])
}

/// Writes as many labels to each node as node-labeler does.
async fn raw(cluster: &Cluster, names: &[String], prefix: &str) -> anyhow::Result<f64> {
    let mark = cluster.mark()?;
    let container = COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container));
    let keys: Vec<_> = container.map(|one| format!("{prefix}.{}", one.name)).collect();
    let change: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("true"))).collect();
    let each: Vec<_> = names.iter().map(|name| nodes::label(&cluster.client, name, &change)).collect();
    futures::stream::iter(each).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let mut requests = mark.requests()?;
    requests.retain(|request| request.user == "admin" && request.verb == "patch" && request.resource == "nodes");
    Ok(span(&requests))
}

/// Until every component is available on every node.
async fn all_ready(cluster: &Cluster, count: usize) {
    let expected = COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container)).count() * count;
    eventually_within(PATIENCE, "every pod to be ready", async || {
        let available = cluster.daemon_sets().await.into_iter().filter_map(|one| one.status?.number_available);
        Wait::until(available.sum::<i32>(), |sum| usize::try_from(*sum).is_ok_and(|sum| sum >= expected))
    })
    .await;
}

async fn ready(cluster: &Cluster) {
    eventually_within(PATIENCE, "the config to be ready", async || {
        Wait::until(cluster.condition(CONFIG, "Ready").await, |ready| ready.starts_with("True/"))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
}

async fn settled(cluster: &Cluster, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    say("3. A settled minute, one node that joins, one change that is none of our business");
    let mark = cluster.mark()?;
    tokio::time::sleep(Duration::from_mins(1)).await;
    run.count("settled minute", &mark)?;

    let mark = cluster.mark()?;
    cluster.npu_nodes("late", 1, "container").await?;
    all_ready(cluster, names.len() + 1).await;
    ready(cluster).await;
    run.count("one node joins", &mark)?;
    let patches = mark.our_writes()?.iter().filter(|write| write.resource == "nodes").count();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    run.set("node patches when one joins", patches as f64);

    let mark = cluster.mark()?;
    nodes::label(&cluster.client, &names[0], &[("example.com/rack", Some("7"))]).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    run.count("one unrelated change", &mark)?;
    Ok(())
}

async fn restarts(cluster: &Cluster, controllers: &mut Vec<Controller>, run: &mut Run) -> anyhow::Result<()> {
    say("5. A restart of every controller");
    let mark = cluster.mark()?;
    let mut proxies = vec![];
    for controller in std::mem::take(controllers) {
        let name = controller.name;
        controller.stop()?;
        let proxy = Proxy::start(&cluster.entry, &cluster.folder, name)?;
        let through = Access { entry: proxy.entry.clone(), ..Access::clone(cluster) };
        controllers.push(Controller::start_shipped(&through, name).await?);
        proxies.push(proxy);
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    let writes = run.count("restart of every controller", &mark)?;
    for (controller, proxy) in controllers.iter().zip(&proxies) {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let listed_kb = proxy.listed_bytes() as f64 / 1e3;
        if let Some(process) = run.processes.iter_mut().find(|process| process.name == controller.name) {
            process.listed_kb = listed_kb;
        }
    }
    // Without the proxies, which end here.
    for controller in std::mem::take(controllers) {
        let name = controller.name;
        controller.stop()?;
        controllers.push(Controller::start_shipped(cluster, name).await?);
    }
    ready(cluster).await;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    run.set("writes after restarts", writes as f64);
    Ok(())
}

/// Flapping discovery, and a thousand node changes, which must not make anything grow.
async fn changes(cluster: &Cluster, names: &[String], controllers: &[Controller], run: &mut Run) -> anyhow::Result<()> {
    say("4. Ten nodes whose discovery flaps, and a thousand changes of nodes");
    let discovery = npu_labels().into_keys().next().unwrap_or_default();
    let mark = cluster.mark()?;
    for round in 0..10 {
        for name in names.iter().take(10) {
            let value = (round % 2 == 1).then_some("true");
            nodes::label(&cluster.client, name, &[(discovery.as_str(), value)]).await?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    run.count("ten nodes flap ten times", &mark)?;

    let resident = || controllers.iter().map(|one| Usage::of(one.process().id()).resident_mb).sum::<f64>();
    let before = resident();
    for round in 0..1000_usize {
        let label = ("example.com/round", Some(if round % 2 == 0 { "even" } else { "odd" }));
        nodes::label(&cluster.client, &names[round % names.len()], &[label]).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    run.set("growth over a thousand node changes, all six (MB)", resident() - before);
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
    let labeler = run.processes.iter().find(|one| one.name == NODE_LABELER).map_or(0.0, |one| one.settled_mb);
    run.set("settled memory, node-labeler (MB)", labeler);
    Ok(())
}

async fn deletion(cluster: &Cluster, run: &mut Run) -> anyhow::Result<()> {
    say("6. The config is deleted");
    let begun = Instant::now();
    let mark = cluster.mark()?;
    cluster.unconfigure(CONFIG).await?;
    gone(cluster).await;
    let labelled = COMPONENTS.iter().map(|one| one.deploy_label).next().unwrap_or_default();
    eventually_within(PATIENCE, "the labels to be gone", async || {
        let nodes = cluster.all::<Node>().list_metadata(&ListParams::default().labels(labelled).limit(1)).await;
        Wait::until(nodes.map_or(1, |list| list.items.len()), |left| *left == 0)
    })
    .await;
    run.set("deletion of the config, until nothing is left (s)", begun.elapsed().as_secs_f64());
    run.count("deletion", &mark)?;
    Ok(())
}

async fn gone(cluster: &Cluster) {
    eventually_within(PATIENCE, "the operands to be gone", async || {
        let pods = cluster.namespaced::<Pod>(OPERANDS).list_metadata(&ListParams::default().limit(1)).await;
        let left = (cluster.daemon_sets().await.len(), pods.map_or(1, |list| list.items.len()));
        Wait::until(left, |left| *left == (0, 0))
    })
    .await;
}

/// The same DaemonSets on the same labels, applied by kubectl: what the rollout costs without us.
async fn bare(cluster: &Cluster, count: usize) -> anyhow::Result<f64> {
    let mut manifests = vec![];
    for operand in repository::operands() {
        let text = std::fs::read_to_string(repository::assets(operand).join("daemonset.yaml"))?;
        manifests.push(serde_saphyr::from_str::<Value>(&text)?);
    }
    let begun = Instant::now();
    install::apply(&cluster.kubeconfig, &manifests)?;
    all_ready(cluster, count).await;
    Ok(begun.elapsed().as_secs_f64())
}

/// Once more, because the machine is not the same all the time.
async fn bare_again(cluster: &Cluster, names: &[String], before: f64, run: &mut Run) -> anyhow::Result<()> {
    say("7. The same DaemonSets, applied by kubectl once more");
    let container = COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container));
    let labels: Vec<_> = container.map(|one| (one.deploy_label, Some("true"))).collect();
    let all: Vec<_> = names.iter().map(|name| nodes::label(&cluster.client, name, &labels)).collect();
    futures::stream::iter(all).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let after = bare(cluster, names.len()).await?;
    say(format!("  kubectl apply before and after: {before:.2} s, {after:.2} s"));
    run.set("rollout by kubectl apply (s)", f64::midpoint(before, after));
    run.set("rollout, ours to kubectl", run.figure("rollout of ours (s)") / f64::midpoint(before, after));
    Ok(())
}
