//! Which nodes are begun, and why the others wait.

use k8s_openapi::jiff::Timestamp;

use super::facts::Stage;
use super::patch::NodePatch;
use super::survey::{Open, Survey};
use super::{Action, Fleet, Member, Reason, Record, Target, Tell, message};

/// Whether a node wants to be begun.
pub(super) enum Claim<'a> {
    /// It does.
    Wants(Candidate<'a>),
    /// It would, but for this.
    Held(Reason),
    /// It does not, before that time at least.
    Later(Timestamp),
    /// It does not.
    No,
}

/// A node that could be begun.
pub(super) struct Candidate<'a> {
    open: Open<'a>,
    digest: &'a str,
    /// How often this installation has failed on it.
    failures: u32,
}

/// The order: those that the API server refuses to write after all others; then who was asked for, who has failed less often, the
/// node of this controller after the others, then those that somebody cordoned, then by pool, then by name.
type Rank<'a> = (bool, bool, u32, bool, bool, Option<&'a str>, &'a str);

impl<'a> Candidate<'a> {
    fn rank(&self, own_node: Option<&str>) -> Rank<'a> {
        let Member { node, refusal, .. } = self.open.member;
        let is_own = own_node == Some(node.name.as_str());
        let (is_refused, pool) = (refusal.is_some(), self.open.member.pool());
        (is_refused, !node.is_requested, self.failures, is_own, node.is_unschedulable, pool, &node.name)
    }

    /// Begins its upgrade.
    pub(super) fn start(&self, now: Timestamp) -> Action {
        let member = self.open.member;
        let last = match self.open.stage {
            Stage::Failed(record) if record.install == self.digest => Some(record),
            _ => None,
        };
        let mut npus = member.node.npus.clone();
        if let Some(last) = last.filter(|_| !member.node.is_requested) {
            for (resource, before) in &last.npus {
                let now = npus.entry(resource.clone()).or_default();
                *now = (*now).max(*before);
            }
        }
        let record = Record {
            install: self.digest.to_owned(),
            attempt: self.failures.saturating_add(1),
            since: Some(now),
            replaces: member.staying_pod().map(|pod| pod.uid.clone()).unwrap_or_default(),
            npus,
            reason: last.map(|last| last.reason.clone()).unwrap_or_default(),
            ..Record::default()
        };
        let note = message::begun(member, &record);
        NodePatch::of(member.node).begun(record).action(Some(Tell::normal(Tell::BEGUN, note)))
    }
}

/// Whether a node on which nothing is under way wants to be begun.
pub(super) fn claim(open: Open<'_>, now: Timestamp) -> Claim<'_> {
    let member = open.member;
    let node = member.node;
    if matches!(member.target, Target::Unknown(_)) && node.deploys_driver {
        return Claim::Held(Reason::KernelUnknown);
    }
    let (Some(digest), Some(pod)) = (member.digest(), member.staying_pod()) else { return Claim::No };
    let failures = match open.stage {
        Stage::Idle if member.moves_at_once() || (member.is_right() && !node.is_requested) => return Claim::No,
        Stage::Idle => 0,
        Stage::Failed(record) if record.install != digest && !member.is_right() => 0,
        Stage::Failed(_) if member.is_right() && pod.is_image_missing => return Claim::No,
        Stage::Failed(record) if !node.is_requested && now < record.retry_at() => {
            return Claim::Later(record.retry_at());
        }
        Stage::Failed(record) => record.attempt,
        Stage::UnderWay(..) | Stage::Lost => return Claim::No,
    };
    if node.is_skipped {
        Claim::Held(Reason::Skipped)
    } else if !node.is_ready {
        Claim::Held(Reason::NodeNotReady)
    } else {
        Claim::Wants(Candidate { open, digest, failures })
    }
}

/// Begins as many nodes as the limits allow. Returns what to write, and why each of the others waits.
pub(super) fn begin<'a>(
    mut candidates: Vec<Candidate<'a>>,
    survey: &mut Survey<'a>,
    fleet: &Fleet<'a>,
    is_exceeded: bool,
) -> (Vec<Action>, Vec<(Reason, Open<'a>)>) {
    let max_parallel = fleet.policy.max_parallel.at_least_one_of(survey.total);
    let budget = fleet.policy.max_unavailable.at_least_one_of(survey.total);
    let mut under_way = survey.under_way - survey.stuck;
    if under_way < max_parallel {
        candidates.sort_by(|a, b| a.rank(fleet.own_node).cmp(&b.rank(fleet.own_node)));
    }
    let mut actions = Vec::new();
    let mut waiting = Vec::new();
    for candidate in candidates {
        let member = candidate.open.member;
        let is_free = candidate.open.is_unavailable || survey.unavailable < budget;
        let pool = survey.pool(member);
        let reason = if fleet.policy.paused && !member.node.is_requested {
            Reason::Paused
        } else if is_exceeded && !member.node.is_requested {
            Reason::FailureThresholdExceeded
        } else if member.refusal.is_some_and(|refusal| fleet.now < refusal.retry_at) {
            Reason::WriteRefused
        } else if pool.image_missing.is_some() && !pool.is_proven {
            Reason::DriverImageMissing
        } else if under_way >= max_parallel {
            Reason::WaitingForTurn
        } else if pool.under_way > 0 && !pool.is_proven {
            Reason::WaitingForFirstNode
        } else if !is_free {
            Reason::WaitingForBudget
        } else {
            pool.under_way += 1;
            under_way += 1;
            survey.unavailable += usize::from(!candidate.open.is_unavailable);
            actions.push(candidate.start(fleet.now));
            if member.refusal.is_none() {
                survey.under_way += 1;
                continue;
            }
            // It is only tried again: it is not under way before the API server has said yes.
            Reason::WriteRefused
        };
        waiting.push((reason, candidate.open));
    }
    (actions, waiting)
}
