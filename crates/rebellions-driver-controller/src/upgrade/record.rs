//! The one annotation from which, with the node and its pods, all state of an upgrade is derived.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Reason;

/// How long a failed node is left alone after its first failure; each further one doubles it.
const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(5);

/// How long a failed node is left alone at most.
const LAST_RETRY: SignedDuration = SignedDuration::from_hours(1);

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
    /// Identity of the driver's pod that has to go even if it installs the wanted driver: the one that was there when the
    /// upgrade began. Not its age, because clocks differ.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replaces: String,
    /// Allocatable NPUs before, by resource name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub npus: BTreeMap<String, u64>,
    /// Why this installation failed the last time, in one word. It stays while it is tried again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Why it failed, for people, with names; cut off where it gets long. Only while the node is failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Record {
    /// Reads the annotation; `None` when it is no record of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Since when the state is what it is. A record that does not say so is older than any limit.
    pub(super) fn since(&self) -> Timestamp {
        self.since.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// When a failed node is tried again by itself.
    #[must_use]
    pub fn retry_at(&self) -> Timestamp {
        let doublings = self.attempt.saturating_sub(1).min(10);
        later(self.since(), (FIRST_RETRY * (1 << doublings)).min(LAST_RETRY))
    }

    /// Whether the driver itself was tried and found wanting, so that the failure counts against it.
    pub(super) fn speaks_against_driver(&self) -> bool {
        Reason::parse(&self.reason).is_some_and(Reason::speaks_against_driver)
    }
}

/// That much later; the end of time when there is no such time.
pub(super) fn later(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_what_it_writes_and_takes_no_room_for_what_is_not_there() {
        let record = Record { install: "d1".into(), attempt: 2, ..Record::default() };
        let text = serde_json::to_string(&record).expect("a record is plain data");
        assert_eq!(text, r#"{"install":"d1","attempt":2,"cordoned":false}"#);
        assert_eq!(Record::parse(&text), Some(record));
        assert_eq!(Record::parse("upgrade-done"), None);
    }

    #[test]
    fn a_failed_node_is_tried_again_ever_more_rarely_up_to_once_an_hour() {
        for (attempt, minutes) in [(0, 5), (1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (u32::MAX, 60)] {
            let record = Record { attempt, since: Some(Timestamp::UNIX_EPOCH), ..Record::default() };
            assert_eq!(record.retry_at().as_second(), minutes * 60, "attempt {attempt}");
        }
        assert_eq!(Record::default().retry_at().as_second(), 300, "a record without its time is old");
    }
}
