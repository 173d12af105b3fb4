//! NPUs of a real kernel, under a kubelet: they go to virtual machines and come back, whoever holds them and whatever ends.

use std::time::Instant;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use node_suite::world::{is_of, stand_in};
use node_suite::{VirtualNode, World, images};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::controller::Controller;
use testbed::nodes::npu_labels;
use testbed::{Access, Wait, eventually, say};

const NAME: &str = "virtual-node";
const AGENT: &str = "rebellions-vfio-manager";
const MANAGER: &str = "RebellionsVfioManagerReady";
const COMPONENTS: &[&str] = &["vfio-manager", "driver", "device-plugin"];

/// Conditions of those whose pods give NPUs back before anything else, side by side.
const USERS: [&str; 2] = ["RebellionsDriverReady", "RebellionsDevicePluginReady"];

/// The pod that has an NPU for a while.
const HOLDER: &str = "machine";

/// The NPUs' device ids, each with its address.
const NPUS: [(u16, &str); 2] = [(0x1250, "0000:00:04.0"), (0x2130, "0000:00:05.0")];

/// Every component that is tried here. The driver's image is the same for every kernel, because that of the machine is another than
/// that of the other nodes.
fn section() -> Value {
    let mut section = Access::enable(COMPONENTS);
    section["driver"]["image"] = json!({"tag": "3.0.0"});
    section
}

/// A driver that any device may be given to by its id: it stands in for the vendor's.
const NATIVE: &str = "modprobe uio_pci_generic && echo 1eff 2130 >/sys/bus/pci/drivers/uio_pci_generic/new_id";

/// Driver and reservation of an NPU that is there for a virtual machine.
const TAKEN: &str = "vfio-pci vfio-pci";
/// Of one that is given back, and had no driver before.
const FREE: &str = "none (null)";
/// Of one that has the driver that it had before.
const ITS_OWN: &str = "uio_pci_generic (null)";

/// All of it, on one machine.
pub async fn run(world: &mut World) -> anyhow::Result<()> {
    let _controllers = boot(world).await?;
    machine(world)?.shell(NATIVE)?;
    expect(world, [FREE, ITS_OWN]).await?;
    take(world).await?;
    held_by_a_process(world).await?;
    take(world).await?;
    held_by_a_pod(world).await?;
    take(world).await?;
    power_loss(world).await
}

/// A machine boots and joins; the controllers run beside it.
async fn boot(world: &mut World) -> anyhow::Result<Vec<Controller>> {
    let begun = Instant::now();
    world.add_virtual_node(NAME, &NPUS.map(|(id, _)| id))?;
    told("a machine is made and takes commands", begun);
    world.cluster.install().await?;
    let controllers = world.cluster.start_all().await;
    world.cluster.configure("npu", section()).await?;
    machine(world)?.ready(&world.cluster).await?;
    told("it is a node that is Ready", begun);
    for (label, value) in npu_labels() {
        world.cluster.label(NAME, &label, Some(&value)).await?;
    }
    Ok(controllers)
}

/// Both NPUs go to virtual machines.
async fn take(world: &World) -> anyhow::Result<()> {
    let begun = Instant::now();
    world.cluster.set_mode(NAME, Some("vm-passthrough")).await?;
    expect(world, [TAKEN, TAKEN]).await?;
    expect_ready(world, MANAGER).await;
    told("both NPUs are taken, verified and told", begun);
    Ok(())
}

/// The node goes back to containers while a process has an NPU: the other one goes, and the process is named.
async fn held_by_a_process(world: &World) -> anyhow::Result<()> {
    let machine = machine(world)?;
    let path = group(machine)?;
    machine.shell(&format!(
        "(exec 3<>{path}; echo $BASHPID >/run/holder; exec sleep 1000) </dev/null >/dev/null 2>&1 &
         until [ -s /run/holder ]; do sleep 0.1; done"
    ))?;
    let process = machine.shell("cat /run/holder")?;
    give_back_but_one(world, &format!("process {} (sleep)", process.trim())).await?;
    machine.shell("kill $(cat /run/holder)")?;
    given_back(world).await
}

/// The same with a pod that has it, whose agent is replaced meanwhile.
async fn held_by_a_pod(world: &World) -> anyhow::Result<()> {
    let uid = start_holder(world).await?;
    replace_agent(world).await?;
    expect(world, [TAKEN, TAKEN]).await?;
    give_back_but_one(world, &format!("of pod {uid}")).await?;
    world.cluster.namespaced::<Pod>("default").delete(HOLDER, &DeleteParams::default()).await?;
    given_back(world).await
}

/// Without a word to anybody; what was in memory is gone, and so is the driver that one had of its own.
async fn power_loss(world: &mut World) -> anyhow::Result<()> {
    let before = agent(world).await?.context("no agent")?;
    let begun = Instant::now();
    let machine = world.virtual_nodes.first_mut().context("no machine")?;
    machine.power_off()?;
    machine.power_on()?;
    machine.ready(&world.cluster).await?;
    told("it is Ready again after a power loss", begun);
    expect(world, [TAKEN, TAKEN]).await?;
    eventually("the agent to be Ready that this boot started", async || {
        let now = agent(world).await.ok().flatten();
        Wait::until(now, |now| now.as_ref().is_some_and(|now| now.is_ready && now.container != before.container))
    })
    .await;
    expect_ready(world, MANAGER).await;
    told("both NPUs are taken again", begun);
    Ok(())
}

/// The mode is `container`, and somebody has the first NPU: the second is given back, to the driver that it had, and the
/// condition tells device and holder.
async fn give_back_but_one(world: &World, holder: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    world.cluster.set_mode(NAME, Some("container")).await?;
    expect(world, [TAKEN, ITS_OWN]).await?;
    told("the free one is given back", begun);
    for condition in USERS {
        let words = eventually(&format!("{condition} to name the NPU and {holder:?}"), async || {
            let words = world.cluster.condition("npu", condition).await;
            Wait::until(words, |words| {
                words.starts_with("False/") && words.contains(NPUS[0].1) && words.contains(holder)
            })
        })
        .await;
        told(&format!("{condition} is {words}"), begun);
    }
    expect(world, [TAKEN, ITS_OWN]).await
}

/// Nobody has any.
async fn given_back(world: &World) -> anyhow::Result<()> {
    let begun = Instant::now();
    expect(world, [FREE, ITS_OWN]).await?;
    told("the other one is given back after the end of its holder", begun);
    for condition in USERS {
        expect_ready(world, condition).await;
    }
    told("containers have both", begun);
    Ok(())
}

/// Starts a pod that keeps the first NPU open; returns its UID.
async fn start_holder(world: &World) -> anyhow::Result<String> {
    let path = group(machine(world)?)?;
    let mut container = stand_in(&path);
    container["name"] = "machine".into();
    container["image"] = images::PAUSE.into();
    container["securityContext"] = json!({"privileged": true});
    container["volumeMounts"] = json!([{"name": "dev", "mountPath": "/dev"}]);
    world.apply(&[json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": HOLDER, "namespace": "default"},
        "spec": {
            "nodeName": NAME,
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            "volumes": [{"name": "dev", "hostPath": {"path": "/dev"}}],
        },
    })])?;
    let open = format!("readlink /proc/[0-9]*/fd/* | grep --fixed-strings --line-regexp {path}");
    eventually("the pod to have the NPU", async || {
        Wait::until(machine(world).and_then(|machine| machine.shell(&open)).is_ok(), |is_open| *is_open)
    })
    .await;
    let pod = world.cluster.namespaced::<Pod>("default").get(HOLDER).await?;
    pod.uid().context("a pod without a UID")
}

/// Changes the agent's DaemonSet and waits until another pod of it is Ready.
async fn replace_agent(world: &World) -> anyhow::Result<()> {
    let before = agent(world).await?.context("no agent")?;
    let begun = Instant::now();
    let mut section = section();
    section["vfioManager"]["env"] = json!([{"name": "REPLACED", "value": "yes"}]);
    world.cluster.configure("npu", section).await?;
    eventually("another agent to be Ready", async || {
        let now = agent(world).await.ok().flatten();
        Wait::until(now, |now| now.as_ref().is_some_and(|now| now.is_ready && now.pod != before.pod))
    })
    .await;
    told("the agent is replaced while an NPU is held", begun);
    Ok(())
}

/// A pod of the agent's.
#[derive(Debug)]
struct Agent {
    pod: String,
    /// Another one after each start.
    container: String,
    is_ready: bool,
}

/// The agent, if there is just one.
async fn agent(world: &World) -> anyhow::Result<Option<Agent>> {
    let mut pods = world.pods(OPERANDS).await?;
    pods.retain(|pod| is_of(pod, AGENT));
    let [pod] = pods.as_slice() else { return Ok(None) };
    let container = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).next();
    Ok(container.map(|container| Agent {
        pod: pod.name_any(),
        container: container.container_id.clone().unwrap_or_default(),
        is_ready: container.ready,
    }))
}

fn machine(world: &World) -> anyhow::Result<&VirtualNode> {
    world.virtual_nodes.first().context("no machine")
}

/// The device node of the first NPU's IOMMU group: whoever has it open has the NPU.
fn group(machine: &VirtualNode) -> anyhow::Result<String> {
    let link = machine.shell(&format!("readlink /sys/bus/pci/devices/{}/iommu_group", NPUS[0].1))?;
    Ok(format!("/dev/vfio/{}", link.trim().rsplit('/').next().unwrap_or_default()))
}

/// Waits until each NPU stands so, by the kernel of the machine.
async fn expect(world: &World, expected: [&str; 2]) -> anyhow::Result<()> {
    let machine = machine(world)?;
    eventually(&format!("the NPUs to be {expected:?}"), async || {
        let seen = NPUS.map(|(_, address)| bound(machine, address));
        Wait::until(seen, |seen| *seen == expected.map(str::to_owned))
    })
    .await;
    Ok(())
}

/// The driver that an NPU has and the one that it is reserved for.
fn bound(machine: &VirtualNode, address: &str) -> String {
    let line =
        format!("cd /sys/bus/pci/devices/{address} && basename $(readlink driver || echo none) && cat driver_override");
    let said = machine.shell(&line).unwrap_or_else(|error| format!("{error:#}"));
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn expect_ready(world: &World, condition: &str) {
    eventually(&format!("{condition} to say that the node is ready"), async || {
        let words = world.cluster.condition("npu", condition).await;
        Wait::until(words, |words| words.starts_with("True/") && words.contains("1 of 1"))
    })
    .await;
}

fn told(what: &str, begun: Instant) {
    say(format!("    {:5.1} s: {what}", begun.elapsed().as_secs_f32()));
}
