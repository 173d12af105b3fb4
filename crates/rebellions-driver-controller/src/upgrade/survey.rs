//! One look at every node: what counts against the limits, and which nodes need a thought. Nodes that run what they should cost
//! little, because in a large cluster nearly all of them do.

use std::collections::HashMap;

use super::facts::Stage;
use super::{Fleet, Member, State};

/// What was seen.
#[derive(Default)]
pub(super) struct Survey<'a> {
    /// Nodes that should have a driver.
    pub(super) total: usize,
    /// Of these, nodes that cannot be used, whatever the cause.
    pub(super) unavailable: usize,
    /// Nodes on which the driver is being replaced.
    pub(super) under_way: usize,
    /// Of these, nodes that the API server refuses to write.
    pub(super) refused: usize,
    /// Of these, nodes on which the time for it is over: they hold up nobody any more.
    pub(super) stuck: usize,
    /// Nodes that run what they should.
    pub(super) done: usize,
    /// Nodes on which an upgrade to what they should run was done.
    pub(super) upgraded: usize,
    /// Nodes on which the driver that is wanted failed, those on which it is tried again included.
    pub(super) failed: usize,
    /// Their names.
    pub(super) failed_nodes: Vec<&'a str>,
    pools: HashMap<Option<&'a str>, Pool<'a>>,
    /// Nodes that are not just as they should be.
    pub(super) open: Vec<Open<'a>>,
}

/// The nodes that need the same image.
#[derive(Default)]
pub(super) struct Pool<'a> {
    /// Whether one of its nodes runs the wanted driver.
    pub(super) is_proven: bool,
    /// How many are under way.
    pub(super) under_way: usize,
    /// A node that found the wanted image missing.
    pub(super) image_missing: Option<&'a Member<'a>>,
}

/// A node that needs a thought.
#[derive(Clone, Copy)]
pub(super) struct Open<'a> {
    pub(super) member: &'a Member<'a>,
    pub(super) stage: Stage<'a>,
    pub(super) is_unavailable: bool,
}

impl<'a> Survey<'a> {
    pub(super) fn of(fleet: &Fleet<'a>) -> Self {
        let mut survey = Self::default();
        for member in fleet.members.iter().filter(|member| !member.node.is_deleted) {
            survey.add(member, fleet);
        }
        survey
    }

    /// How many nodes the driver was tried on.
    pub(super) const fn tried(&self) -> usize {
        self.failed + self.upgraded
    }

    /// A node of the same pool that found the wanted image missing.
    pub(super) fn image_missing(&self, member: &Member<'_>) -> Option<&'a Member<'a>> {
        self.pools.get(&member.pool()).and_then(|pool| pool.image_missing)
    }

    pub(super) fn pool(&mut self, member: &Member<'a>) -> &mut Pool<'a> {
        self.pools.entry(member.pool()).or_default()
    }

    fn add(&mut self, member: &'a Member<'a>, fleet: &Fleet<'a>) {
        let stage = member.stage();
        let is_unavailable = member.is_unavailable(stage);
        let is_idle = matches!(stage, Stage::Idle);
        if member.counts() {
            self.total += 1;
            self.unavailable += usize::from(is_unavailable);
        }
        let is_right = member.is_right();
        if is_right || !is_idle {
            self.count(member, stage, is_right, fleet);
        }
        let is_traceless = (fleet.policy.auto_upgrade || member.node.state.is_none()) && member.refusal.is_none();
        if !(is_idle && is_right && !member.node.is_requested && is_traceless) {
            self.open.push(Open { member, stage, is_unavailable });
        }
    }

    fn count(&mut self, member: &'a Member<'a>, stage: Stage<'a>, is_right: bool, fleet: &Fleet<'a>) {
        let record = match stage {
            Stage::UnderWay(_, record) => {
                let is_stuck = member.is_stuck(record, fleet);
                self.under_way += 1;
                self.refused += usize::from(member.refusal.is_some());
                self.stuck += usize::from(is_stuck);
                self.pool(member).under_way += usize::from(!is_stuck);
                Some(record)
            }
            Stage::Failed(record) => Some(record),
            Stage::Idle | Stage::Lost => None,
        };
        if let Some(record) = record {
            let counts = record.speaks_against_driver() && Some(record.install.as_str()) == member.digest();
            if counts && !member.node.is_skipped {
                self.failed += 1;
                self.failed_nodes.push(&member.node.name);
            }
        } else if is_right && member.has_ready_driver() {
            self.done += 1;
            self.upgraded += usize::from(member.node.state == Some(State::Done));
            self.pool(member).is_proven = true;
        }
        if is_right && member.driver.current.is_some_and(|pod| pod.is_image_missing) {
            self.pool(member).image_missing.get_or_insert(member);
        }
    }
}
