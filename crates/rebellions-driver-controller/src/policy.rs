//! How drivers are replaced: the settings of `driver.upgradePolicy` with their defaults.

use accelerator_api::{Duration, UpgradePolicy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::SignedDuration;

/// How drivers are replaced. What the admin left out has its default.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether drivers are replaced node by node.
    pub auto_upgrade: bool,
    /// How many nodes are upgraded at once.
    pub max_parallel: IntOrPercent,
    /// How many nodes may be unusable at once, whatever the cause.
    pub max_unavailable: IntOrPercent,
    /// Which pods are waited for before any is evicted; empty: none.
    pub job_selector: String,
    /// For how long they are waited for; `None`: for ever.
    pub job_timeout: Option<SignedDuration>,
    /// How long pods may take to leave, from the moment when jobs are through; dependents have as long once more.
    pub eviction_timeout: SignedDuration,
    /// Whether pods are evicted that nothing would make anew.
    pub evict_unmanaged: bool,
    /// Whether pods are evicted that have an emptyDir.
    pub evict_empty_dir: bool,
    /// Which other pods leave too; `None`: no other, empty: all.
    pub drain_selector: Option<String>,
    /// How long a node may take from the end of its old driver until its NPUs are back.
    pub validation_timeout: SignedDuration,
    /// How many of the nodes that were tried may fail.
    pub failure_threshold: IntOrPercent,
    /// Whether the driver before is wanted again when more fail.
    pub rollback: bool,
    /// Whether no further node is upgraded for now.
    pub paused: bool,
}

impl Policy {
    /// The policy that a section asks for.
    #[must_use]
    pub fn of(section: Option<&UpgradePolicy>) -> Self {
        let nothing = UpgradePolicy::default();
        let section = section.unwrap_or(&nothing);
        let jobs = section.wait_for_jobs.clone().unwrap_or_default();
        let eviction = section.eviction.clone().unwrap_or_default();
        let drain = section.drain.clone().unwrap_or_default();
        Self {
            auto_upgrade: section.auto_upgrade,
            max_parallel: IntOrPercent::read(section.max_parallel.as_ref(), IntOrPercent::Int(1)),
            max_unavailable: IntOrPercent::read(section.max_unavailable.as_ref(), IntOrPercent::Percent(25)),
            job_selector: jobs.pod_selector,
            job_timeout: jobs.timeout.map(|Duration(timeout)| timeout).filter(|timeout| !timeout.is_zero()),
            eviction_timeout: or_minutes(eviction.timeout, 5),
            evict_unmanaged: eviction.force,
            evict_empty_dir: eviction.delete_empty_dir_data,
            drain_selector: drain.enabled.then_some(drain.pod_selector),
            validation_timeout: or_minutes(section.validation_timeout, 10),
            failure_threshold: IntOrPercent::read(section.failure_threshold.as_ref(), IntOrPercent::Percent(10)),
            rollback: section.auto_upgrade && section.on_failure == "Rollback",
            paused: section.paused,
        }
    }
}

fn or_minutes(duration: Option<Duration>, minutes: i64) -> SignedDuration {
    duration.map_or(SignedDuration::from_mins(minutes), |Duration(duration)| duration)
}

/// A number of nodes, or a percentage of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// So many.
    Int(usize),
    /// So many of a hundred.
    Percent(usize),
}

impl IntOrPercent {
    /// What is written, or the default where that is nothing the schema takes.
    fn read(written: Option<&IntOrString>, default: Self) -> Self {
        let read = match written {
            None => None,
            Some(IntOrString::Int(number)) => usize::try_from(*number).ok().map(Self::Int),
            Some(IntOrString::String(text)) => {
                text.strip_suffix('%').and_then(|number| number.parse().ok()).map(Self::Percent)
            }
        };
        read.unwrap_or(default)
    }

    /// How many of `count` it is: a percentage is rounded up.
    #[must_use]
    pub fn of(self, count: usize) -> usize {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => count.saturating_mul(percent).div_ceil(100),
        }
    }

    /// How many of `count` it is, and at least one.
    #[must_use]
    pub fn at_least_one_of(self, count: usize) -> usize {
        self.of(count).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(section: Value) -> Policy {
        Policy::of(Some(&serde_json::from_value(section).expect("a policy")))
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let minutes = SignedDuration::from_mins;
        let default = Policy {
            auto_upgrade: false,
            max_parallel: IntOrPercent::Int(1),
            max_unavailable: IntOrPercent::Percent(25),
            job_selector: String::new(),
            job_timeout: None,
            eviction_timeout: minutes(5),
            evict_unmanaged: false,
            evict_empty_dir: false,
            drain_selector: None,
            validation_timeout: minutes(10),
            failure_threshold: IntOrPercent::Percent(10),
            rollback: false,
            paused: false,
        };
        assert_eq!(Policy::of(None), default);
        assert_eq!(policy(json!({})), default);
        assert_eq!(
            policy(json!({"waitForJobs": {"timeout": "0s"}, "eviction": {}, "drain": {"podSelector": "a"}})),
            default
        );
    }

    #[test]
    fn what_is_written_counts() {
        let all = policy(json!({
            "autoUpgrade": true, "maxParallel": "10%", "maxUnavailable": 3, "failureThreshold": 0, "onFailure": "Rollback",
            "paused": true, "validationTimeout": "90s", "waitForJobs": {"podSelector": "a=b", "timeout": "2h"},
            "eviction": {"timeout": "1m", "force": true, "deleteEmptyDirData": true},
            "drain": {"enabled": true},
        }));
        assert_eq!(
            all,
            Policy {
                auto_upgrade: true,
                max_parallel: IntOrPercent::Percent(10),
                max_unavailable: IntOrPercent::Int(3),
                job_selector: "a=b".into(),
                job_timeout: Some(SignedDuration::from_hours(2)),
                eviction_timeout: SignedDuration::from_mins(1),
                evict_unmanaged: true,
                evict_empty_dir: true,
                drain_selector: Some(String::new()),
                validation_timeout: SignedDuration::from_secs(90),
                failure_threshold: IntOrPercent::Int(0),
                rollback: true,
                paused: true,
            }
        );
    }

    #[test]
    fn a_percentage_is_rounded_up() {
        let table = [
            (IntOrPercent::Percent(25), 20, 5),
            (IntOrPercent::Percent(25), 21, 6),
            (IntOrPercent::Percent(1), 5, 1),
            (IntOrPercent::Percent(100), 7, 7),
            (IntOrPercent::Percent(0), 7, 0),
            (IntOrPercent::Percent(10), 0, 0),
            (IntOrPercent::Int(3), 1, 3),
            (IntOrPercent::Int(0), 9, 0),
        ];
        for (amount, count, expected) in table {
            assert_eq!(amount.of(count), expected, "{amount:?} of {count}");
            assert_eq!(amount.at_least_one_of(count), expected.max(1), "{amount:?} of {count}");
        }
    }
}
