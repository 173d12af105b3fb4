//! The next step of a node on which something is under way, has failed, or has to be undone.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::clearing::{Clearing, clearing};
use super::facts::Stage;
use super::patch::NodePatch;
use super::record::later;
use super::{Action, Member, Policy, Reason, Record, State, Target};

/// How long the kubelet may take to report that the NPUs of a device plugin that ended are gone. Until then what it reports
/// could be taken for the NPUs of the new driver.
const NPUS_LEAVE: SignedDuration = SignedDuration::from_secs(30);

/// How much longer than the upgrade the dependents' pause may last: it only ends by itself when this controller is dead.
const PAUSE_MARGIN: SignedDuration = SignedDuration::from_mins(2);

/// The value of the pool label with which no DaemonSet selects the node.
const NO_POOL: &str = "";

/// From how many restarts on a driver counts as crashing: with the kubelet's back-off, after five minutes.
const CRASHES: u32 = 5;

/// What to do about one node.
#[derive(Default)]
pub(super) struct Step {
    pub(super) actions: Vec<Action>,
    /// Why it is not further, if nothing is written.
    pub(super) waits: Option<Reason>,
    /// When time alone changes something.
    pub(super) due: Option<Timestamp>,
    /// Whether its pods have to be followed.
    pub(super) follows: bool,
}

/// What to make of a driver that does not run: time may mend it, or not.
#[derive(Clone, Copy)]
enum Verdict {
    Wait(Reason),
    Fail(Reason),
}

impl Step {
    pub(super) fn act(action: Action) -> Self {
        Self { actions: vec![action], ..Self::default() }
    }

    fn wait(reason: Reason, due: Timestamp) -> Self {
        Self { waits: Some(reason), due: Some(due), ..Self::default() }
    }
}

/// The policy and the time, and the node that they are applied to.
pub(super) struct Stepper<'a> {
    pub(super) member: &'a Member<'a>,
    pub(super) policy: &'a Policy,
    pub(super) now: Timestamp,
}

impl Stepper<'_> {
    /// The next step.
    pub(super) fn step(&self, stage: Stage<'_>) -> Step {
        if self.member.node.is_deleted {
            return Step::default();
        }
        if self.member.target == Target::Pending && self.policy.auto_upgrade {
            return self.pending(stage);
        }
        let Some(digest) = self.member.digest().filter(|_| self.policy.auto_upgrade) else {
            return self.wind_down(stage);
        };
        match stage {
            Stage::Lost => self.record_lost(),
            Stage::Failed(record) if self.member.is_upgraded(record) => self.done(),
            Stage::Idle | Stage::Failed(_) => Step::default(),
            Stage::UnderWay(at, record) => {
                let step = self.under_way(at, record, digest);
                self.disown(at, record, step)
            }
        }
    }

    /// Everything stays as it is while the DaemonSet is written. When that takes longer than an upgrade may, the node is given back.
    fn pending(&self, stage: Stage<'_>) -> Step {
        match stage {
            Stage::UnderWay(_, record) if self.limit(record) <= self.now => self.end(None),
            Stage::UnderWay(_, record) => {
                Step { due: Some(self.limit(record)), follows: self.member.pods.is_some(), ..Step::default() }
            }
            Stage::Idle | Stage::Failed(_) | Stage::Lost => Step::default(),
        }
    }

    fn under_way(&self, state: State, record: &Record, digest: &str) -> Step {
        let is_untouched = state == State::Cordoned
            || (state == State::Restarting && self.member.staying_pod().is_some_and(|pod| pod.uid == record.replaces));
        if self.member.node.is_skipped && is_untouched {
            return self.end(Some(State::Skipped));
        }
        if record.install != digest {
            return self.retarget(record, digest, is_untouched);
        }
        match state {
            State::Cordoned => self.cordoned(record),
            State::Restarting => self.restarting(record),
            _ => self.validating(record),
        }
    }

    /// Nothing has been done to the driver yet.
    fn cordoned(&self, record: &Record) -> Step {
        if !self.member.node.is_ready {
            return self.fail(record, Reason::NodeNotReady);
        }
        if !self.member.must_replace(record) {
            return self.go_on(record.clone());
        }
        let step = match self.clear(record) {
            Ok(()) => self.go(State::Restarting, Record { since: Some(self.now), ..record.clone() }),
            Err(step) => step,
        };
        // Also while it goes on: whoever stopped to follow would have to list its pods again in the next step.
        Step { follows: true, ..step }
    }

    /// The node is free of NPU pods. Dependents step aside, then the driver's pod goes, then the new one has to become ready.
    fn restarting(&self, record: &Record) -> Step {
        if self.member.must_replace(record) {
            let step = self.replace(record);
            return Step { follows: true, ..self.limited(record, step) };
        }
        let step = match self.driver_trouble() {
            Some(Verdict::Wait(Reason::DriverPodMissing)) if self.member.is_to_move() => {
                self.change_pool(record, self.member.pool())
            }
            Some(trouble) => return self.judge(record, trouble),
            None => self.go(State::Validating, record.clone()),
        };
        self.limited(record, step)
    }

    /// The new driver runs and dependents come back.
    fn validating(&self, record: &Record) -> Step {
        if self.member.must_replace(record) {
            return self.limited(record, self.go(State::Restarting, record.clone()));
        }
        if let Some(trouble) = self.driver_trouble() {
            return self.judge(record, trouble);
        }
        if self.member.is_upgraded(record) {
            return self.done();
        }
        let reason = if self.member.node.is_ready { Reason::NpusMissing } else { Reason::NodeLost };
        self.judge(record, Verdict::Wait(reason))
    }

    /// What keeps the new driver from running.
    fn driver_trouble(&self) -> Option<Verdict> {
        let Some(pod) = self.member.driver.current else { return Some(Verdict::Wait(Reason::DriverPodMissing)) };
        if pod.is_terminating {
            Some(Verdict::Wait(Reason::DriverPodTerminating))
        } else if pod.is_ready {
            None
        } else if pod.is_image_missing {
            Some(Verdict::Fail(Reason::DriverImageMissing))
        } else if pod.restarts >= CRASHES {
            Some(Verdict::Fail(Reason::DriverCrashes))
        } else {
            Some(Verdict::Wait(Reason::DriverStarting))
        }
    }

    fn judge(&self, record: &Record, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Fail(reason) => self.fail(record, reason),
            Verdict::Wait(reason) => self.limited(record, Step::wait(reason, self.limit(record))),
        }
    }

    /// Takes the old driver's pod away, once nothing uses the driver.
    fn replace(&self, record: &Record) -> Step {
        if let Err(step) = self.clear(record) {
            return step;
        }
        let node = self.member.node;
        if self.member.pods.is_some_and(|pods| !pods.dependents.is_empty()) {
            let limit = later(record.since(), self.policy.eviction_timeout);
            if limit <= self.now {
                return self.fail(record, Reason::DependentsStay);
            }
            return Step::wait(Reason::DependentsLeaving, limit);
        }
        let npus_gone = later(record.since(), NPUS_LEAVE.min(self.policy.validation_timeout / 4));
        if self.member.allocatable() > 0 && self.now < npus_gone {
            return Step::wait(Reason::NpusLeaving, npus_gone);
        }
        // The old pod has to be gone before another DaemonSet makes one: two drivers must not meet. Where a DaemonSet would make it anew,
        // the node leaves its pool first.
        if self.member.is_to_move() && !self.member.driver.is_orphan && node.pool.as_deref() != Some(NO_POOL) {
            return self.change_pool(record, Some(NO_POOL));
        }
        let pod = self.member.driver.leftover.or(self.member.driver.current);
        let delete = pod.map(|pod| {
            let (node, name, uid) = (node.name.clone(), pod.name.clone(), pod.uid.clone());
            Action::DeleteDriverPod { node, name, uid }
        });
        Step { actions: delete.into_iter().collect(), ..Step::wait(Reason::DriverPodTerminating, self.limit(record)) }
    }

    /// Hands the node to a pool's DaemonSet, or takes it from one: Kubernetes ends the pod of that.
    fn change_pool(&self, record: &Record, pool: Option<&str>) -> Step {
        let patch = NodePatch::of(self.member.node).pool(pool);
        let patch = patch.continued(State::Restarting, record.clone()).action(None);
        Step { waits: Some(Reason::DriverPodTerminating), ..Step::act(patch) }
    }

    fn clear(&self, record: &Record) -> Result<(), Step> {
        match clearing(self.member, record.since(), self.policy, self.now) {
            Clearing::Clear => Ok(()),
            Clearing::Waits { reason, evictions, due } => {
                Err(Step { actions: evictions, waits: Some(reason), due, follows: false })
            }
            Clearing::Failed(reason) => Err(self.fail(record, reason)),
        }
    }

    /// The wanted driver has changed meanwhile. A node whose driver still works goes back into the queue, so that the newer driver
    /// is proven by one node first as well; one without goes on, with its time anew.
    fn retarget(&self, record: &Record, digest: &str, is_untouched: bool) -> Step {
        let member = self.member;
        if is_untouched || (member.has_ready_driver() && !member.is_right()) {
            return self.end(None);
        }
        let fresh = Record {
            install: digest.into(),
            attempt: 1,
            reason: String::new(),
            replaces: String::new(),
            ..record.clone()
        };
        self.go_on(fresh)
    }

    /// Goes where the driver stands, with the time anew. Dependents come back to a driver that runs, and not before.
    fn go_on(&self, record: Record) -> Step {
        let state = if self.member.is_right_and_ready() { State::Validating } else { State::Restarting };
        self.go(state, Record { since: Some(self.now), ..record })
    }

    /// The limit of Restarting and Validating together.
    fn limit(&self, record: &Record) -> Timestamp {
        later(record.since(), self.policy.validation_timeout)
    }

    /// The step, unless the limit has passed: then the node failed for what it waits for.
    fn limited(&self, record: &Record, step: Step) -> Step {
        let limit = self.limit(record);
        if self.now < limit {
            let due = Some(step.due.unwrap_or(limit).min(limit));
            return Step { due, ..step };
        }
        let reason = match step.waits {
            _ if !self.member.node.is_ready && self.member.must_replace(record) => Reason::NodeNotReady,
            _ if !self.member.node.is_ready => Reason::NodeLost,
            Some(Reason::DriverStarting) => Reason::DriverNotReady,
            Some(Reason::EvictingPods | Reason::JobsRunning) => Reason::EvictionTimedOut,
            Some(Reason::DependentsLeaving) => Reason::DependentsStay,
            None => return step,
            Some(reason) => reason,
        };
        self.fail(record, reason)
    }

    fn go(&self, state: State, record: Record) -> Step {
        let patch = NodePatch::of(self.member.node);
        let patch = if state == State::Restarting {
            patch.paused(later(later(self.now, self.policy.validation_timeout), PAUSE_MARGIN)).drop_request()
        } else {
            patch.resumed()
        };
        Step::act(patch.continued(state, record).action(None))
    }

    /// When somebody lifted our cordon, the record stops claiming it, at once: the next cordon is somebody else's.
    fn disown(&self, state: State, record: &Record, mut step: Step) -> Step {
        let writes = step.actions.iter().any(|action| matches!(action, Action::Patch { .. }));
        if record.cordoned && !self.member.node.is_unschedulable && !writes {
            step.actions.insert(0, NodePatch::of(self.member.node).continued(state, record.clone()).action(None));
        }
        step
    }
}
