//! What the demo shows, act by act.

use std::time::{Duration, Instant};

use accelerator_api::contract::{METRIC_EXPORTER, Workload};
use anyhow::bail;
use serde_json::{Value, json};
use testbed::repository::root;
use testbed::{Access, install, nodes};

use crate::screen::Screen;
use crate::snapshot::{Cell, FEW, Snapshot};
use crate::stage::{MARK, Stage};
use crate::upgrade;
use crate::view::picture;

/// Name of the sample AcceleratorConfig.
pub const CONFIG: &str = "default";

/// How long an act may take. Thousands of nodes take a minute.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// Tells the story.
pub async fn tell(stage: &mut Stage, screen: &mut Screen, count: usize) -> anyhow::Result<()> {
    let (container, vm) = (count / 2, count / 3);
    screen
        .act(&format!("1. {count} nodes with NPUs appear, and an admin applies deploy/samples/acceleratorconfig.yaml"));
    stage.create_nodes(count).await?;
    install::kubectl(&stage.access.kubeconfig, &["apply", "-f", "-"], sample(count)?.to_string().as_bytes())?;
    let unlabelled = as_i64(count);
    follow(&stage.access, screen, count, |seen| seen.is_ready() && seen.counts().without_mode == unlabelled).await?;
    screen.say("   Nothing runs anywhere: no node has said what its NPUs are for.");

    let real_too =
        stage.real_nodes().first().map(|name| format!(", and the real node {name} container too")).unwrap_or_default();
    screen.act(&format!("2. The admin labels {container} nodes container and {vm} vm-passthrough{real_too}"));
    let begun = Instant::now();
    label(stage, 1..=container, Workload::Container).await?;
    let real: Vec<_> = stage.real_nodes().iter().map(|name| (*name).to_owned()).collect();
    nodes::set_modes(&stage.access.client, &real, Workload::Container.as_str()).await?;
    label(stage, container + 1..=container + vm, Workload::VmPassthrough).await?;
    let (pods, machines) = (as_i64(container + real.len()), as_i64(vm));
    follow(&stage.access, screen, count, |seen| {
        seen.is_ready() && seen.counts().container == pods && seen.counts().vm_passthrough == machines
    })
    .await?;
    screen
        .say(&format!("   Every node runs exactly what its mode needs, after {:.1} s.", begun.elapsed().as_secs_f32()));

    let switched = stage.node(1);
    screen.act(&format!("3. One node changes sides: {switched} becomes vm-passthrough"));
    stage.access.set_mode(&switched, Some(Workload::VmPassthrough.as_str())).await?;
    follow(&stage.access, screen, count, |seen| {
        seen.is_ready() && seen.counts().container == pods - 1 && seen.counts().vm_passthrough == machines + 1
    })
    .await?;

    screen.act("4. The admin disables the metric exporter");
    let patch = json!({"spec": {"providers": {"rebellions": {"metricExporter": {"enabled": false}}}}}).to_string();
    stage.access.kubectl(&["patch", "ac", CONFIG, "--type=merge", "-p", &patch])?;
    follow(&stage.access, screen, count, |seen| {
        let condition = seen.status.condition(METRIC_EXPORTER.condition_type);
        let is_gone = seen.rows.iter().all(|row| !matches!(row.cells[2], Cell::Ready));
        seen.is_ready() && is_gone && condition.is_some_and(|condition| condition.reason == "Disabled")
    })
    .await?;
    screen.say("");
    screen.say(&stage.access.kubectl(&["get", "ac", CONFIG, "-o", "wide"])?);
    upgrade::tell(stage, screen, count).await
}

/// The sample; where there is time to watch, pods take as long to become ready as quick ones do elsewhere.
fn sample(nodes: usize) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(root().join("deploy/samples/acceleratorconfig.yaml"))?;
    let mut sample: Value = serde_saphyr::from_str(&text)?;
    sample["metadata"]["labels"] = json!({MARK: "true"});
    if nodes <= FEW {
        sample["spec"]["providers"]["rebellions"]["daemonsets"] = json!({"annotations": {"sim.test/ready": "1500ms"}});
    }
    Ok(sample)
}

async fn label(stage: &Stage, numbers: std::ops::RangeInclusive<usize>, mode: Workload) -> anyhow::Result<()> {
    let names: Vec<_> = numbers.map(|number| stage.node(number)).collect();
    nodes::set_modes(&stage.access.client, &names, mode.as_str()).await
}

/// Shows the cluster until it is as wanted.
async fn follow(
    access: &Access,
    screen: &mut Screen,
    nodes: usize,
    done: impl Fn(&Snapshot) -> bool,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let snapshot = Snapshot::take(access, CONFIG, nodes).await?;
        screen.show(picture(&snapshot, screen.paint()));
        if done(&snapshot) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("this took more than {} s; logs are in {}", PATIENCE.as_secs(), access.folder.display());
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
