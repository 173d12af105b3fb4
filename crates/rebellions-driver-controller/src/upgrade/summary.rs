//! What a plan tells: counts, up to ten nodes with reasons, and whether the rollout goes on.

use accelerator_api::{NodeUpgradeStatus, UpgradeStatus};

use super::facts::Stage;
use super::message::{self, list};
use super::survey::{Open, Survey};
use super::{Blocked, Fleet, Member, Reason, State, Target};

/// How many nodes are told with reasons.
const ROWS: usize = 10;

/// How the upgrade of a fleet stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Nodes by state.
    pub counts: Counts,
    /// Nodes that are not done and why: the worst first, at most ten.
    pub nodes: Vec<NodeReason>,
    /// What goes on, if something does.
    pub progressing: Option<String>,
    /// Why nothing goes on although something should.
    pub blocked: Option<(Blocked, String)>,
}

/// Nodes by state. A node whose driver's pod is being made for the first time is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// They run something else than what is wanted, and their upgrade has not begun.
    pub waiting: usize,
    /// Cordoned: jobs are waited for, pods are evicted.
    pub cordoned: usize,
    /// Free of NPU pods; the old driver's pod is still there.
    pub evicted: usize,
    /// The new driver's pod is awaited.
    pub restarting: usize,
    /// The new driver runs; its NPUs are awaited.
    pub validating: usize,
    /// They run what is wanted.
    pub done: usize,
    /// Failed, and not being tried again right now.
    pub failed: usize,
    /// Kept from being upgraded by an admin.
    pub skipped: usize,
}

/// A node that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReason {
    /// Its name.
    pub name: String,
    /// Its state: `Waiting`, `Evicted`, or the value of its label.
    pub state: &'static str,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Summary {
    /// As the AcceleratorConfig's status says it.
    #[must_use]
    pub fn status(&self) -> UpgradeStatus {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let Counts { waiting, cordoned, evicted, restarting, validating, done, failed, skipped } = self.counts;
        UpgradeStatus {
            waiting: number(waiting),
            cordoned: number(cordoned),
            evicted: number(evicted),
            restarting: number(restarting),
            validating: number(validating),
            done: number(done),
            failed: number(failed),
            skipped: number(skipped),
            nodes: self.nodes.iter().map(NodeReason::status).collect(),
        }
    }
}

impl NodeReason {
    fn status(&self) -> NodeUpgradeStatus {
        NodeUpgradeStatus {
            name: self.name.clone(),
            state: self.state.into(),
            reason: self.reason.clone(),
            message: self.message.clone(),
        }
    }
}

/// A node that is not done, before it is put into words.
#[derive(Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) reason: Reason,
    pub(super) member: &'a Member<'a>,
    pub(super) stage: Stage<'a>,
}

/// Collects what is told.
pub(super) struct Teller<'a> {
    pub(super) counts: Counts,
    held: Vec<Held<'a>>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(survey: &Survey<'_>) -> Self {
        let counts = Counts { done: survey.done, ..Counts::default() };
        Self { counts, held: Vec::new() }
    }

    /// A node under way, and what it waits for if nothing is being written.
    pub(super) fn under_way(&mut self, open: Open<'a>, waits: Option<Reason>) {
        *self.count(open.member, open.stage) += 1;
        if let Some(reason) = waits {
            self.held.push(Held { reason, member: open.member, stage: open.stage });
        }
    }

    /// A node that has not begun, or that failed and is not tried again yet. Whoever failed says why it failed, and not what keeps
    /// it from being tried again.
    pub(super) fn waiting(&mut self, open: Open<'a>, reason: Reason) {
        let Open { member, stage, .. } = open;
        let reason = if let Stage::Failed(record) = stage {
            self.counts.failed += 1;
            let failure = Reason::parse(&record.reason).filter(|_| reason != Reason::WriteRefused);
            failure.unwrap_or(reason)
        } else {
            match reason {
                Reason::Skipped => self.counts.skipped += 1,
                Reason::KernelUnknown => {}
                _ => self.counts.waiting += 1,
            }
            reason
        };
        self.held.push(Held { reason, member, stage });
    }

    /// A node that is neither begun nor waits to be.
    pub(super) fn not_begun(&mut self, open: Open<'a>) {
        if matches!(open.stage, Stage::Failed(_)) {
            self.waiting(open, Reason::WaitingForTurn);
        }
    }

    /// A node that would be upgraded if upgrades were not switched off.
    pub(super) fn switched_off(&mut self, open: Open<'a>) {
        self.counts.waiting += usize::from(!open.member.is_right());
        if open.member.node.is_requested {
            self.held.push(Held { reason: Reason::AutoUpgradeOff, member: open.member, stage: Stage::Idle });
        }
    }

    /// A node that the API server refuses to write, unless something is told of it already.
    pub(super) fn refused(&mut self, open: Open<'a>) {
        let Open { member, stage, .. } = open;
        let is_told = self.held.last().is_some_and(|held| held.member.node.name == member.node.name);
        if member.refusal.is_some() && !is_told {
            self.held.push(Held { reason: Reason::WriteRefused, member, stage });
        }
    }

    /// Everything that is told.
    pub(super) fn tell(mut self, survey: &Survey<'a>, fleet: &Fleet<'a>) -> Summary {
        let blocked = self.blocked(survey, fleet);
        let left = self.counts.waiting + self.counts.failed;
        let progressing = (survey.under_way > survey.refused).then(|| {
            let Counts { done, failed, .. } = self.counts;
            format!(
                "{} of {} nodes are under way, {done} are done, {left} are left, {failed} of these have failed",
                survey.under_way, survey.total
            )
        });
        let rank = |held: &Held<'a>| (!matches!(held.stage, Stage::Failed(_)), held.reason, &held.member.node.name);
        if self.held.len() > ROWS {
            self.held.select_nth_unstable_by(ROWS, |a, b| rank(a).cmp(&rank(b)));
            self.held.truncate(ROWS);
        }
        self.held.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let nodes = self.held.iter().map(|held| held.tell(survey, fleet)).collect();
        Summary { counts: self.counts, nodes, progressing, blocked }
    }

    fn blocked(&self, survey: &Survey<'a>, fleet: &Fleet<'a>) -> Option<(Blocked, String)> {
        let waiting = self.counts.waiting;
        let is_going_on = survey.under_way > survey.refused;
        let refused = if is_going_on { None } else { self.all_refused() };
        if waiting + self.counts.failed == 0 || !fleet.policy.auto_upgrade {
            return refused;
        }
        let with = |reason| {
            self.held.iter().filter(move |held| held.reason == reason).map(|held| held.member.node.name.as_str())
        };
        let named = |reason| list(with(reason).count(), with(reason));
        if is_exceeded(survey, fleet) {
            return Some((Blocked::FailureThresholdExceeded, threshold(survey)));
        }
        if refused.is_some() {
            return refused;
        }
        if fleet.policy.paused && waiting > 0 {
            return Some((Blocked::Paused, format!("driver.upgradePolicy.paused is true; {waiting} nodes wait")));
        }
        if is_going_on {
            return None;
        }
        let first = |reason| self.held.iter().find(|held| held.reason == reason && matches!(held.stage, Stage::Idle));
        if first(Reason::WaitingForBudget).is_some() {
            return Some((Blocked::BudgetUsedUp, budget(survey, fleet)));
        }
        if let Some(held) = first(Reason::DriverImageMissing) {
            return Some((Blocked::DriverImageMissing, held.tell(survey, fleet).message));
        }
        if waiting > 0 {
            return Some((
                Blocked::NodesNotReady,
                format!("every node that waits is not ready: {}", named(Reason::NodeNotReady)),
            ));
        }
        let failed = self.held.iter().filter(|held| matches!(held.stage, Stage::Failed(_)));
        let each = failed.map(|held| format!("{} ({})", held.member.node.name, held.reason.as_str()));
        Some((Blocked::NodesFailed, format!("every node that is left has failed: {}", list(self.counts.failed, each))))
    }

    /// What is to be said of nodes that the API server refuses to write, if there are any.
    fn all_refused(&self) -> Option<(Blocked, String)> {
        let refused = self.held.iter().filter(|held| held.reason == Reason::WriteRefused);
        let mut nodes: Vec<_> = refused.map(|held| held.member).collect();
        nodes.sort_by_key(|member| &member.node.name);
        let words = &nodes.first()?.refusal?.words;
        let names = list(nodes.len(), nodes.iter().map(|member| &member.node.name));
        Some((Blocked::WriteRefused, format!("the API server refuses to write {names}: {words}")))
    }

    fn count(&mut self, member: &Member<'_>, stage: Stage<'_>) -> &mut usize {
        match state(member, stage) {
            "Cordoned" => &mut self.counts.cordoned,
            "Evicted" => &mut self.counts.evicted,
            "Restarting" => &mut self.counts.restarting,
            _ => &mut self.counts.validating,
        }
    }
}

/// The state that people see.
fn state(member: &Member<'_>, stage: Stage<'_>) -> &'static str {
    match stage {
        Stage::UnderWay(State::Restarting, record) if member.must_replace(record) => "Evicted",
        Stage::UnderWay(at, _) => at.as_str(),
        Stage::Failed(_) => State::Failed.as_str(),
        Stage::Idle if member.node.is_skipped => State::Skipped.as_str(),
        Stage::Idle | Stage::Lost => "Waiting",
    }
}

impl Held<'_> {
    fn tell(&self, survey: &Survey<'_>, fleet: &Fleet<'_>) -> NodeReason {
        let name = &self.member.node.name;
        let (reason, message) = match self.stage {
            _ if self.reason == Reason::WriteRefused => (self.reason.as_str().into(), message::refused(self.member)),
            Stage::Failed(record) => (record.reason.clone(), failed(self.member, record, fleet)),
            Stage::UnderWay(_, record) => {
                (self.reason.as_str().into(), message::progress(self.reason, self.member, record))
            }
            _ => (self.reason.as_str().into(), format!("node {name} {}", self.waits(survey, fleet))),
        };
        NodeReason { name: name.clone(), state: state(self.member, self.stage), reason, message }
    }

    /// Why a node has not begun.
    fn waits(&self, survey: &Survey<'_>, fleet: &Fleet<'_>) -> String {
        match self.reason {
            Reason::KernelUnknown => match self.member.target {
                Target::Unknown(why) => format!("gets no driver: {why}"),
                _ => "gets no driver".into(),
            },
            Reason::AutoUpgradeOff => "was asked to be upgraded, but driver.upgradePolicy.autoUpgrade is off".into(),
            Reason::Skipped => {
                format!("is not upgraded: its label {} is true", accelerator_api::contract::DRIVER_UPGRADE_SKIP_LABEL)
            }
            Reason::NodeNotReady => "waits until its kubelet answers".into(),
            Reason::Paused => "waits: driver.upgradePolicy.paused is true".into(),
            Reason::FailureThresholdExceeded => format!("waits: {}", threshold(survey)),
            Reason::DriverImageMissing => {
                let found = survey.image_missing(self.member);
                let pod = found.and_then(|found| found.driver.current);
                let node = found.map_or("", |found| &found.node.name);
                let problem = pod.and_then(|pod| pod.problem.as_deref()).unwrap_or("its image does not exist");
                format!("waits: driver pod {} on node {node}: {problem}", pod.map_or("", |pod| &pod.name))
            }
            Reason::WaitingForBudget => format!("waits: {}", budget(survey, fleet)),
            Reason::WaitingForFirstNode => "waits until the first node of its pool runs the new driver".into(),
            _ => format!(
                "waits for its turn: {} nodes are under way, driver.upgradePolicy.maxParallel allows no more",
                survey.under_way
            ),
        }
    }
}

fn failed(member: &Member<'_>, record: &super::Record, fleet: &Fleet<'_>) -> String {
    let retries = !(member.is_right() && member.driver.current.is_some_and(|pod| pod.is_image_missing));
    if !retries || member.node.is_skipped || record.retry_at() <= fleet.now {
        return record.message.clone();
    }
    format!("{}; it is not tried again by itself before {}", record.message, record.retry_at())
}

/// Whether more nodes failed than the policy tolerates.
pub(super) fn is_exceeded(survey: &Survey<'_>, fleet: &Fleet<'_>) -> bool {
    survey.failed > fleet.policy.failure_threshold.of(survey.tried())
}

fn threshold(survey: &Survey<'_>) -> String {
    format!(
        "the driver failed on {} of {} nodes ({}), more than driver.upgradePolicy.failureThreshold allows; change what is \
         installed, or mend these nodes and annotate them with {}=true",
        survey.failed,
        survey.tried(),
        list(survey.failed, survey.failed_nodes.iter()),
        accelerator_api::contract::DRIVER_UPGRADE_REQUESTED_ANNOTATION
    )
}

fn budget(survey: &Survey<'_>, fleet: &Fleet<'_>) -> String {
    let unusable = fleet.members.iter().filter(|member| member.counts() && member.is_unavailable(member.stage()));
    format!(
        "{} of {} nodes are unavailable ({}), and driver.upgradePolicy.maxUnavailable allows no more than {}",
        survey.unavailable,
        survey.total,
        list(survey.unavailable, unusable.map(|member| member.node.name.as_str())),
        fleet.policy.max_unavailable.at_least_one_of(survey.total)
    )
}
