//! What follows from a node and its pods, without a decision.

use super::record::later;
use super::{Fleet, Member, Record, State, Target};
use crate::pods::DriverPod;

/// Where a node stands, from its label and its record together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage<'a> {
    /// Nothing is under way.
    Idle,
    /// Its driver is being replaced.
    UnderWay(State, &'a Record),
    /// It failed, and waits to be tried again.
    Failed(&'a Record),
    /// Its label or the pause of its dependents says that something is under way or has failed, and the record of it is lost.
    Lost,
}

impl<'a> Member<'a> {
    /// Where it stands. A label that somebody removed is told from the record: a failure has its message, and dependents are
    /// only paused once the node is free of pods.
    pub(super) fn stage(&self) -> Stage<'a> {
        let node = self.node;
        match (node.state, node.record.as_ref()) {
            (Some(state), Some(record)) if state.is_under_way() => Stage::UnderWay(state, record),
            (Some(State::Failed), Some(record)) => Stage::Failed(record),
            (_, Some(record)) if !record.message.is_empty() => Stage::Failed(record),
            (_, Some(record)) if node.is_paused => Stage::UnderWay(State::Restarting, record),
            (_, Some(record)) => Stage::UnderWay(State::Cordoned, record),
            (Some(state), None) if state.is_under_way() || state == State::Failed => Stage::Lost,
            (_, None) if node.is_paused => Stage::Lost,
            (_, None) => Stage::Idle,
        }
    }

    /// Digest of what it should install.
    pub(super) fn digest(&self) -> Option<&'a str> {
        match self.target {
            Target::Install { digest, .. } if self.node.deploys_driver => Some(digest),
            _ => None,
        }
    }

    /// The pool in which it should be.
    pub(super) const fn pool(&self) -> Option<&'a str> {
        match self.target {
            Target::Install { pool, .. } => pool,
            Target::Pending | Target::Unknown(_) | Target::None => None,
        }
    }

    /// Its driver pod, unless that is on its way out.
    pub(super) fn staying_pod(&self) -> Option<&'a DriverPod> {
        self.driver.current.filter(|pod| !pod.is_terminating)
    }

    /// Whether it is one of the driver's nodes, of which limits are shares.
    pub(super) fn counts(&self) -> bool {
        self.node.deploys_driver && self.target != Target::None && !self.node.is_deleted
    }

    /// Whether its driver pod installs what is wanted.
    pub(super) fn is_right(&self) -> bool {
        self.staying_pod().is_some_and(|pod| Some(pod.install.as_str()) == self.digest())
    }

    /// Whether it runs what is wanted.
    pub(super) fn is_right_and_ready(&self) -> bool {
        self.is_right() && self.has_ready_driver()
    }

    /// Whether it runs some driver.
    pub(super) fn has_ready_driver(&self) -> bool {
        self.staying_pod().is_some_and(|pod| pod.is_ready)
    }

    /// Whether another pool's DaemonSet serves it than should.
    pub(super) fn is_to_move(&self) -> bool {
        matches!(self.target, Target::Install { .. }) && self.node.pool.as_deref() != self.pool()
    }

    /// Whether it moves to its pool without an upgrade, because nothing is disturbed by that: no container of its driver pod
    /// has ever run, or the node was booted with another kernel since.
    pub(super) fn moves_at_once(&self) -> bool {
        let undisturbed = |pod: &DriverPod| !pod.has_begun || (pod.kernel.is_some() && pod.kernel != self.node.kernel);
        self.is_to_move() && self.staying_pod().is_none_or(undisturbed)
    }

    /// Whether the driver's pod has to go: it installs something else, or this upgrade is there to replace it.
    pub(super) fn must_replace(&self, record: &Record) -> bool {
        let is_replaced =
            |pod: &DriverPod| pod.uid == record.replaces && Some(record.install.as_str()) == self.digest();
        self.staying_pod().is_some_and(|pod| !self.is_right() || is_replaced(pod)) || self.driver.leftover.is_some()
    }

    /// Whether as many NPUs are allocatable as before, whatever their resource is called. Where a device plugin runs there
    /// has to be one; where none runs and none were there before, there is nothing to wait for.
    pub(super) fn npus_are_back(&self, record: &Record) -> bool {
        self.allocatable() >= self.expected(record)
    }

    /// How many NPUs have to be allocatable.
    pub(super) fn expected(&self, record: &Record) -> u64 {
        record.npus.values().sum::<u64>().max(u64::from(self.node.deploys_device_plugin))
    }

    /// How many NPUs are allocatable.
    pub(super) fn allocatable(&self) -> u64 {
        self.node.npus.values().sum()
    }

    /// Whether the upgrade is over: the wanted driver runs, is another pod than before, and its NPUs are there.
    pub(super) fn is_upgraded(&self, record: &Record) -> bool {
        self.node.is_ready && self.is_right_and_ready() && !self.must_replace(record) && self.npus_are_back(record)
    }

    /// Whether the API server refuses to write it for longer than its driver may take: it is passed by.
    pub(super) fn is_stuck(&self, record: &Record, fleet: &Fleet<'_>) -> bool {
        self.refusal.is_some() && later(record.since(), fleet.policy.validation_timeout) <= fleet.now
    }

    /// Whether it cannot be used, whatever the cause.
    pub(super) fn is_unavailable(&self, stage: Stage<'_>) -> bool {
        let is_broken = match stage {
            Stage::UnderWay(..) => true,
            Stage::Failed(record) => record.speaks_against_driver(),
            Stage::Idle | Stage::Lost => false,
        };
        is_broken || !self.node.is_ready || self.node.is_unschedulable || !self.has_ready_driver()
    }
}
