//! What an upgrade adds to the report on the component: its entry in the status, and conditions that are there only while they are
//! true.

use accelerator_api::contract::DRIVER;
use accelerator_api::{AcceleratorConfigStatus, Reason, condition_types};
use accelerator_operand::{Report, present};
use k8s_openapi::jiff::Timestamp;

use crate::upgrade::{Blocked, Summary};

/// What there is to say when the wanted driver was given up.
pub const ROLLED_BACK: &str = "the driver that the AcceleratorConfig asks for failed on more nodes than driver.upgradePolicy.failureThreshold \
                               allows, and was rolled back to the last one that worked; ask for another one";

/// What the conditions depend on beside the upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The status as it is.
    pub previous: &'a AcceleratorConfigStatus,
    /// Generation of the AcceleratorConfig.
    pub generation: Option<i64>,
    /// Now.
    pub now: Timestamp,
}

/// Adds how the upgrade stands. `summary` is `None` as long as no plan was made: then nothing is known anew, and what the status says
/// stays.
pub fn add_upgrade(report: &mut Report, summary: Option<&Summary>, is_rolled_back: bool, context: Context<'_>) {
    let Context { previous, generation, now } = context;
    let Some(summary) = summary else {
        report.entry.upgrade = previous.component(DRIVER.operand).and_then(|entry| entry.upgrade.clone());
        let kinds = [condition_types::DRIVER_UPGRADE_BLOCKED, condition_types::DRIVER_UPGRADE_PROGRESSING];
        report.further.extend(kinds.into_iter().filter_map(|kind| previous.condition(kind).cloned()));
        return;
    };
    report.entry.upgrade = Some(summary.status());
    let mut say = |kind: &str, reason: &str, message: &str| {
        report.further.push(present(previous.condition(kind), kind, reason, message, generation, now));
    };
    if is_rolled_back {
        say(condition_types::DRIVER_UPGRADE_BLOCKED, Blocked::FailureThresholdExceeded.as_str(), ROLLED_BACK);
    } else if let Some((reason, why)) = &summary.blocked {
        say(condition_types::DRIVER_UPGRADE_BLOCKED, reason.as_str(), why);
    }
    if let Some(what) = &summary.progressing {
        say(condition_types::DRIVER_UPGRADE_PROGRESSING, Reason::UpgradeProgressing.as_str(), what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use accelerator_operand::{Observation, Outcome, ReportContext, report};

    fn reported(previous: &AcceleratorConfigStatus, summary: Option<&Summary>) -> Report {
        let now = Timestamp::UNIX_EPOCH;
        let context =
            ReportContext { component: &DRIVER, previous, generation: Some(1), controller_version: "v1", now };
        let mut report = report(context, &Outcome::Observed(Observation::default()), &[]);
        add_upgrade(&mut report, summary, false, Context { previous, generation: Some(1), now });
        report
    }

    #[test]
    fn what_the_process_before_has_told_stays_until_a_plan_is_made() {
        let mut summary = Summary { progressing: Some("2 of 9".into()), ..Summary::default() };
        summary.blocked = Some((Blocked::Paused, "why".into()));
        summary.counts.waiting = 7;
        let before = reported(&AcceleratorConfigStatus::default(), Some(&summary));
        assert_eq!(before.further.len(), 2);
        let mut status = AcceleratorConfigStatus::default();
        status.components.push(before.entry.clone());
        status.conditions.extend(before.further.clone());
        let after = reported(&status, None);
        assert_eq!((&after.entry.upgrade, &after.further), (&before.entry.upgrade, &before.further));
        let idle = reported(&status, Some(&Summary::default()));
        assert_eq!((idle.entry.upgrade.map(|upgrade| upgrade.waiting), idle.further), (Some(0), vec![]));
    }
}
