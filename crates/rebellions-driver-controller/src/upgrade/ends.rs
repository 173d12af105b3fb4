//! How a node's upgrade ends: done, failed, or without a result. Each undoes what the upgrade did to the node beside the driver.

use super::facts::Stage;
use super::patch::NodePatch;
use super::step::{Step, Stepper};
use super::{Reason, Record, State, Tell, message};

impl Stepper<'_> {
    pub(super) fn done(&self) -> Step {
        let note = message::done(self.member);
        let patch = NodePatch::of(self.member.node).ended(Some(State::Done), None);
        Step::act(patch.action(Some(Tell::normal(Tell::DONE, note))))
    }

    pub(super) fn fail(&self, record: &Record, reason: Reason) -> Step {
        let message = message::failure(reason, self.member, record, self.policy);
        let failed = Record {
            install: self.member.digest().unwrap_or(&record.install).to_owned(),
            since: Some(self.now),
            reason: reason.as_str().into(),
            message: message.clone(),
            ..record.clone()
        };
        let patch = NodePatch::of(self.member.node).ended(Some(State::Failed), Some(failed));
        Step::act(patch.action(Some(Tell::warning(Tell::FAILED, message))))
    }

    /// Ends an upgrade without a result.
    pub(super) fn end(&self, state: Option<State>) -> Step {
        let note = message::ended(self.member, state, self.policy);
        let patch = NodePatch::of(self.member.node).ended(state, None);
        Step::act(patch.action(Some(Tell::normal(Tell::ENDED, note))))
    }

    pub(super) fn wind_down(&self, stage: Stage<'_>) -> Step {
        let node = self.member.node;
        match stage {
            Stage::UnderWay(..) => self.end(None),
            Stage::Lost => self.record_lost(),
            Stage::Idle if node.state.is_none() => Step::default(),
            Stage::Idle | Stage::Failed(_) => Step::act(NodePatch::of(node).ended(None, None).action(None)),
        }
    }

    pub(super) fn record_lost(&self) -> Step {
        let note = message::record_lost(self.member);
        let patch = NodePatch::of(self.member.node).ended(None, None);
        Step::act(patch.action(Some(Tell::warning(Tell::RECORD_LOST, note))))
    }
}
