//! The one annotation from which, with the node and its pods, all state of an upgrade is derived.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Our record of a node's upgrade: the value of [`accelerator_api::contract::DRIVER_UPGRADE_ANNOTATION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Digest of what is being installed.
    pub install: String,
    /// Which try of this installation it is, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Whether we cordoned the node, so that we lift the cordon.
    #[serde(default)]
    pub cordoned: bool,
    /// Since when the state is what it is. Restarting and Validating share one limit, from the beginning of Restarting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Allocatable NPUs before, by resource name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub npus: BTreeMap<String, u64>,
    /// Why it failed, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it failed, for people, with names; cut off where it gets long.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Record {
    /// Reads the annotation; `None` when it is no record of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
