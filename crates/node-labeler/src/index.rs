//! Every node, what was decided about it, and which are still to be written. Synchronous and pure: events and times go
//! in, work comes out. Every event costs the same however many nodes there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, Component};
use accelerator_api::{ComponentSpec, NodeCounts, Rebellions};
use accelerator_runtime::{Event, Store};
use serde_json::Value;

use crate::contests::Contests;
use crate::effect::{Change, Effects};
use crate::exclusion::{Excluded, by_setting};
use crate::exclusion_search::{Found, Tainted};
use crate::node::{Clock, HoldDowns, InvalidMode, Node, Notice};
use crate::queue::{Outcome, Trouble, WorkQueue};
use crate::rules::{Policy, patch};
use crate::summary::Assignments;
use crate::tally::Tally;
use crate::view::{DeployLabel, NodeView, PerComponent};

/// How long after a change of labels the DaemonSet controller may still not have noticed it.
const FRESH: Duration = Duration::from_secs(3);

/// The labeler's picture of the cluster.
#[derive(Debug)]
pub struct Index {
    hold_downs: HoldDowns,
    clock: Clock,
    policy: Policy,
    store: Store<NodeView>,
    nodes: BTreeMap<Box<str>, Node>,
    queue: WorkQueue,
    /// When to look at a node again without an event.
    timers: BTreeSet<(Instant, Box<str>)>,
    tally: Tally,
    /// When an assignment last changed. A short while after, pods have not followed yet.
    changed: Option<Instant>,
    invalid_modes: Vec<InvalidMode>,
    notices: Vec<Notice>,
    contests: Contests,
}

/// A write to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The node.
    pub node: String,
    /// A merge patch.
    pub patch: Value,
    /// What it changes.
    pub changes: Vec<Change>,
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These changes were made: the node as it is now.
    Done(Vec<Change>, NodeView),
    /// Somebody changed the node first, or it is gone. The event that tells is on its way, or was here already.
    Conflict,
    /// Anything else.
    Failed(String),
}

impl Index {
    /// Nothing known, nothing wanted.
    #[must_use]
    pub fn new(hold_downs: HoldDowns, clock: Clock) -> Self {
        Self {
            hold_downs,
            clock,
            policy: Policy::Standby,
            store: Store::default(),
            nodes: BTreeMap::new(),
            queue: WorkQueue::default(),
            timers: BTreeSet::new(),
            tally: Tally::default(),
            changed: None,
            invalid_modes: vec![],
            notices: vec![],
            contests: Contests::default(),
        }
    }

    /// What is known of the nodes.
    pub fn store(&mut self) -> &mut Store<NodeView> {
        &mut self.store
    }

    /// Takes over what the watch says.
    pub fn take(&mut self, mut event: Event<NodeView>, now: Instant) {
        if let Event::Listed(name, view) | Event::Applied(name, view) = &mut event
            && let Some(known) = self.store.get(name)
        {
            view.inherit(known);
        }
        // What is found in the first list is how the cluster was before we came.
        let is_new = self.store.is_synced();
        for name in self.store.apply(event) {
            self.queue.changed(&name);
            self.look(&name, is_new, now);
        }
    }

    /// Nothing is to be written any more, and what was to be told is for others to tell.
    pub fn on_leadership_lost(&mut self, now: Instant) {
        self.set_policy(Policy::Standby, now);
        self.queue.clear();
        self.invalid_modes.clear();
        self.notices.clear();
        self.contests = Contests::default();
        self.nodes.values_mut().for_each(|node| node.effects = Effects::default());
        self.changed = None;
    }

    /// The active config changed.
    pub fn set_policy(&mut self, policy: Policy, now: Instant) {
        if self.policy != policy {
            self.policy = policy;
            let names: Vec<_> = self.nodes.keys().cloned().collect();
            for name in names {
                self.look(&name, true, now);
            }
        }
    }

    /// Takes over what both clocks show at one moment. Nothing announces that the wall clock was set, so this is called regularly.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Takes note of the time: what was due by now is looked at, and what has passed is over.
    pub fn advance(&mut self, now: Instant) {
        if self.changed.is_some_and(|changed| now >= changed + FRESH) {
            self.changed = None;
        }
        while let Some(&(due, _)) = self.timers.first()
            && due <= now
            && let Some((_, name)) = self.timers.pop_first()
        {
            self.look(&name, true, now);
        }
    }

    /// The next write to do, if any.
    pub fn next_work(&mut self, now: Instant) -> Option<Work> {
        while let Some(name) = self.queue.pop() {
            let (Some(node), Some(view)) = (self.nodes.get(&name), self.store.get(&name)) else { continue };
            let (changes, _) = node.due(view, now);
            if !changes.is_empty() {
                self.queue.begin(&name, view.version);
                return Some(Work { patch: patch(view, &changes), changes, node: name.into() });
            }
        }
        None
    }

    /// Takes note of what became of a write. `random` is between 0 and 1.
    pub fn finish(&mut self, name: &str, answer: Answer, random: f64, now: Instant) {
        let outcome = match answer {
            Answer::Done(changes, mut view) => {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.effects.written(&changes, &view, random, now);
                }
                if let Some(known) = self.store.get(name) {
                    view.inherit(known);
                }
                self.store.answered(name, view);
                Outcome::Done
            }
            Answer::Conflict => Outcome::Conflict,
            Answer::Failed(why) => Outcome::Failed(why),
        };
        if outcome == Outcome::Done {
            // However long the write took: pods follow from now on.
            self.changed = Some(now);
        }
        let version = self.store.get(name).map_or(0, |view| view.version);
        self.queue.finish(name, outcome, version, random, now);
        self.look(name, true, now);
    }

    /// When something is due without an event.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        let fresh = self.changed.map(|changed| changed + FRESH);
        self.timers.first().map(|(due, _)| *due).into_iter().chain(fresh).min()
    }

    /// Nodes per mode.
    #[must_use]
    pub fn counts(&self) -> NodeCounts {
        self.tally.counts()
    }

    /// What the summary needs to know.
    #[must_use]
    pub fn assignments(&self) -> Assignments {
        Assignments {
            assigned: self.tally.assigned(),
            pending: self.tally.pending(),
            fresh: self.changed.is_some(),
            trouble: self.queue.trouble(),
            contested: self.contests.describe(),
            invalid: self.tally.invalid(),
            stepped_aside: self.tally.stepped_aside(),
            excluded: vec![],
        }
    }

    /// Assigned nodes that have taints.
    pub(crate) fn tainted(&self) -> Vec<Tainted> {
        let assigned = self.nodes.iter().filter(|(_, node)| node.decision.deploy.iter().any(|label| label.is_set()));
        assigned.filter_map(|(name, _)| Some((name.to_string(), self.store.get(name)?.tainted_at?))).collect()
    }

    /// Assigned nodes that keep pods off: by settings of these components, and by what was `found` of taints, where those are the same
    /// still.
    pub(crate) fn excluded(&self, found: Vec<Found>, rebellions: Option<&Rebellions>) -> Vec<Excluded> {
        let mut excluded: BTreeMap<_, _> = found
            .into_iter()
            .filter_map(|((name, at), why)| {
                let is_same = self.store.get(&name).is_some_and(|view| view.tainted_at == Some(at));
                let node = self.nodes.get(name.as_str()).filter(|_| is_same)?;
                let why = std::array::from_fn(|index| why[index].clone().filter(|_| node.is_assigned(index)));
                Some((name.into_boxed_str(), why))
            })
            .collect();
        for (index, component, section) in selective(rebellions) {
            for (name, _) in self.nodes.iter().filter(|(_, node)| node.is_assigned(index)) {
                let why = self.store.get(name).and_then(|view| by_setting(component, section, &view.labels));
                if why.is_some() {
                    // Whatever becomes of its taints.
                    excluded.entry(name.clone()).or_insert_with(PerComponent::default)[index] = why;
                }
            }
        }
        excluded.into_iter().map(|(node, why)| Excluded { node: node.into(), why }).collect()
    }

    /// How many nodes have labels that are still to be written.
    #[must_use]
    pub fn pending(&self) -> i64 {
        self.tally.pending()
    }

    /// How many nodes could not be written when that was last tried.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.queue.failing()
    }

    /// News about whether nodes can be written, since this was last asked.
    pub fn take_trouble(&mut self) -> Option<Trouble> {
        self.queue.take_trouble()
    }

    /// What to tell of nodes on which somebody undoes what is written, once when that begins.
    pub fn take_contest(&mut self) -> Option<String> {
        self.contests.take_news()
    }

    /// Nodes whose workload label turned out to be no mode, each once.
    pub fn take_invalid_modes(&mut self) -> Vec<InvalidMode> {
        std::mem::take(&mut self.invalid_modes)
    }

    /// Takes the notices about nodes that are due. Each is due once.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Looks at a node as it is known now: decides, and keeps sums, queue and timers in step. A change of its labels is
    /// followed by pods if it `is_new`.
    fn look(&mut self, name: &str, is_new: bool, now: Instant) {
        let before = self.nodes.remove(name);
        if let Some(node) = &before {
            self.tally.remove(name, &node.decision, node.differs);
            if let Some(timer) = node.timer {
                self.timers.remove(&(timer, name.into()));
            }
        }
        let mut node = before.unwrap_or_default();
        let decided = node.decision.clone();
        let labelled = decided.deploy.map(DeployLabel::is_set);
        let Some(view) = self.store.get(name) else {
            self.queue.forget(name);
            self.contests.forget(name);
            self.note_change(labelled, PerComponent::default(), is_new, now);
            return;
        };
        self.notices.extend(node.decide(name, view, self.policy, self.hold_downs, self.clock, now));
        if decided != node.decision {
            self.queue.hurry(name);
        }
        let (due, contests) = node.due(view, now);
        node.differs = !due.is_empty() || !contests.is_empty();
        self.invalid_modes.extend(node.untold_invalid_mode(name, view));
        if due.is_empty() {
            self.queue.settle(name);
        } else {
            self.queue.offer(name, now);
        }
        let contested = self.contests.note(name, view, &contests, now);
        let times = [node.due_at(self.hold_downs, now), self.queue.retry_at(name), contested];
        node.timer = times.into_iter().flatten().min();
        if let Some(timer) = node.timer {
            self.timers.insert((timer, name.into()));
        }
        self.tally.add(name, &node.decision, node.differs);
        self.note_change(labelled, node.decision.deploy.map(DeployLabel::is_set), is_new, now);
        self.nodes.insert(name.into(), node);
    }

    /// Pods will follow.
    fn note_change(&mut self, before: PerComponent<bool>, after: PerComponent<bool>, is_new: bool, now: Instant) {
        if is_new && before != after {
            self.changed = Some(now);
        }
    }
}

/// The components whose settings may keep pods off nodes with the deploy label, by their index.
fn selective(rebellions: Option<&Rebellions>) -> impl Iterator<Item = (usize, &'static Component, &ComponentSpec)> {
    let sections = COMPONENTS.into_iter().enumerate();
    let sections = sections.filter_map(move |(index, one)| Some((index, one, (one.section)(rebellions?)?)));
    sections.filter(|(_, _, section)| section.enabled && section.is_selective())
}

#[cfg(test)]
mod tests;
