//! NPUs that are found against NPUs that pods may have: what neither discovery, nor the device plugin, nor the kubelet says alone.

use accelerator_api::contract::{DEVICE_PLUGIN, DRIVER, NPU_COUNT_LABEL, NPU_FAMILY_LABEL, Workload};
use accelerator_api::count;
use node_labeler::rules::NodeState;

use super::finding::{Finding, Line};
use super::{NodeContext, driver};
use crate::facts::PodFact;

/// The row about NPUs.
pub(super) fn line(context: &NodeContext<'_>) -> Option<Line> {
    let node = context.node;
    if context.decision.state == NodeState::InMode(Workload::VmPassthrough) {
        let found = node.found()?;
        return Some(Line::new("NPUs", format!("{found} found, for virtual machines")));
    }
    let found = node.found().map(|found| format!("{found} found, ")).unwrap_or_default();
    let known = node.found().is_some() || node.capacity() > 0;
    let used: usize = context.facts.pods.iter().filter(|pod| uses(context, pod)).count();
    let users = if used > 0 {
        format!(", {}", count(i64::try_from(used).unwrap_or(i64::MAX), "pod") + " with some")
    } else {
        String::new()
    };
    known.then(|| Line::new("NPUs", format!("{found}{} allocatable{users}", node.allocatable())))
}

fn uses(context: &NodeContext<'_>, pod: &PodFact) -> bool {
    let is_over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    pod.spec.node_name == context.node.metadata.name && pod.asks_for_npus() && !is_over
}

/// Why pods may have fewer NPUs than there are, once everything that makes them allocatable is ready.
pub(super) fn missing(context: &NodeContext<'_>, ready: impl Fn(&str) -> bool) -> Option<Finding> {
    let (node, name) = (context.node, &context.node.metadata.name);
    if !driver::is_wanted(context) || driver::state(context).is_some() || !ready(DEVICE_PLUGIN.name) {
        return None;
    }
    let (found, capacity, allocatable) = (node.found(), node.capacity(), node.allocatable());
    let plugin = context.pod_of(DEVICE_PLUGIN.operand);
    let restart = plugin
        .map(|pod| format!("kubectl -n {} logs {}", pod.metadata.namespace, pod.metadata.name))
        .unwrap_or_default();
    let since = plugin.and_then(PodFact::since);
    if allocatable < capacity {
        let what = format!(
            "the device plugin of node {name} has {} and calls {} of them unhealthy: the kubelet gives {allocatable} to pods",
            count(whole(capacity), "NPU"),
            capacity - allocatable
        );
        return Some(
            Finding::blocks(what).todo(restart).todo("look at the kernel's log of the node: dmesg | grep rbln"),
        );
    }
    match found {
        Some(found) if allocatable == 0 && found > 0 => {
            let driver =
                if ready(DRIVER.name) { "driver and device plugin are ready" } else { "the device plugin is ready" };
            let what = format!(
                "{driver} on node {name}, discovery finds {}, and the kubelet advertises none",
                count(whole(found), "NPU")
            );
            Some(Finding::blocks(what).since(since).todo(format!("{restart}: does it find devices, and has it registered?")).todo(
                "if it has: the kubelet has forgotten it; restart the plugin's pod, and read the kubelet's log for device-plugin",
            ))
        }
        Some(found) if allocatable < found => {
            let what = format!(
                "the device plugin of node {name} has registered and the kubelet advertises {} of {} that discovery finds (label {NPU_COUNT_LABEL})",
                allocatable,
                count(whole(found), "NPU")
            );
            Some(Finding::blocks(what).since(since).todo(format!("{restart}: it names the devices that it leaves out")).todo(
                "NPUs on vfio-pci or of an id that its configuration does not list are left out: lspci -nnk -d 1eff: on the node",
            ))
        }
        None if allocatable == 0 && node.metadata.label(NPU_FAMILY_LABEL).is_none() => {
            let what = format!("the device plugin of node {name} is ready, and the kubelet advertises no NPU");
            Some(
                Finding::blocks(what)
                    .since(since)
                    .todo(format!("{restart}: does it find devices, and has it registered?")),
            )
        }
        _ => None,
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
