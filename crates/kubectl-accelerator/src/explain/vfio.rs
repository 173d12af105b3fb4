//! The words of the agent that binds NPUs to vfio-pci, as its probe and its init container say them, and what to do about each.

use super::finding::Finding;
use crate::facts::Facts;

/// The agent's reasons that ask somebody to act, and what to do. Source: docs/reference/vfio-manager.md.
const ADVICE: &[(&str, &str, &str)] = &[
    (
        "InUse",
        "an NPU is in use",
        "end the process or pod that is named, or shut the virtual machine down: one with a device of the host cannot be migrated; the agent goes on by itself",
    ),
    (
        "UseUnknown",
        "whether an NPU is in use cannot be told",
        "look at the cause in the message: mount the host's /proc and /dev, or wait until the processes named end",
    ),
    ("NoIommuGroup", "the IOMMU does not cover an NPU", "look at the firmware's settings for the slot"),
    (
        "NoIommu",
        "no IOMMU is on",
        "switch VT-d or AMD-Vi on in the firmware, and intel_iommu=on on Intel's kernels, then reboot the node",
    ),
    (
        "IommuGroupShared",
        "other devices share the IOMMU group of an NPU",
        "free the devices that the message names, or move the card to another slot",
    ),
    ("VfioPciMissing", "the kernel has no vfio-pci", "modprobe vfio-pci on the host, or install its kernel's modules"),
    ("NoVfioGroups", "the kernel has no VFIO groups", "use a kernel with CONFIG_VFIO_GROUP"),
    ("VfioNodeMissing", "the device node of a VFIO group is not to be seen", "mount the host's /dev and set VFIO_DEV"),
    ("SysfsReadOnly", "/sys cannot be written", "mount /sys writable"),
    ("TakenByAnother", "another driver takes an NPU each time", "remove its id from that driver's options"),
    ("KernelBlocked", "the kernel does not come back from a step", "end whatever has the device open"),
    (
        "UnknownDeviceId",
        "the agent does not know the device id of an NPU",
        "use a newer vfio-manager, or set VFIO_WHEN_UNKNOWN=bind",
    ),
    ("NotReleased", "the driver does not let go of an NPU", "look at dmesg of the node"),
    ("NotTaken", "vfio-pci does not take an NPU", "look at dmesg of the node"),
    ("WriteFailed", "the kernel refuses a write", "look at dmesg of the node"),
    (
        "ActiveVirtualFunctions",
        "virtual functions of an NPU are handed out",
        "end their users, or write 0 to sriov_numvfs of the card",
    ),
];

/// What the agent's words in this text mean, if there are some. The agent knows pods by their UID; here is their name.
pub(super) fn told(facts: &Facts, node: &str, text: &str) -> Option<Finding> {
    if let Some(words) = words(text, "this node has no NPU (PCI vendor") {
        return Some(Finding::blocks(format!("vfio-manager finds no NPU: {words}")).todo(format!(
            "give node {node} another mode if it has none, or see why PCI does not show them: lspci -d 1eff:"
        )));
    }
    let words = named(facts, words(text, "NPUs are on vfio-pci").or_else(|| words(text, "NPUs are given back"))?);
    // The first reason that asks somebody to act, in the order of devices.
    let at = |reason: &str| words.find(&format!("({reason})"));
    let first = ADVICE.iter().filter_map(|row| Some((at(row.0)?, row))).min_by_key(|(at, _)| *at);
    Some(match first {
        Some((_, (_, reason, advice))) => Finding::blocks(format!("{reason}: {words}")).todo(*advice),
        None => Finding::passes(format!("NPUs are still being moved: {words}")),
    })
}

/// The agent's words: from the beginning of the sentence that has this in it, without what the kubelet says in front.
fn words<'a>(text: &'a str, sign: &str) -> Option<&'a str> {
    let at = text.find(sign)?;
    let begin = text[..at].rfind(": ").map_or(0, |colon| colon + 2);
    Some(&text[begin..])
}

/// The text with the names of pods in place of their UIDs.
pub(super) fn named(facts: &Facts, text: &str) -> String {
    let mut text = text.to_owned();
    for pod in &facts.pods {
        let uid = &pod.metadata.uid;
        if uid.len() == 36 && text.contains(uid.as_str()) {
            text = text.replace(&format!("pod {uid}"), &format!("pod {}", pod.full_name()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason that needs a hand is one that the agent has.
    #[test]
    fn every_reason_is_the_agents() {
        let page = include_str!("../../../../docs/reference/vfio-manager.md");
        for (reason, ..) in ADVICE {
            assert!(page.contains(&format!("`{reason}`")), "docs/reference/vfio-manager.md: {reason}");
        }
    }
}
