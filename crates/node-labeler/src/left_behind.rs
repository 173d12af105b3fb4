//! A driver manager's pause that was left behind. The vendor's driver manager writes `paused-…` over deploy labels before it
//! replaces the driver, and `true` when it is through. One that dies in between never does, and the components stay away.

use std::time::{Duration, Instant};

use accelerator_api::contract::COMPONENTS;

use crate::rules::{Decision, NodeState};
use crate::view::{DeployLabel, NodeView, PerComponent};

/// How long the paused labels of a node have stayed the same. Whoever changes one of them is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftBehind {
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    labels: PerComponent<bool>,
    since: Instant,
    is_told: bool,
}

impl LeftBehind {
    /// Takes note of which labels are paused now. While components step aside for the driver controller
    /// (`is_stepping_aside`) the driver is being replaced, and nothing has been left behind.
    pub fn observe(&mut self, labels: PerComponent<bool>, is_stepping_aside: bool, now: Instant) {
        if is_stepping_aside || !labels.contains(&true) {
            self.waiting = None;
        } else if self.waiting.is_none_or(|waiting| waiting.labels != labels) {
            self.waiting = Some(Waiting { labels, since: now, is_told: false });
        }
    }

    /// Whether they have stayed the same for this long.
    #[must_use]
    pub fn is_over(self, hold_down: Duration, now: Instant) -> bool {
        self.waiting.is_some_and(|waiting| now.saturating_duration_since(waiting.since) >= hold_down)
    }

    /// When they will have, if that is still to come.
    #[must_use]
    pub fn ends_at(self, hold_down: Duration, now: Instant) -> Option<Instant> {
        self.waiting.map(|waiting| waiting.since + hold_down).filter(|end| *end > now)
    }

    /// Whether it is due to report, once, that these labels are set again.
    pub fn take_news(&mut self) -> bool {
        self.waiting.as_mut().is_some_and(|waiting| !std::mem::replace(&mut waiting.is_told, true))
    }
}

/// The labels of ours on which a driver manager's pause is.
#[must_use]
pub fn paused(node: &NodeView) -> PerComponent<bool> {
    std::array::from_fn(|index| node.paused[index] && node.deploy[index] == DeployLabel::Paused)
}

/// Sets labels of ours again that a driver manager paused, where the node's mode wants them. Returns which.
pub fn restore(decision: &mut Decision, node: &NodeView) -> PerComponent<bool> {
    let NodeState::InMode(workload) = decision.state else { return PerComponent::default() };
    let paused = paused(node);
    let restored =
        std::array::from_fn(|index| !decision.is_hands_off && paused[index] && COMPONENTS[index].runs_in(workload));
    for (label, _) in decision.deploy.iter_mut().zip(restored).filter(|(_, is_restored)| *is_restored) {
        *label = DeployLabel::Ours;
    }
    restored
}

#[cfg(test)]
mod tests;
