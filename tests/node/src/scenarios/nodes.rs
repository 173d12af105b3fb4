//! What happens to nodes: drained, hung, rebooted, without power.

use std::time::{Duration, Instant};

use anyhow::ensure;
use node_suite::World;
use node_suite::world::node_of;
use rustix::process::Signal;
use testbed::controller::NAMESPACE;
use testbed::{Wait, eventually, eventually_within, say};

use super::controllers::next_leader;

const DRIVER: &str = "rebellions-driver-controller";

/// A node that is drained, and comes back.
pub async fn drain(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["npu-feature-discovery"], "container").await?;
    world.cluster.expect_ready("npu").await;
    let operands = world.fingerprints("rebellions", "pods")?.len();
    world.shell("kubectl drain node-1 --ignore-daemonsets --timeout=60s")?;
    world.controllers_available()?;
    ensure!(world.pods(NAMESPACE).await?.iter().all(|pod| node_of(pod) == "node-2"), "controllers stayed");
    ensure!(world.fingerprints("rebellions", "pods")?.len() == operands, "an operand was drained");
    world.cluster.expect_ready("npu").await;
    world.shell("kubectl uncordon node-1")?;
    Ok(())
}

/// A node that reboots: its pods are the same ones, and everything is ready again by itself.
pub async fn reboot(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["npu-feature-discovery", "driver"], "container").await?;
    world.cluster.expect_ready("npu").await;
    let before = uids(world).await;
    let access = world.cluster.clone();
    let begun = Instant::now();
    world.node_mut("node-1")?.reboot(&access).await?;
    // Until the kubelet has started its containers anew, the status of its pods is that of the boot before.
    eventually("the pods of the node to have been started anew", async || {
        let pods = world.pods("rebellions").await.unwrap_or_default();
        let restarts = pods.iter().filter(|pod| node_of(pod) == "node-1").map(|pod| {
            let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            status.into_iter().flatten().map(|container| container.restart_count).sum::<i32>()
        });
        Wait::until(restarts.collect::<Vec<_>>(), |restarts| restarts.len() == 2 && restarts.iter().all(|one| *one > 0))
    })
    .await;
    world.cluster.expect_ready("npu").await;
    ensure!(uids(world).await == before, "a reboot replaced pods");
    say(format!("    ready again {:.1} s after the power was lost", begun.elapsed().as_secs_f32()));
    Ok(())
}

async fn uids(world: &World) -> Vec<String> {
    world.cluster.pods().await.into_iter().map(|(pod, uid)| format!("{pod} {uid}")).collect()
}

/// The node of the leader loses power; the other replica leads.
pub async fn power_loss(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    world.roll_out(DRIVER, &format!("kubectl scale -n {NAMESPACE} deployment/{DRIVER} --replicas=2"))?;
    let leader = next_leader(world, "").await;
    let pods = world.pods(NAMESPACE).await?;
    let nodes: Vec<_> = pods.iter().filter(|pod| node_suite::world::is_of(pod, DRIVER)).map(node_of).collect();
    ensure!(nodes.contains(&"node-1".to_owned()) && nodes.contains(&"node-2".to_owned()), "replicas are on {nodes:?}");
    let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&leader));
    let node = pod.map(node_of).unwrap_or_default();
    world.node_mut(&node)?.power_off();
    let begun = Instant::now();
    next_leader(world, &leader).await;
    say(format!("    the other replica leads {:.1} s after the power was lost", begun.elapsed().as_secs_f32()));
    Ok(())
}

/// A kubelet that hangs: its pods go on, and no controller writes to its node or replaces anything.
pub async fn frozen_kubelet(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["npu-feature-discovery"], "container").await?;
    world.cluster.expect_ready("npu").await;
    let before = (uids(world).await, world.fingerprints("rebellions", "daemonsets")?);
    ensure!(world.node("node-1")?.signal("kubelet --config", Signal::STOP)? == 1, "no kubelet");
    eventually("the node to be NotReady", async || {
        let status = world.shell("kubectl get node node-1 --no-headers").map(|said| said.out).unwrap_or_default();
        Wait::until(status, |status| status.contains("NotReady"))
    })
    .await;
    world.node("node-1")?.signal("kubelet --config", Signal::CONT)?;
    world.cluster.expect_ready("npu").await;
    let after = uids(world).await;
    ensure!(after == before.0, "a hung kubelet replaced pods");
    Ok(())
}

/// A dead node is a node that is not ready, by name, and no rollout.
pub async fn dead(world: &mut World) -> anyhow::Result<()> {
    // The controllers have to be where they can tell of it.
    world.shell("kubectl cordon node-1")?;
    world.run_components(&["npu-feature-discovery"], "container").await?;
    world.cluster.expect_ready("npu").await;
    world.node_mut("node-1")?.power_off();
    eventually("the node to be NotReady", async || {
        let status = world.shell("kubectl get node node-1 --no-headers").map(|said| said.out).unwrap_or_default();
        Wait::until(status, |status| status.contains("NotReady"))
    })
    .await;
    eventually_within(Duration::from_mins(1), "the dead node to be told of", async || {
        let words = world.cluster.condition("npu", "RebellionsNpuFeatureDiscoveryReady").await;
        Wait::until(words, |words| {
            !words.contains("RolloutInProgress") && words.contains("node-1 (the node is not ready)")
        })
    })
    .await;
    Ok(())
}
