//! What the planner needs of the upgrade policy, with every default filled in.

use k8s_openapi::jiff::SignedDuration;

/// A number of nodes, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// So many nodes.
    Int(usize),
    /// So many of a hundred.
    Percent(usize),
}

impl IntOrPercent {
    /// How many of `count` nodes that is; a share is rounded up.
    #[must_use]
    pub const fn of(self, count: usize) -> usize {
        match self {
            Self::Int(number) => number,
            Self::Percent(percent) => count.saturating_mul(percent).div_ceil(100),
        }
    }

    /// As [`of`](Self::of), but at least one: a limit under which nothing ever moves is none that anybody means.
    #[must_use]
    pub fn at_least_one_of(self, count: usize) -> usize {
        self.of(count).max(1)
    }
}

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

#[cfg(test)]
mod tests {
    use super::IntOrPercent::{Int, Percent};

    #[test]
    fn shares_are_rounded_up() {
        for (limit, count, expected) in [
            (Int(3), 1000, 3),
            (Int(0), 10, 0),
            (Percent(25), 20, 5),
            (Percent(25), 21, 6),
            (Percent(10), 1, 1),
            (Percent(10), 0, 0),
            (Percent(0), 100, 0),
            (Percent(100), 7, 7),
        ] {
            assert_eq!(limit.of(count), expected, "{limit:?} of {count}");
        }
        assert_eq!(Int(0).at_least_one_of(10), 1);
        assert_eq!(Percent(25).at_least_one_of(0), 1);
    }
}
