//! The rollout of all components: by us, and of the same DaemonSets by `kubectl apply`, before and after.

use std::time::Duration;

use accelerator_api::contract::{COMPONENTS, Workload};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Controller, Wait, eventually_within, install, nodes, repository, say};

use crate::measure::{Run, Work};
use crate::meter::Bench;
use crate::phases::{CONFIG, PATIENCE};

/// The phases, in their order: what is in etcd grows from each to the next.
pub const BEFORE: &str = "rollout by kubectl, before";
pub const OURS: &str = "rollout";
pub const AFTER: &str = "rollout by kubectl, after";

/// The components that can be rolled out: those of nodes in mode container.
pub fn names() -> Vec<&'static str> {
    COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container)).map(|one| one.name).collect()
}

/// Rolls out by kubectl and takes that away; then starts the controllers and rolls out by them.
pub async fn roll_out(bench: &mut Bench, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    say("2. All components, until every pod is ready: applied by kubectl, and by us");
    apply(bench, names.len(), BEFORE, run).await?;
    install::kubectl(&bench.cluster.kubeconfig, &["delete", "daemonsets", "--all", "-n", OPERANDS], b"")?;
    gone(&bench.cluster).await;
    for operand in repository::operands() {
        let controller = Controller::start_shipped(&bench.cluster, operand.component.controller).await?;
        bench.controllers.push(controller);
    }
    for component in COMPONENTS {
        bench.cluster.expect_condition(CONFIG, component.condition_type, "False/Disabled").await;
    }
    let meter = bench.meter().await?;
    let mut enabled: Vec<_> = run.components.iter().map(String::as_str).collect();
    // Not for these nodes, but its controller has a DaemonSet to look after, too.
    enabled.push("vfio-manager");
    bench.cluster.configure(CONFIG, Access::enable(&enabled)).await?;
    all_ready(&bench.cluster, run, names.len()).await;
    let work = bench.stop(&meter, OURS, run).await?;
    run.set("rollout of ours (s)", work.seconds);
    ready(&bench.cluster).await;
    Ok(())
}

/// Rolls out by kubectl once more, because the machine is not the same all the time, and compares.
pub async fn compare(bench: &mut Bench, names: &[String], run: &mut Run) -> anyhow::Result<()> {
    say("8. The same DaemonSets, applied by kubectl once more");
    let container = COMPONENTS.iter().filter(|one| one.runs_in(Workload::Container));
    let labels: Vec<_> = container.map(|one| (one.deploy_label, Some("true"))).collect();
    let all: Vec<_> = names.iter().map(|name| nodes::label(&bench.cluster.client, name, &labels)).collect();
    futures::stream::iter(all).buffer_unordered(nodes::IN_FLIGHT).try_collect::<()>().await?;
    apply(bench, names.len(), AFTER, run).await?;
    let of = |phase: &str, figure: fn(&Work) -> f64| run.work(phase).map_or(f64::NAN, figure);
    let kubectl = |figure| f64::midpoint(of(BEFORE, figure), of(AFTER, figure));
    let seconds: fn(&Work) -> f64 = |work| work.seconds;
    let server: fn(&Work) -> f64 = |work| work.cpu_of("kube-apiserver");
    let figures = [
        ("rollout by kubectl apply (s)", kubectl(seconds)),
        ("rollout, ours to kubectl", of(OURS, seconds) / kubectl(seconds)),
        ("processor time of the API server in a rollout, ours to kubectl", of(OURS, server) / kubectl(server)),
    ];
    for (name, value) in figures {
        run.set(name, value);
    }
    Ok(())
}

/// The same DaemonSets on the same labels, applied by kubectl: what the rollout costs without us.
async fn apply(bench: &mut Bench, count: usize, phase: &str, run: &mut Run) -> anyhow::Result<()> {
    let mut manifests = vec![];
    let is_rolled_out = |name: &str| name == "vfio-manager" || run.components.iter().any(|one| one == name);
    for operand in repository::operands().into_iter().filter(|one| is_rolled_out(one.component.name)) {
        let text = std::fs::read_to_string(repository::assets(operand).join("daemonset.yaml"))?;
        let mut manifest = serde_saphyr::from_str::<Value>(&text)?;
        // As the AcceleratorConfig of the benchmark says, see Access::configure.
        manifest["spec"]["minReadySeconds"] = json!(0);
        manifests.push(manifest);
    }
    let meter = bench.meter().await?;
    install::apply(&bench.cluster.kubeconfig, &manifests)?;
    all_ready(&bench.cluster, run, count).await;
    bench.stop(&meter, phase, run).await?;
    Ok(())
}

/// Until every component that is rolled out is available on every node.
pub async fn all_ready(cluster: &Cluster, run: &Run, count: usize) {
    let expected = run.components.len() * count;
    eventually_within(PATIENCE, "every pod to be ready", async || {
        let available = cluster.daemon_sets().await.into_iter().filter_map(|one| one.status?.number_available);
        Wait::until(available.sum::<i32>(), |sum| usize::try_from(*sum).is_ok_and(|sum| sum >= expected))
    })
    .await;
}

/// Until the config is ready, and a little longer.
pub async fn ready(cluster: &Cluster) {
    eventually_within(PATIENCE, "the config to be ready", async || {
        Wait::until(cluster.condition(CONFIG, "Ready").await, |ready| ready.starts_with("True/"))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
}

/// Until no DaemonSet and no pod of an operand is left.
pub async fn gone(cluster: &Cluster) {
    eventually_within(PATIENCE, "the operands to be gone", async || {
        let pods = cluster.namespaced::<Pod>(OPERANDS).list_metadata(&ListParams::default().limit(1)).await;
        let left = (cluster.daemon_sets().await.len(), pods.map_or(1, |list| list.items.len()));
        Wait::until(left, |left| *left == (0, 0))
    })
    .await;
}
