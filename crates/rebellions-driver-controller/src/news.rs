//! Events on the AcceleratorConfig about the upgrade as a whole: that it begins, is over, stands still, is rolled back.

use accelerator_api::{ObservedConfig, condition_types};
use accelerator_runtime::{EventRequest, Runtime};
use kube::Resource;

use crate::upgrade::{Blocked, Summary};

/// What was told last.
#[derive(Clone, Debug, Default)]
pub struct News {
    told: Option<Told>,
}

/// What events tell of an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    is_progressing: bool,
    blocked: Option<String>,
    is_rolled_back: bool,
}

/// An event: whether it is a warning, its reason and its note.
type Event = (bool, &'static str, String);

impl News {
    /// Publishes what is new.
    pub fn tell(&mut self, config: &ObservedConfig, summary: &Summary, is_rolled_back: bool, runtime: &Runtime) {
        let before = self.told.take().unwrap_or_else(|| Told::of(config, is_rolled_back));
        let told = Told {
            is_progressing: summary.progressing.is_some(),
            blocked: summary.blocked.as_ref().map(|(reason, _)| reason.as_str().to_owned()),
            is_rolled_back,
        };
        for (warning, reason, note) in events(&before, &told, summary) {
            let regarding = config.object_ref(&());
            runtime.events.publish(EventRequest { regarding, warning, reason, action: "Upgrade", note });
        }
        self.told = Some(told);
    }
}

impl Told {
    /// What a process before this one told, as far as the status shows.
    fn of(config: &ObservedConfig, is_rolled_back: bool) -> Self {
        let condition = |kind| config.status.condition(kind);
        Self {
            is_progressing: condition(condition_types::DRIVER_UPGRADE_PROGRESSING).is_some(),
            blocked: condition(condition_types::DRIVER_UPGRADE_BLOCKED).map(|condition| condition.reason.clone()),
            is_rolled_back,
        }
    }
}

/// The events that are due. An upgrade that stands still for a moment between two nodes is neither over nor blocked.
fn events(before: &Told, now: &Told, summary: &Summary) -> Vec<Event> {
    let mut events: Vec<Event> = vec![];
    let is_left = summary.counts.waiting + summary.counts.failed > 0;
    if now.is_rolled_back && !before.is_rolled_back {
        let note = "too many nodes failed: every node gets the last driver that worked again".to_owned();
        events.push((true, "DriverUpgradeRolledBack", note));
    }
    if now.is_progressing && !before.is_progressing && before.blocked.is_none() {
        events.push((false, "DriverUpgradeStarted", summary.progressing.clone().unwrap_or_default()));
    }
    if before.is_progressing && !now.is_progressing && !is_left {
        let note = format!("the wanted driver is on {} nodes", summary.counts.done);
        events.push((false, "DriverUpgradeDone", note));
    }
    if let Some((reason, why)) = &summary.blocked
        && before.blocked.as_deref() != Some(reason.as_str())
    {
        let warning = !matches!(reason, Blocked::Paused);
        events.push((warning, "DriverUpgradeBlocked", format!("{}: {why}", reason.as_str())));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(before: (bool, Option<Blocked>), now: (bool, Option<Blocked>), waiting: usize) -> Vec<&'static str> {
        let told = |(is_progressing, blocked): (bool, Option<Blocked>)| Told {
            is_progressing,
            blocked: blocked.map(|reason| reason.as_str().to_owned()),
            is_rolled_back: false,
        };
        let mut summary = Summary {
            progressing: now.0.then(|| "1 of 2".to_owned()),
            blocked: now.1.map(|reason| (reason, "why".to_owned())),
            ..Summary::default()
        };
        summary.counts.waiting = waiting;
        events(&told(before), &told(now), &summary).into_iter().map(|(_, reason, _)| reason).collect()
    }

    #[test]
    fn an_upgrade_is_told_when_it_begins_stands_still_and_is_over() {
        assert_eq!(reasons((false, None), (true, None), 3), ["DriverUpgradeStarted"]);
        assert_eq!(reasons((true, None), (true, None), 2), [""; 0]);
        assert_eq!(reasons((true, None), (false, None), 2), [""; 0], "between two nodes");
        assert_eq!(reasons((true, None), (false, None), 0), ["DriverUpgradeDone"]);
        assert_eq!(reasons((true, None), (false, Some(Blocked::NodesFailed)), 2), ["DriverUpgradeBlocked"]);
        let blocked = (false, Some(Blocked::NodesFailed));
        assert_eq!(reasons(blocked, blocked, 2), [""; 0]);
        assert_eq!(reasons(blocked, (true, None), 2), [""; 0], "it goes on");
    }

    #[test]
    fn a_rollback_is_told_once() {
        let (before, now) = (Told::default(), Told { is_rolled_back: true, ..Told::default() });
        let told: Vec<_> = events(&before, &now, &Summary::default()).into_iter().map(|event| event.1).collect();
        assert_eq!(told, ["DriverUpgradeRolledBack"]);
        assert!(events(&now, &now, &Summary::default()).is_empty());
    }
}
