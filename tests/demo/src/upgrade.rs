//! The last two acts: machines with NPUs that count, and an upgrade of their driver.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use accelerator_api::contract::{DRIVER, DRIVER_UPGRADE_STATE_LABEL, WORKLOAD_CONFIG_LABEL};
use anyhow::bail;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::nodes::{ATOM, IN_FLIGHT};
use testbed::{Access, Wait, Workload, eventually, nodes};

use crate::screen::Screen;
use crate::stage::Stage;
use crate::story::{CONFIG, PATIENCE};
use crate::view::Picture;

const MACHINES: usize = 6;
/// The pod that uses an NPU.
const POD: &str = "training";
const BEFORE: &str = "3.0.0";
const AFTER: &str = "3.0.1";

/// Shows them where the demo has a control plane of its own: nowhere else is there a kubelet that plays a driver.
pub async fn tell(stage: &mut Stage, screen: &mut Screen, count: usize) -> anyhow::Result<()> {
    let Some(machines) = stage.machines("machine", MACHINES).await? else { return Ok(()) };
    screen.act(&format!(
        "5. {MACHINES} machines with 8 NPUs each take the nodes' place; a pod uses one of {}",
        machines[1]
    ));
    let without = (1..=count).map(|number| stage.node(number));
    let without: Vec<_> = without.map(|name| forget(&stage.access, name)).collect();
    futures::stream::iter(without).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let access = &stage.access;
    configure(access, &json!({"version": BEFORE}))?;
    follow(access, screen, |seen| seen.len() == MACHINES && seen.iter().all(|machine| machine.npus == "8")).await?;
    Workload::npu(POD, &machines[1]).create(access).await?;

    screen.act(&format!("6. The admin wants the driver {AFTER} with autoUpgrade, three nodes at once"));
    screen.say(&format!("   In a cluster of yours: kubectl get nodes -L {DRIVER_UPGRADE_STATE_LABEL} --watch"));
    let begun = Instant::now();
    let policy = json!({"autoUpgrade": true, "maxParallel": 3, "maxUnavailable": "50%"});
    configure(access, &json!({"version": AFTER, "upgradePolicy": policy}))?;
    follow(access, screen, |seen| seen.iter().all(|machine| machine.state == "Done" && !machine.is_cordoned)).await?;
    screen.say(&format!(
        "   {AFTER} on every machine after {:.1} s: one first, then three at once; the pod {POD} was evicted, every cordon is lifted.",
        begun.elapsed().as_secs_f32()
    ));
    screen.say(&format!("\n   status: {}\n", status(access).await));
    screen.say(&events(access)?);
    Ok(())
}

/// The events about upgrades, as kubectl prints them.
fn events(access: &Access) -> anyhow::Result<String> {
    let columns = "custom-columns=NODE:.involvedObject.name,REASON:.reason,MESSAGE:.message";
    let of_nodes = ["get", "events", "-A", "--field-selector", "involvedObject.kind=Node", "-o", columns];
    let printed = access.kubectl(&[of_nodes.as_slice(), &["--sort-by=.metadata.creationTimestamp"]].concat())?;
    let lines = printed.lines().enumerate().filter(|(number, line)| *number == 0 || line.contains("DriverUpgrade"));
    Ok(lines.map(|(_, line)| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}

/// What the AcceleratorConfig says when it has followed: status is written once in a few seconds.
async fn status(access: &Access) -> String {
    let entry = format!("jsonpath={{.status.components[?(@.name==\"{}\")].upgrade}}", DRIVER.operand);
    eventually("the status to tell of every machine", async || {
        let shown = access.kubectl(&["get", "ac", CONFIG, "-o", &entry]).unwrap_or_default();
        Wait::until(shown, |shown| shown.contains(&format!("\"done\":{MACHINES},")))
    })
    .await
}

/// A node's NPUs are for nothing any more.
async fn forget(access: &Access, node: String) -> anyhow::Result<()> {
    nodes::label(&access.client, &node, &[(WORKLOAD_CONFIG_LABEL, None)]).await
}

fn configure(access: &Access, driver: &Value) -> anyhow::Result<()> {
    let patch = json!({"spec": {"providers": {"rebellions": {"driver": driver}}}}).to_string();
    access.kubectl(&["patch", "ac", CONFIG, "--type=merge", "-p", &patch]).map(drop)
}

/// A machine at a moment.
struct Machine {
    name: String,
    is_cordoned: bool,
    state: String,
    npus: String,
}

async fn machines(access: &Access) -> anyhow::Result<Vec<Machine>> {
    let ours = ListParams::default().labels(DRIVER.deploy_label);
    let nodes = access.all::<Node>().list(&ours).await?;
    let machine = |node: Node| {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        Machine {
            name: node.name_any(),
            is_cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            state: node.labels().get(DRIVER_UPGRADE_STATE_LABEL).cloned().unwrap_or_default(),
            npus: allocatable.and_then(|all| all.get(ATOM)).map_or_else(|| "0".into(), |count| count.0.clone()),
        }
    };
    Ok(nodes.items.into_iter().filter(is_machine).map(machine).collect())
}

fn is_machine(node: &Node) -> bool {
    node.name_any().ends_with(nodes::SUFFIX)
}

/// Shows machines until they are as wanted.
async fn follow(access: &Access, screen: &mut Screen, done: impl Fn(&[Machine]) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let seen = machines(access).await?;
        let pods = access.workloads().await;
        screen.show(picture(&seen, pods.iter().any(|pod| pod == POD)));
        if done(&seen) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("this took more than {} s; logs are in {}", PATIENCE.as_secs(), access.folder.display());
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// What `kubectl get nodes -L rebellions.ai/npu-driver-upgrade-state` shows, and NPUs.
fn picture(machines: &[Machine], has_pod: bool) -> Picture {
    let row = |name: &str, status: &str, state: &str, npus: &str| {
        format!("  {name:<14} {status:<26} {npus:>4}   {state}").trim_end().to_owned()
    };
    let mut lines = vec![row("NAME", "STATUS", "NPU-DRIVER-UPGRADE-STATE", "NPUS")];
    let mut counts = BTreeMap::<&str, usize>::new();
    for machine in machines {
        let status = if machine.is_cordoned { "Ready,SchedulingDisabled" } else { "Ready" };
        lines.push(row(&machine.name, status, &machine.state, &machine.npus));
        *counts.entry(if machine.state.is_empty() { "not begun" } else { &machine.state }).or_default() += 1;
    }
    let npus: u64 = machines.iter().filter_map(|machine| machine.npus.parse::<u64>().ok()).sum();
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{state} {count}")).collect();
    let pod = if has_pod { format!("; {POD} runs") } else { String::new() };
    let line = format!("{}; {npus} NPUs{pod}", counts.join(", "));
    lines.extend([String::new(), format!("  {line}")]);
    Picture { lines, line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_a_line_as_kubectl_would_print_it() {
        let machine = |name: &str, is_cordoned, state: &str, npus: &str| Machine {
            name: name.into(),
            is_cordoned,
            state: state.into(),
            npus: npus.into(),
        };
        let machines = [
            machine("machine-0.sim", false, "Done", "8"),
            machine("machine-1.sim", true, "Restarting", "0"),
            machine("machine-2.sim", false, "", "8"),
        ];
        let Picture { lines, line } = picture(&machines, true);
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = [
            "NAME STATUS NPUS NPU-DRIVER-UPGRADE-STATE",
            "machine-0.sim Ready 8 Done",
            "machine-1.sim Ready,SchedulingDisabled 0 Restarting",
            "machine-2.sim Ready 8",
        ];
        assert_eq!(lines[..4].iter().map(words).collect::<Vec<_>>(), expected);
        assert_eq!(line, "Done 1, Restarting 1, not begun 1; 16 NPUs; training runs");
    }
}
