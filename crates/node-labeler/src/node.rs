//! What is remembered of a node besides what it is, and the decision about it.

use std::time::{Duration, Instant};

use accelerator_api::contract::COMPONENTS;
use k8s_openapi::jiff::Timestamp;

use crate::effect::{Change, Contest, Effects};
use crate::hold_down::HoldDown;
use crate::left_behind::{self, LeftBehind};
use crate::pause::{Pause, step_aside};
use crate::rules::{Decision, NodeState, Policy, decide};
use crate::view::{NodeView, WorkloadLabel};

/// How long things must have lasted before they count.
#[derive(Clone, Copy, Debug)]
pub struct HoldDowns {
    /// That no NPU is discovered on a node which has its mode by default.
    pub discovery: Duration,
    /// That nobody touches deploy labels which a driver manager paused.
    pub paused_labels: Duration,
}

/// A time, by the clock that pauses are counted by and by the one that people write.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The one.
    pub instant: Instant,
    /// The other, at the same moment.
    pub wall: Timestamp,
}

impl Clock {
    /// The time by the wall clock.
    fn wall_at(self, now: Instant) -> Timestamp {
        self.wall.saturating_add(now.saturating_duration_since(self.instant)).unwrap_or(self.wall)
    }
}

/// A node whose workload label is no mode. Its admin gets an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMode {
    /// The node.
    pub node: String,
    /// Its label's value.
    pub value: String,
}

/// A notice about a node, published once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Its annotation that asks for a pause counts as nothing.
    PauseRefused {
        /// The node.
        node: String,
        /// The annotation, and why.
        why: String,
    },
    /// A driver manager's pause was left behind on labels that are set again.
    LabelsRestored {
        /// The node.
        node: String,
        /// Their keys.
        labels: Vec<&'static str>,
    },
}

/// What was decided about a node, and what that has to remember.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub decision: Decision,
    /// Whether the node is not as was decided.
    pub differs: bool,
    pub effects: Effects,
    hold_down: HoldDown,
    pause: Pause,
    /// When components that step aside come back.
    resumes_at: Option<Instant>,
    left_behind: LeftBehind,
    /// The value of the invalid workload label that was reported last.
    told_invalid: Option<Box<str>>,
    /// Its entry in the timers.
    pub timer: Option<Instant>,
}

impl Node {
    /// Whether it is to have a component's deploy label, so that the component's DaemonSet selects it.
    pub fn is_assigned(&self, index: usize) -> bool {
        self.decision.deploy[index].is_set()
    }

    /// Decides about the node as it is now. Returns the notices that are due.
    pub(crate) fn decide(
        &mut self,
        name: &str,
        view: &NodeView,
        policy: Policy,
        hold_downs: HoldDowns,
        clock: Clock,
        now: Instant,
    ) -> Vec<Notice> {
        self.decision = decide(view, policy, self.hold_down.elapsed(now), hold_downs.discovery);
        self.hold_down.observe(self.decision.is_npu_missing, now);
        if policy == Policy::Standby {
            (self.pause, self.resumes_at, self.left_behind) = Default::default();
            return vec![];
        }
        let node = || name.to_owned();
        let mut notices = vec![];
        let wall = clock.wall_at(now);
        let until = self.pause.look(view.paused_until.as_deref(), wall).unwrap_or_else(|why| {
            notices.push(Notice::PauseRefused { node: node(), why });
            None
        });
        self.resumes_at = until.map(|until| now + until.duration_since(wall).unsigned_abs());
        let decision = step_aside(std::mem::take(&mut self.decision), view, until.is_some());
        self.decision = decision;
        self.left_behind.observe(left_behind::paused(view), until.is_some(), now);
        if self.left_behind.is_over(hold_downs.paused_labels, now) {
            let restored = left_behind::restore(&mut self.decision, view);
            let labels = COMPONENTS.iter().zip(restored).filter(|(_, is_restored)| *is_restored);
            let labels: Vec<_> = labels.map(|(component, _)| component.deploy_label).collect();
            if !labels.is_empty() && self.left_behind.take_news() {
                notices.push(Notice::LabelsRestored { node: node(), labels });
            }
        }
        notices
    }

    /// When to look at the node again although nothing has changed.
    pub(crate) fn due_at(&self, hold_downs: HoldDowns, now: Instant) -> Option<Instant> {
        let discovery = self.hold_down.ends_at(hold_downs.discovery, now);
        let left_behind = self.left_behind.ends_at(hold_downs.paused_labels, now);
        [discovery, self.resumes_at, left_behind].into_iter().flatten().min()
    }

    /// What may be written of the node now, and what has to wait because it did not last.
    pub(crate) fn due(&self, view: &NodeView, now: Instant) -> (Vec<Change>, Vec<Contest>) {
        let (mut due, mut contests) = (vec![], vec![]);
        for change in self.decision.changes(view) {
            match self.effects.contest(change, now) {
                Some(contest) => contests.push(contest),
                None => due.push(change),
            }
        }
        (due, contests)
    }

    /// What to tell the admin of the node's workload label, if that has not been told.
    pub(crate) fn untold_invalid_mode(&mut self, name: &str, view: &NodeView) -> Option<InvalidMode> {
        let invalid = match &view.workload {
            WorkloadLabel::Unknown(value) if self.decision.state == NodeState::InvalidMode => Some(value.clone()),
            _ => None,
        };
        let is_told = self.told_invalid == invalid;
        self.told_invalid.clone_from(&invalid);
        let value = invalid.filter(|_| !is_told)?;
        Some(InvalidMode { node: name.into(), value: value.into() })
    }
}
