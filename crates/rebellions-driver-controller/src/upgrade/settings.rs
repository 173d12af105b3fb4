//! What the planner needs of the upgrade policy, with every default filled in.

use k8s_openapi::jiff::SignedDuration;

use crate::policy::{IntOrPercent, Policy};

/// The resolved `driver.upgradePolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the policy")]
pub struct Settings {
    /// Whether drivers are replaced at all. When not, everything that an upgrade did to a node beside the driver is undone.
    pub auto_upgrade: bool,
    /// How many nodes may be under way at once.
    pub max_parallel: IntOrPercent,
    /// How many of the driver's nodes may be unavailable, whatever the cause, when a node that is available is begun.
    pub max_unavailable: IntOrPercent,
    /// How long jobs are waited for; `None` for as long as they run.
    pub wait_for_jobs_timeout: Option<SignedDuration>,
    /// Whether any job is waited for.
    pub has_job_selector: bool,
    /// How long pods may take to leave, from the moment when jobs are through; dependents have as long once more.
    pub eviction_timeout: SignedDuration,
    /// How long a node may take from the moment when it is free of NPU pods until the new driver has proven itself.
    pub validation_timeout: SignedDuration,
    /// How many nodes may fail, of those on which the driver was tried, before the rollout pauses itself.
    pub failure_threshold: IntOrPercent,
    /// Whether, beyond that, the last driver that worked becomes the wanted one.
    pub rollback: bool,
    /// Whether no further node is begun.
    pub paused: bool,
}

impl From<&Policy> for Settings {
    fn from(policy: &Policy) -> Self {
        Self {
            auto_upgrade: policy.auto_upgrade,
            max_parallel: policy.max_parallel,
            max_unavailable: policy.max_unavailable,
            wait_for_jobs_timeout: policy.job_timeout,
            has_job_selector: !policy.job_selector.is_empty(),
            eviction_timeout: policy.eviction_timeout,
            validation_timeout: policy.validation_timeout,
            failure_threshold: policy.failure_threshold,
            rollback: policy.rollback,
            paused: policy.paused,
        }
    }
}
