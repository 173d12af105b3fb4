//! The controllers in pods of their own: their rights, their upgrade and their ends.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use node_suite::world::is_of;
use node_suite::{World, images};
use rustix::process::Signal;
use testbed::controller::NAMESPACE;
use testbed::repository::programs;
use testbed::{Wait, eventually, eventually_within, say};

const DRIVER: &str = "rebellions-driver-controller";

/// Far more than a lease of 15 s takes to be taken over.
const TAKEOVER: Duration = Duration::from_mins(1);

/// Pod Security `restricted`, in-cluster configuration, probes, metrics, and memory beside its limit.
pub async fn restricted(world: &mut World) -> anyhow::Result<()> {
    let said = world.shell("kubectl apply --server-side -k deploy/overlays/default")?;
    ensure!(!said.errors.contains("Warning"), "{}", said.errors);
    let enforced =
        r"kubectl get ns accelerator-system -o jsonpath='{.metadata.labels.pod-security\.kubernetes\.io/enforce}'";
    ensure!(world.shell(enforced)?.out == "restricted");
    world.controllers_available()?;
    world.cluster.configure("npu", testbed::Access::enable_all()).await?;
    for program in programs() {
        eventually(&format!("{program} to lead"), async || {
            Wait::until(world.leader(program).await.unwrap_or_default(), |holder| !holder.is_empty())
        })
        .await;
    }
    for pod in world.pods(NAMESPACE).await? {
        let name = pod.metadata.name.unwrap_or_default();
        let metrics = format!("kubectl get --raw /api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/metrics");
        let metrics = world.shell(&metrics)?.out;
        ensure!(metrics.trim_end().ends_with("# EOF"), "{name} serves no metrics:\n{metrics}");
    }
    let node = &world.nodes[0];
    let processes = node.processes("/program")?;
    let controllers: Vec<_> = processes.iter().filter(|process| process.command.starts_with("/program")).collect();
    ensure!(controllers.len() >= programs().count(), "{controllers:?}");
    for process in controllers {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        ensure!(field("Uid:").is_some_and(|ids| ids.starts_with("65532")), "{status}");
        ensure!(field("CapEff:") == Some("0000000000000000") && field("NoNewPrivs:") == Some("1"), "{status}");
        ensure!(field("Seccomp:") == Some("2"), "{status}");
        ensure!(process.resident_kb < 64 * 1024, "{process:?} is beyond the limit of 64 MiB");
    }
    let used: Vec<_> = node.processes("/program")?.iter().map(|process| process.resident_kb / 1024).collect();
    say(format!("    resident memory of the programs, each with a limit of 64 MiB: {used:?} MiB"));
    Ok(())
}

/// One controller goes to another tag and back; nobody else notices.
pub async fn upgrade(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["driver", "npu-feature-discovery"], "container").await?;
    world.cluster.expect_ready("npu").await;
    let folder = testbed::Folder::new()?;
    let archive = images::retagged(folder.path(), DRIVER, "v0.1.1")?;
    for node in &world.nodes {
        node.import(&archive)?;
    }
    settle(world).await?;
    let before = untouched(world)?;
    let change = |verb: &str| format!("kubectl {verb} -n {NAMESPACE} deployment/{DRIVER}");
    let image = "controller=ghcr.io/petasus-ai/rebellions-driver-controller:v0.1.1";
    world.roll_out(DRIVER, &format!("{} {image}", change("set image")))?;
    settle(world).await?;
    ensure!(untouched(world)? == before, "before:\n{before:#?}\nafter the upgrade:\n{:#?}", untouched(world)?);
    world.roll_out(DRIVER, &change("rollout undo"))?;
    settle(world).await?;
    ensure!(untouched(world)? == before, "before:\n{before:#?}\nafter going back:\n{:#?}", untouched(world)?);
    Ok(())
}

/// Waits until the driver's controller leads and has had time to write what it should not.
async fn settle(world: &World) -> anyhow::Result<()> {
    eventually("a leader", async || {
        let pods = world.pods(NAMESPACE).await.unwrap_or_default();
        let leader = world.leader(DRIVER).await.unwrap_or_default();
        Wait::until(leader.clone(), |leader| pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(leader)))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}

/// Everything that the upgrade of one controller must leave alone. A status counts: it is part of the version.
fn untouched(world: &World) -> anyhow::Result<Vec<String>> {
    let mut all = world.fingerprints("rebellions", "daemonsets,pods")?;
    all.extend(world.fingerprints(NAMESPACE, "pods")?.into_iter().filter(|line| !line.contains(DRIVER)));
    all.extend(world.fingerprints("default", "acceleratorconfigs")?);
    Ok(all)
}

/// SIGTERM, SIGKILL and a process that hangs.
pub async fn ends(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    world.roll_out(DRIVER, &format!("kubectl scale -n {NAMESPACE} deployment/{DRIVER} --replicas=2"))?;
    // The container is started anew at once, and may be the next leader itself.
    let first = next_leader(world, "").await;
    signal_leader(world, &first, Signal::TERM).await?;
    let ended = format!(
        "kubectl get pod -n {NAMESPACE} {first} -o jsonpath='{{.status.containerStatuses[0].lastState.terminated.exitCode}}'"
    );
    eventually("the exit code of an orderly end", async || {
        Wait::until(world.shell(&ended).map(|said| said.out).unwrap_or_default(), |code| code == "0")
    })
    .await;
    world.controllers_available()?;

    // A pod that is deleted gets the same signal, and does not come back.
    let second = next_leader(world, "").await;
    let begun = Instant::now();
    world.shell(&format!("kubectl delete pod -n {NAMESPACE} {second} --wait=false"))?;
    let third = next_leader(world, &second).await;
    say(format!("    after SIGTERM the next one leads in {:.1} s", begun.elapsed().as_secs_f32()));
    world.controllers_available()?;

    signal_leader(world, &third, Signal::KILL).await?;
    // The same pod, with the same identity, or the other one.
    eventually("a leader after a kill", async || {
        Wait::until(world.leader(DRIVER).await.unwrap_or_default(), |l| !l.is_empty())
    })
    .await;
    world.controllers_available()?;

    let hangs = next_leader(world, "").await;
    signal_leader(world, &hangs, Signal::STOP).await?;
    let begun = Instant::now();
    next_leader(world, &hangs).await;
    say(format!("    after a hang the next one leads in {:.1} s", begun.elapsed().as_secs_f32()));
    signal_leader(world, &hangs, Signal::CONT).await?;
    Ok(())
}

/// Who leads, once that is another than `before`.
pub async fn next_leader(world: &World, before: &str) -> String {
    eventually_within(TAKEOVER, "another leader", async || {
        Wait::until(world.leader(DRIVER).await.unwrap_or_default(), |holder| !holder.is_empty() && holder != before)
    })
    .await
}

async fn signal_leader(world: &World, leader: &str, signal: Signal) -> anyhow::Result<()> {
    let pods = world.pods(NAMESPACE).await?;
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(leader)).context("no such pod")?;
    ensure!(is_of(pod, DRIVER));
    let node = world.node(&node_suite::world::node_of(pod))?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    // A container that was killed a moment ago is about to be started again.
    let id = eventually_within(TAKEOVER, &format!("a process of {leader} on {}", node.name), async || {
        let is_its =
            |id: &u32| std::fs::read_to_string(format!("/proc/{id}/cgroup")).is_ok_and(|text| text.contains(&uid));
        let processes = node.processes("/program").unwrap_or_default();
        Wait::until(processes.iter().map(|process| process.id).find(is_its), Option::is_some)
    })
    .await;
    let pid =
        id.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw).context("no process")?;
    rustix::process::kill_process(pid, signal)?;
    Ok(())
}
