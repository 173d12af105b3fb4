//! The VFIO manager and give-back on nodes whose NPUs are none, or known to sysfs alone.

use anyhow::ensure;
use node_suite::World;
use testbed::{Wait, eventually};

const CONDITION: &str = "RebellionsVfioManagerReady";

/// Two NPUs that only sysfs knows of, without an IOMMU. Nothing of the machine's own devices is to be seen beside them.
const TWO_NPUS: &str = r#"
mount -t tmpfs -o mode=755 npus /sys/bus/pci/devices
for address in 0000:03:00.0 0000:04:00.0; do
  device=/sys/bus/pci/devices/$address
  mkdir $device
  echo 0x1eff >$device/vendor; echo 0x1250 >$device/device; echo 0x120000 >$device/class; echo 0x00 >$device/revision
  echo "(null)" >$device/driver_override; echo -1 >$device/numa_node; echo 0 >$device/enable; : >$device/uevent
done"#;

/// No NPU: the manager says so; what gives NPUs back has nothing to do and keeps nobody waiting.
pub async fn none(world: &mut World) -> anyhow::Result<()> {
    world.run_components(&["vfio-manager", "device-plugin"], "vm-passthrough").await?;
    told(world, "no NPU").await;
    world.cluster.set_mode("node-1", Some("container")).await?;
    world.cluster.expect_condition("npu", "RebellionsDevicePluginReady", "True/Ready").await;
    Ok(())
}

/// NPUs that cannot be bound: told through probe, event and condition, and nothing is touched.
pub async fn blocked(world: &mut World) -> anyhow::Result<()> {
    world.node("node-1")?.shell(TWO_NPUS)?;
    world.run_components(&["vfio-manager"], "vm-passthrough").await?;
    told(world, "IOMMU").await;
    eventually("the kubelet's event about the probe", async || {
        let events =
            "kubectl get events -n rebellions --field-selector reason=Unhealthy -o jsonpath='{.items[*].message}'";
        let events = world.shell(events).map(|said| said.out).unwrap_or_default();
        Wait::until(events, |events| events.contains("IOMMU"))
    })
    .await;
    let overrides = world.node("node-1")?.shell("cat /sys/bus/pci/devices/*/driver_override")?;
    ensure!(overrides.lines().all(|line| line == "(null)"), "a device that cannot be bound was touched: {overrides}");
    Ok(())
}

async fn told(world: &World, cause: &str) {
    eventually(&format!("the condition to name the node and {cause:?}"), async || {
        let words = world.cluster.condition("npu", CONDITION).await;
        Wait::until(words, |words| words.starts_with("False/") && words.contains("node-1") && words.contains(cause))
    })
    .await;
}
