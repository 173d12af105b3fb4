//! What a plan asks for.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Summary;
use crate::pods::PodName;

/// How long an eviction that was refused rests: a disruption budget does not change faster than pods start.
pub const EVICTION_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// What is to be done now, and what is to be told.
///
/// Its limits hold for what the planner was told. So the answer to each write has to be known, or its loss made good by a
/// read, before the next plan is made, and a process that begins to lead reads first what its predecessor wrote last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpgradePlan {
    /// What to do. All of it may be done at once.
    pub actions: Vec<Action>,
    /// Nodes that would be written if the API server had not refused that: what it said has to be kept.
    pub held_back: Vec<String>,
    /// Nodes whose pods have to be followed.
    pub follow: Vec<String>,
    /// What to tell.
    pub summary: Summary,
    /// When to plan again although nothing happened.
    pub due: Option<Timestamp>,
    /// Whether the last driver that worked should become the wanted one.
    pub roll_back: bool,
}

/// One request to the API server. Each is guarded by a version or an identity, and does no harm when it is repeated.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Change a node.
    Patch {
        /// Its name.
        node: String,
        /// A JSON merge patch with the node's version.
        patch: Value,
        /// The event to publish once the patch was accepted.
        tell: Option<Tell>,
    },
    /// Evict a pod. A plan asks for it as long as the pod is there: one that was refused is tried again after
    /// [`EVICTION_RETRY`] and not before, and one that was accepted not at all.
    Evict {
        /// The node that it is on.
        node: String,
        /// Which pod.
        pod: PodName,
        /// Its identity, a precondition.
        uid: String,
    },
    /// Delete a pod of the driver.
    DeleteDriverPod {
        /// The node that it is on.
        node: String,
        /// Its name.
        name: String,
        /// Its identity, a precondition.
        uid: String,
    },
}

impl Action {
    /// The node that it is about.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Patch { node, .. } | Self::Evict { node, .. } | Self::DeleteDriverPod { node, .. } => node,
        }
    }
}

/// An event about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// Whether somebody should look.
    pub warning: bool,
    /// Its reason.
    pub reason: &'static str,
    /// Its text.
    pub note: String,
}

impl Tell {
    pub(super) const BEGUN: &'static str = "DriverUpgradeStarted";
    pub(super) const DONE: &'static str = "DriverUpgradeDone";
    pub(super) const FAILED: &'static str = "DriverUpgradeFailed";
    pub(super) const ENDED: &'static str = "DriverUpgradeEnded";
    pub(super) const RECORD_LOST: &'static str = "DriverUpgradeRecordLost";

    pub(super) fn normal(reason: &'static str, note: String) -> Self {
        Self { warning: false, reason, note }
    }

    pub(super) fn warning(reason: &'static str, note: String) -> Self {
        Self { warning: true, reason, note }
    }
}
