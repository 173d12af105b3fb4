//! Causes that only a kubelet knows: each has to be told with the words that name it.

use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;
use node_suite::World;
use node_suite::registry::Registry;
use node_suite::world::stand_in;
use serde_json::json;
use testbed::{Wait, eventually, eventually_within};

const DISCOVERY: &str = "npu-feature-discovery";
const CONDITION: &str = "RebellionsNpuFeatureDiscoveryReady";

/// How soon a cause has to be told.
const SOON: Duration = Duration::from_mins(1);

/// A registry that wants credentials, and one that does not have the image, are two different things.
pub async fn pulls(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&[DISCOVERY], "container").await?;
    let (refuses, lacks) =
        (Registry::start(StatusCode::UNAUTHORIZED).await?, Registry::start(StatusCode::NOT_FOUND).await?);
    world.node("node-1")?.redirect_registry("refuses.example", &refuses.url)?;
    world.node("node-1")?.redirect_registry("lacks.example", &lacks.url)?;
    for (registry, cause) in [("refuses.example", "401 Unauthorized"), ("lacks.example", "not found")] {
        let image = json!({"image": {"registry": registry, "name": "a/program", "tag": "v1"}});
        world.configure_component(DISCOVERY, &image).await?;
        told(world, &[registry, cause]).await;
        // The words of the first refusal outlive the pauses between tries.
        eventually("pauses between tries", async || {
            let pods = world.shell("kubectl get pods -n rebellions --no-headers").map(|said| said.out);
            Wait::until(pods.unwrap_or_default(), |pods| pods.contains("ImagePullBackOff"))
        })
        .await;
        told(world, &[registry, cause]).await;
    }
    Ok(())
}

/// A path of the host that is not what the manifest asks for.
pub async fn mount(world: &mut World) -> anyhow::Result<()> {
    world.node("node-1")?.shell("mkdir -p /run/rbln && echo no folder >/run/rbln/driver")?;
    world.run_components(&["driver"], "container").await?;
    eventually_within(SOON, "a failed mount to be told of", async || {
        let words = world.cluster.condition("npu", "RebellionsDriverReady").await;
        Wait::until(words, |words| words.contains("/run/rbln/driver is not a directory"))
    })
    .await;
    Ok(())
}

/// Memory that runs out.
pub async fn memory(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&[DISCOVERY], "container").await?;
    let mut settings = stand_in("eat-memory");
    settings["resources"] = json!({"limits": {"memory": "16Mi"}});
    world.configure_component(DISCOVERY, &settings).await?;
    told(world, &["OOMKilled"]).await;
    Ok(())
}

/// A program's last words, and a Warning about it.
pub async fn last_words(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&[DISCOVERY], "container").await?;
    world.configure_component(DISCOVERY, &stand_in("fail")).await?;
    told(world, &["cannot open /dev/rsd0: No such device"]).await;
    eventually_within(SOON, "a Warning event", async || {
        let events = world.cluster.events("npu").await;
        Wait::until(events, |events| {
            events.iter().any(|event| event.starts_with("PodsNotReady") && event.contains("node-1"))
        })
    })
    .await;
    Ok(())
}

/// A version that crashes a little later must not take every working pod.
pub async fn bad_version(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&[DISCOVERY], "container").await?;
    world.cluster.expect_ready("npu").await;
    // The default; elsewhere the test bed sets it to 0, to wait less.
    let mut section = testbed::Access::enable(&[DISCOVERY]);
    section["daemonsets"] = json!({"updateStrategy": {"minReadySeconds": 10}});
    world.cluster.configure("npu", section.clone()).await?;
    // Until then the old pods have not been ready for long enough either, and may be replaced at once.
    world.cluster.expect_ready("npu").await;
    section["nfd"]["env"] = stand_in("fail-later")["env"].clone();
    world.cluster.configure("npu", section).await?;
    told(world, &["cannot open /dev/rsd0"]).await;
    // As long as the whole rollout would take several times over.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let pods = world.pods("rebellions").await?;
    let works = |pod: &&k8s_openapi::api::core::v1::Pod| {
        let main = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        main.is_some_and(|main| main.env.iter().flatten().all(|one| one.name != "STAND_IN"))
    };
    let working = pods.iter().filter(works).count();
    ensure!(working >= 3, "a bad version took {} of 4 pods", 4 - working);
    Ok(())
}

/// The driver, on a machine on which no other pod has run before.
pub async fn driver_alone(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["driver"], "container").await?;
    eventually_within(Duration::from_secs(90), "the driver to run", async || {
        let words = world.cluster.condition("npu", "RebellionsDriverReady").await;
        Wait::until(words, |words| words.starts_with("True/"))
    })
    .await;
    let left = world.node("node-1")?.shell("ls /dev/termination-log 2>/dev/null; true")?;
    ensure!(left.is_empty(), "a pod left {left} on the node");
    Ok(())
}

/// A device plugin that starts before the driver finds the driver's tools all the same.
pub async fn plugin_first(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["device-plugin"], "container").await?;
    world.cluster.expect_ready("npu").await;
    // As the vendor's driver does: it mounts over the folder from then on.
    let driver = "mkdir -p /run/rbln/driver && mount -t tmpfs driver /run/rbln/driver && mkdir -p /run/rbln/driver/usr/bin \
                  && echo x >/run/rbln/driver/usr/bin/rbln-smi";
    let node = world.node("node-1")?;
    node.shell(driver)?;
    let plugin = node.processes("k8s-device-plugin")?;
    let plugin = plugin.iter().find(|process| process.command.starts_with("/k8s-device-plugin"));
    let id = plugin.map(|process| process.id).unwrap_or_default();
    let seen = std::path::Path::new(&format!("/proc/{id}/root/host/driver/usr/bin/rbln-smi")).exists();
    ensure!(seen, "the device plugin does not see the driver's tools");
    Ok(())
}

/// A pod that cannot be made is not an old revision.
pub async fn advice(world: &mut World) -> anyhow::Result<()> {
    world.install()?;
    world.cluster.configure("npu", testbed::Access::enable(&["driver"])).await?;
    world.cluster.set_mode("node-1", Some("container")).await?;
    world.cluster.expect_condition("npu", "RebellionsDriverReady", "True/").await;
    world.shell("kubectl label --overwrite ns rebellions pod-security.kubernetes.io/enforce=restricted")?;
    world.cluster.set_mode("node-2", Some("container")).await?;
    let words = eventually_within(SOON, "the refused pod to be told of", async || {
        let words = world.cluster.condition("npu", "RebellionsDriverReady").await;
        Wait::until(words, |words| words.contains("FailedCreate"))
    })
    .await;
    ensure!(!words.contains("delete a node's pod"), "harmful advice: {words}");
    Ok(())
}

async fn told(world: &World, words: &[&str]) {
    eventually_within(SOON, &format!("the condition to say {words:?}"), async || {
        let condition = world.cluster.condition("npu", CONDITION).await;
        Wait::until(condition, |condition| {
            condition.contains("node-") && words.iter().all(|word| condition.contains(word))
        })
    })
    .await;
}
