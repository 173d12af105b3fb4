//! What to do about each reason of a driver upgrade. The guide says the same at length: docs/guides/driver-upgrade.md.

use accelerator_api::contract::{DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_SKIP_LABEL};
use rebellions_driver_controller::upgrade::Reason;

use super::finding::Weight;

/// How much a node's reason weighs, and what to do about it.
pub(super) fn of_upgrade(reason: Reason) -> (Weight, Option<String>) {
    let blocks = |step: &str| (Weight::Blocks, Some(step.to_owned()));
    match reason {
        Reason::DriverCrashes => {
            blocks("read its log: kubectl -n rebellions logs POD --previous; or set the version that was there before")
        }
        Reason::DriverImageMissing => blocks(
            "push the image, or change driver.version or driver.image; the node recovers by itself when it exists",
        ),
        Reason::DriverNotReady => {
            blocks("read its log; allow more time by driver.upgradePolicy.validationTimeout if it was only slow")
        }
        Reason::NpusMissing => blocks(&format!(
            "look at the device plugin's pod and the kernel's log of the node; if it has fewer NPUs now, annotate it with {DRIVER_UPGRADE_REQUESTED_ANNOTATION}=true"
        )),
        Reason::NodeLost | Reason::NodeNotReady => {
            blocks("bring the node back, or delete the Node when the machine is gone")
        }
        Reason::DriverPodTerminating => blocks("look at the pod's finalizers and at the node's kubelet"),
        Reason::DriverPodMissing => {
            blocks("events of the driver's DaemonSet say why: kubectl -n rebellions describe ds")
        }
        Reason::DependentsStay => {
            blocks("see whether node-labeler runs, and who set the deploy labels of the components that stay")
        }
        Reason::EvictionTimedOut => {
            blocks("end the pods that are named, or ease what holds them: a budget, a finalizer, a long grace period")
        }
        Reason::PodNotEvictable => {
            blocks("end the pod, or set driver.upgradePolicy.eviction.force or .deleteEmptyDirData")
        }
        Reason::KernelUnknown => blocks("see whether Node Feature Discovery runs on it, or set driver.image.tag"),
        Reason::AutoUpgradeOff => {
            blocks("set driver.upgradePolicy.autoUpgrade: true, or delete the driver's pod yourself")
        }
        Reason::FailureThresholdExceeded => {
            blocks("change the version, or mend the failed nodes and ask for their upgrade")
        }
        Reason::Paused => blocks("set driver.upgradePolicy.paused: false to go on"),
        Reason::WaitingForBudget => {
            blocks("bring back the nodes that are named, or raise driver.upgradePolicy.maxUnavailable")
        }
        Reason::WriteRefused => blocks(
            "let the admission policy that the message quotes allow rebellions-driver-controller to write the node; forbidden for every node: apply the overlay again",
        ),
        Reason::JobsRunning => {
            (Weight::Passes, Some("wait, end the jobs, or set driver.upgradePolicy.waitForJobs.timeout".into()))
        }
        Reason::PodsUnknown => {
            (Weight::Passes, Some("if it lasts: the log of rebellions-driver-controller says why".into()))
        }
        Reason::Skipped => {
            (Weight::Note, Some(format!("to have it upgraded, remove the label {DRIVER_UPGRADE_SKIP_LABEL}")))
        }
        Reason::EvictingPods
        | Reason::DependentsLeaving
        | Reason::NpusLeaving
        | Reason::DriverStarting
        | Reason::WaitingForFirstNode
        | Reason::WaitingForTurn => (Weight::Passes, None),
    }
}

/// What to do about an upgrade that stands still.
pub(super) fn of_rollout(reason: &str) -> &'static str {
    match reason {
        "FailureThresholdExceeded" => {
            "change the version; or mend the failed nodes and annotate them; or label them with the skip label"
        }
        "Paused" => "set driver.upgradePolicy.paused: false to go on",
        "BudgetUsedUp" => {
            "bring the nodes back that the message names, delete their Node objects, or raise driver.upgradePolicy.maxUnavailable"
        }
        "DriverImageMissing" => "push the image, or change driver.version",
        "WriteRefused" => "let the admission policy that the message quotes allow it, or apply the overlay again",
        "NodesNotReady" => "bring the nodes back",
        _ => "see kubectl accelerator explain node/NAME of the nodes that it names",
    }
}
