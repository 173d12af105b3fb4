//! Whether what is written to a node has an effect that lasts. What has none, and what somebody else takes back, is
//! written again ever less often, each label for itself, and told with the name of who does it. Pure: time is an argument.

use std::time::Instant;

use accelerator_api::contract::{COMPONENTS, OWNED_LABELS_ANNOTATION};
use accelerator_runtime::RepairBackoff;

use crate::view::{NodeView, PerComponent};

/// A change of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The deploy label of the component at this place of [`COMPONENTS`] is set, or removed.
    Label(usize, bool),
    /// Our record of whose labels they are names these components.
    Record(PerComponent<bool>),
}

impl Change {
    /// Whether the node is so.
    fn holds(self, node: &NodeView) -> bool {
        match self {
            Self::Label(index, set) => node.deploy[index].is_set() == set,
            Self::Record(owned) => node.recorded == owned,
        }
    }

    /// Whether both are about the same label, or both about the record.
    fn is_about_the_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Label(one, _), Self::Label(other, _)) => one == other,
            (Self::Record(_), Self::Record(_)) => true,
            _ => false,
        }
    }
}

/// The last writes to one node, and how often each had to be repaired.
#[derive(Debug, Default)]
pub struct Effects {
    /// What was last written of each label.
    labels: PerComponent<Option<bool>>,
    /// What was last written of the record.
    record: Option<PerComponent<bool>>,
    repairs: Vec<Repair>,
}

/// Repairs of one label, or of the record.
#[derive(Debug)]
struct Repair {
    change: Change,
    backoff: RepairBackoff,
    /// Whether the answer to the last write had what was written.
    had_effect: bool,
}

/// A change that waits, because it was made before and did not last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// What is written.
    pub change: Change,
    /// Whether the API server's answer had it, so that somebody took it back afterwards.
    pub had_effect: bool,
    /// How many repairs in a row there have been.
    pub repairs: u32,
    /// When it is made again.
    pub until: Instant,
    /// When it no longer counts, if it lasts then.
    pub forgotten_at: Instant,
}

impl Effects {
    /// Whether a change has to wait, and why.
    #[must_use]
    pub fn contest(&self, change: Change, now: Instant) -> Option<Contest> {
        if !self.was_written(change) {
            return None;
        }
        let repair = self.repairs.iter().find(|repair| repair.change == change)?;
        let until = repair.backoff.wait(now)?;
        let forgotten_at = repair.backoff.forgotten_at()?;
        Some(Contest { change, had_effect: repair.had_effect, repairs: repair.backoff.repairs(), until, forgotten_at })
    }

    /// These changes were written, and the API server answered with the node as it is now. `random` is between 0 and 1.
    pub fn written(&mut self, changes: &[Change], answer: &NodeView, random: f64, now: Instant) {
        for &change in changes {
            let had_effect = change.holds(answer);
            if !self.was_written(change) {
                self.remember(change);
                self.repairs.retain(|repair| !repair.change.is_about_the_same(change));
                continue;
            }
            let at = self.repairs.iter().position(|repair| repair.change == change).unwrap_or_else(|| {
                self.repairs.push(Repair { change, backoff: RepairBackoff::default(), had_effect });
                self.repairs.len() - 1
            });
            self.repairs[at].had_effect = had_effect;
            self.repairs[at].backoff.repaired(now, random);
        }
    }

    fn was_written(&self, change: Change) -> bool {
        match change {
            Change::Label(index, set) => self.labels[index] == Some(set),
            Change::Record(owned) => self.record == Some(owned),
        }
    }

    fn remember(&mut self, change: Change) {
        match change {
            Change::Label(index, set) => self.labels[index] = Some(set),
            Change::Record(owned) => self.record = Some(owned),
        }
    }
}

impl Contest {
    /// Whether it is certain enough to be told: who it is is known only when a repair after a pause was undone as well. Before
    /// that, whoever wrote the node in the same second for another reason could be meant.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.repairs >= 2
    }

    /// What is going on, for people. `writer` is who else wrote the node after us, if that is known.
    #[must_use]
    pub fn describe(&self, node: &str, writer: Option<&str>) -> String {
        let (what, is_set) = match self.change {
            Change::Label(index, set) => (format!("label {}", COMPONENTS[index].deploy_label), set),
            Change::Record(_) => (format!("annotation {OWNED_LABELS_ANNOTATION}"), true),
        };
        if !self.had_effect {
            let with = if is_set { "without" } else { "with" };
            let done = if is_set { "sets" } else { "removes" };
            return format!(
                "node {node}: node-labeler {done} the {what}, and the API server answers {with} it, as an admission policy \
                 may have it; tried ever less often"
            );
        }
        let done = if is_set { "removes" } else { "sets" };
        let who = match writer {
            _ if !self.is_certain() => "somebody".to_owned(),
            Some(writer) => format!("somebody, by the node's managedFields {writer},"),
            None => "somebody who left no name in the node's managedFields".to_owned(),
        };
        format!(
            "node {node}: {who} {done} the {what} each time that node-labeler puts it right; repaired ever less often"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::DeployLabel;
    use std::time::Duration;

    const SET: Change = Change::Label(0, true);
    const REMOVED: Change = Change::Label(0, false);

    fn answer(label: DeployLabel) -> NodeView {
        let mut node = NodeView::default();
        node.deploy[0] = label;
        node
    }

    #[test]
    fn the_first_repair_of_each_label_is_made_at_once_and_others_do_not_wait_for_it() {
        let (mut effects, now) = (Effects::default(), Instant::now());
        let other = Change::Label(1, true);
        for round in 0..2 {
            assert_eq!(effects.contest(SET, now), None, "{round}");
            effects.written(&[SET], &answer(DeployLabel::Ours), 1.0, now);
        }
        let contest = effects.contest(SET, now).expect("it has to wait");
        assert!(contest.had_effect && contest.until > now);
        assert_eq!(effects.contest(other, now), None);
        assert_eq!(effects.contest(REMOVED, now), None, "the opposite is no repair");
        assert_eq!(effects.contest(SET, contest.until), None);
    }

    #[test]
    fn another_wish_starts_anew() {
        let (mut effects, now) = (Effects::default(), Instant::now());
        for change in [SET, SET, REMOVED, SET] {
            effects.written(&[change], &answer(DeployLabel::Ours), 1.0, now);
        }
        assert_eq!(effects.contest(SET, now), None);
    }

    #[test]
    fn a_fight_costs_a_handful_of_writes_in_the_first_minute_and_few_in_an_hour() {
        for random in [0.0, 0.5, 1.0] {
            let (mut effects, begun) = (Effects::default(), Instant::now());
            let (mut now, mut within_a_minute, mut within_an_hour) = (begun, 0, 0);
            while now < begun + Duration::from_hours(1) {
                within_a_minute += usize::from(now < begun + Duration::from_mins(1));
                within_an_hour += 1;
                effects.written(&[SET], &answer(DeployLabel::Absent), random, now);
                now = effects.contest(SET, now).map_or(now, |contest| contest.until);
            }
            assert!((5..=7).contains(&within_a_minute), "{within_a_minute} with {random}");
            assert!(within_an_hour <= 30, "{within_an_hour} with {random}");
        }
    }

    #[test]
    fn the_message_names_the_node_the_label_and_who_does_it() {
        let now = Instant::now();
        let contest = |change, had_effect| Contest { change, had_effect, repairs: 2, until: now, forgotten_at: now };
        let label = COMPONENTS[0].deploy_label;
        assert_eq!(
            contest(SET, true).describe("n", Some("label-syncer")),
            format!(
                "node n: somebody, by the node's managedFields label-syncer, removes the label {label} each time that \
                 node-labeler puts it right; repaired ever less often"
            )
        );
        let unnamed = contest(REMOVED, true).describe("n", None);
        assert!(unnamed.contains("left no name") && unnamed.contains(&format!("sets the label {label}")), "{unnamed}");
        let dropped = contest(SET, false).describe("n", Some("label-syncer"));
        assert!(dropped.contains("answers without it, as an admission policy may"), "{dropped}");
        assert!(!dropped.contains("label-syncer"), "whoever wrote the node has nothing to do with it");
        let early = Contest { repairs: 1, ..contest(SET, true) }.describe("n", Some("feature-discovery"));
        assert!(early.starts_with("node n: somebody removes the label"), "{early}");
    }
}
