//! The upgrade engine: pure decisions about which node's driver is replaced when.
//!
//! [`plan`] looks at every node, its driver pod and its one annotation, and says what to write now. Nothing is remembered between
//! two plans: a controller that was killed after any write goes on from what is there.

mod action;
mod clearing;
mod ends;
mod facts;
mod fleet;
mod message;
mod order;
mod patch;
mod reason;
mod record;
mod state;
mod step;
mod summary;
mod survey;
#[cfg(test)]
mod tests;

pub use crate::policy::{IntOrPercent, Policy};
pub use action::{Action, EVICTION_RETRY, Tell, UpgradePlan};
pub use fleet::{DriverPods, Fleet, Member, Refusal, Target};
pub use reason::{Blocked, Reason};
pub use record::Record;
pub use state::State;
pub use summary::{Counts, NodeReason, Summary};

use facts::Stage;
use k8s_openapi::jiff::Timestamp;
use order::{Claim, begin, claim};
use step::Stepper;
use summary::{Teller, is_exceeded};
use survey::{Open, Survey};

/// What to do about the fleet now.
#[must_use]
pub fn plan(fleet: &Fleet<'_>) -> UpgradePlan {
    let mut survey = Survey::of(fleet);
    let is_exceeded = is_exceeded(&survey, fleet);
    let mut plan = UpgradePlan::default();
    let mut teller = Teller::new(&survey);
    let mut candidates = Vec::new();
    for open in std::mem::take(&mut survey.open) {
        if !steps(open, fleet, &mut teller, &mut plan) {
            continue;
        }
        match claim(open, fleet.now) {
            Claim::Wants(_) | Claim::Held(_) if !fleet.policy.auto_upgrade => teller.switched_off(open),
            Claim::Wants(candidate) => {
                if let Some(refusal) = open.member.refusal {
                    plan.held_back.push(open.member.node.name.clone());
                    at(&mut plan.due, Some(refusal.retry_at).filter(|time| *time > fleet.now));
                }
                candidates.push(candidate);
                continue;
            }
            Claim::Held(reason) => teller.waiting(open, reason),
            Claim::Later(time) => {
                teller.waiting(open, Reason::WaitingForTurn);
                at(&mut plan.due, Some(time));
            }
            Claim::No => teller.not_begun(open),
        }
        teller.refused(open);
    }
    let (begun, waiting) = begin(candidates, &mut survey, fleet, is_exceeded);
    plan.actions.extend(begun);
    for (reason, open) in waiting {
        teller.waiting(open, reason);
    }
    plan.roll_back = is_exceeded && fleet.policy.auto_upgrade && fleet.policy.rollback && !fleet.is_rolled_back;
    plan.summary = teller.tell(&survey, fleet);
    plan
}

/// Takes the node's next step, if something is under way on it or has to be undone. Returns whether it could be begun.
fn steps<'a>(open: Open<'a>, fleet: &Fleet<'a>, teller: &mut Teller<'a>, plan: &mut UpgradePlan) -> bool {
    let step = Stepper { member: open.member, policy: fleet.policy, now: fleet.now }.step(open.stage);
    let is_idle = step.actions.is_empty() && matches!(open.stage, Stage::Idle | Stage::Failed(_));
    let writes = step.actions.iter().any(|action| matches!(action, Action::Patch { .. }));
    if let Stage::UnderWay(..) = open.stage {
        let refused = open.member.refusal.filter(|_| writes).map(|_| Reason::WriteRefused);
        teller.under_way(open, refused.or(step.waits));
    } else if writes {
        teller.refused(open);
    }
    at(&mut plan.due, step.due);
    if step.follows {
        plan.follow.push(open.member.node.name.clone());
    }
    plan.actions.extend(step.actions);
    is_idle
}

fn at(due: &mut Option<Timestamp>, time: Option<Timestamp>) {
    *due = [*due, time].into_iter().flatten().min();
}
