//! Every node, what was decided about it, and which are still to be written. Synchronous and pure: events and times go
//! in, work comes out. Every event costs the same however many nodes there are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use accelerator_api::contract::Workload;
use accelerator_api::{NodeCounts, count};
use serde_json::Value;

use crate::rules::{Decision, Policy, Standing, decide};
use crate::summary::Assignments;
use crate::view::{DeployLabel, NodeView, PerComponent, WorkloadLabel};

/// How long after a change of labels the DaemonSet controller may still not have noticed it.
const FRESH: Duration = Duration::from_secs(3);

/// A write that failed is tried again after this long, a little longer each time.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_LIMIT: Duration = Duration::from_mins(1);

/// The labeler's picture of the cluster.
#[derive(Debug)]
pub struct Index {
    hold_down: Duration,
    policy: Policy,
    nodes: BTreeMap<Box<str>, Node>,
    /// Nodes that may need a write.
    queue: VecDeque<Box<str>>,
    /// When to look at a node again without an event.
    timers: BTreeSet<(Instant, Box<str>)>,
    /// Names seen in the list that is under way, if one is.
    listed: Option<BTreeSet<Box<str>>>,
    synced: bool,
    tally: Tally,
    /// When an assignment last changed. A short while after, pods have not followed yet.
    changed: Option<Instant>,
    announcements: Vec<InvalidMode>,
    /// Whether it has been told that nodes cannot be written.
    is_trouble_told: bool,
}

/// News about whether nodes can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The first node could not be.
    Began,
    /// None is left that could not be.
    Ended,
}

/// A node whose workload label is no mode, to be told to its admin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidMode {
    /// The node.
    pub node: String,
    /// Its label's value.
    pub value: String,
}

/// A write to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The node.
    pub node: String,
    /// A merge patch.
    pub patch: Value,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkResult {
    /// Done: the node as it is now.
    Done(NodeView),
    /// The node is gone. No error.
    Gone,
    /// Somebody changed the node first. The event that tells what is on its way, or was here already.
    Conflict,
    /// Anything else.
    Failed(String),
}

#[derive(Debug, Default)]
struct Node {
    view: NodeView,
    decision: Decision,
    /// Since when no NPU has been discovered although labels by default are there.
    missing_since: Option<Instant>,
    /// The value of an invalid workload label that has been told of.
    announced: Option<Box<str>>,
    queued: bool,
    /// The version that a write under way is for.
    in_flight: Option<u64>,
    /// When a write that failed may be tried again.
    retry_at: Option<Instant>,
    failures: u32,
    /// Why the last write failed.
    trouble: Option<Box<str>>,
    /// Its entry in the timers.
    timer: Option<Instant>,
}

/// Sums over all nodes, kept up to date one node at a time.
#[derive(Debug, Default)]
struct Tally {
    counts: NodeCounts,
    assigned: PerComponent<i64>,
    pending: i64,
    invalid: BTreeSet<Box<str>>,
    failing: BTreeSet<Box<str>>,
}

impl Index {
    /// Nothing known, nothing wanted.
    #[must_use]
    pub fn new(hold_down: Duration) -> Self {
        Self {
            hold_down,
            policy: Policy::Frozen,
            nodes: BTreeMap::new(),
            queue: VecDeque::new(),
            timers: BTreeSet::new(),
            listed: None,
            synced: false,
            tally: Tally::default(),
            changed: None,
            announcements: vec![],
            is_trouble_told: false,
        }
    }

    /// Whether all nodes have been listed once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// A list of all nodes begins.
    pub fn begin_list(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// The list is complete: nodes that were not in it are gone.
    pub fn end_list(&mut self, now: Instant) {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<_> = self.nodes.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(&name, now);
        }
        self.synced = true;
    }

    /// A node was created or changed.
    pub fn apply(&mut self, name: &str, view: NodeView, now: Instant) {
        if let Some(listed) = &mut self.listed {
            listed.insert(name.into());
        }
        let node = self.nodes.get(name);
        // Older than the answer to our own write.
        if node.is_some_and(|node| view.version > 0 && view.version < node.view.version) {
            return;
        }
        if node.is_none_or(|node| node.view != view) {
            let mut node = self.take(name);
            node.view = view;
            node.retry_at = None;
            self.put(name, node, now);
        }
    }

    /// A node was deleted.
    pub fn remove(&mut self, name: &str, now: Instant) {
        if self.nodes.contains_key(name) {
            let node = self.take(name);
            self.note_change(node.decision.deploy.map(DeployLabel::is_set), PerComponent::default(), now);
        }
    }

    /// Nothing is to be written any more, and what was to be told is for others to tell.
    pub fn stand_down(&mut self, now: Instant) {
        self.set_policy(Policy::Frozen, now);
        self.queue.clear();
        self.announcements.clear();
        self.changed = None;
        for node in self.nodes.values_mut() {
            node.queued = false;
        }
    }

    /// The active config changed.
    pub fn set_policy(&mut self, policy: Policy, now: Instant) {
        if self.policy != policy {
            self.policy = policy;
            let names: Vec<_> = self.nodes.keys().cloned().collect();
            for name in names {
                self.look_again(&name, now);
            }
        }
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
            self.look_again(&name, now);
        }
    }

    /// The next write to do, if any.
    pub fn next_work(&mut self) -> Option<Work> {
        while let Some(name) = self.queue.pop_front() {
            let Some(node) = self.nodes.get_mut(&name) else {
                continue;
            };
            node.queued = false;
            if node.in_flight.is_none() && node.decision.differs(&node.view) {
                node.in_flight = Some(node.view.version);
                return Some(Work { patch: node.decision.patch(&node.view), node: name.into() });
            }
        }
        None
    }

    /// Takes note of what became of a write.
    pub fn finish(&mut self, name: &str, result: WorkResult, now: Instant) {
        if result == WorkResult::Gone {
            self.remove(name, now);
        }
        if !self.nodes.contains_key(name) {
            return;
        }
        let mut node = self.take(name);
        let written = node.in_flight.take();
        match result {
            WorkResult::Done(view) => {
                node.failures = 0;
                node.trouble = None;
                if view.version == 0 || view.version >= node.view.version {
                    node.view = view;
                }
                // However long the write took: pods follow from now on.
                self.changed = Some(now);
            }
            // If what we have is still what was refused, the event that tells is on its way.
            WorkResult::Conflict if written == Some(node.view.version) => node.retry_at = Some(now + RETRY),
            WorkResult::Failed(why) => {
                node.trouble = Some(why.into());
                node.retry_at = Some(now + RETRY.saturating_mul(2_u32.saturating_pow(node.failures)).min(RETRY_LIMIT));
                node.failures = node.failures.saturating_add(1);
            }
            WorkResult::Conflict | WorkResult::Gone => {}
        }
        self.put(name, node, now);
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
        self.tally.counts.clone()
    }

    /// What the summary needs to know.
    #[must_use]
    pub fn assignments(&self) -> Assignments {
        Assignments {
            assigned: self.tally.assigned,
            pending: self.tally.pending,
            fresh: self.changed.is_some(),
            trouble: self.trouble(),
            invalid: self.tally.invalid.first().map(|first| {
                let nodes = count(self.tally.invalid.len().try_into().unwrap_or(i64::MAX), "node");
                format!("left as it is: {nodes} with a workload label that is no mode, such as {first}")
            }),
        }
    }

    /// How many nodes have labels that are still to be written.
    #[must_use]
    pub fn pending(&self) -> i64 {
        self.tally.pending
    }

    /// How many nodes could not be written when that was last tried.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.tally.failing.len()
    }

    /// News since this was last asked.
    pub fn take_trouble(&mut self) -> Option<Trouble> {
        let is_trouble = self.failing() > 0;
        let was_told = std::mem::replace(&mut self.is_trouble_told, is_trouble);
        match (was_told, is_trouble) {
            (false, true) => Some(Trouble::Began),
            (true, false) => Some(Trouble::Ended),
            _ => None,
        }
    }

    /// Why the first of them could not.
    fn trouble(&self) -> Option<String> {
        let name = self.tally.failing.first()?;
        let why = self.nodes.get(name)?.trouble.as_deref().unwrap_or_default();
        Some(format!("node {name}: {why}"))
    }

    /// Nodes whose workload label turned out to be no mode, each once.
    pub fn take_announcements(&mut self) -> Vec<InvalidMode> {
        std::mem::take(&mut self.announcements)
    }

    /// Takes a node out of all sums, to be changed and put back.
    fn take(&mut self, name: &str) -> Node {
        let Some(node) = self.nodes.remove(name) else {
            return Node::default();
        };
        self.tally.count(name, &node, -1);
        if let Some(timer) = node.timer {
            self.timers.remove(&(timer, name.into()));
        }
        node
    }

    /// Decides about a node and puts it into all sums.
    fn put(&mut self, name: &str, mut node: Node, now: Instant) {
        let before = node.decision.deploy.map(DeployLabel::is_set);
        let missing = node.missing_since.map(|since| now.saturating_duration_since(since));
        node.decision = decide(&node.view, self.policy, missing, self.hold_down);
        if !node.decision.differs(&node.view) {
            node.failures = 0;
            node.trouble = None;
        }
        node.missing_since = if node.decision.held { node.missing_since.or(Some(now)) } else { None };
        node.retry_at = node.retry_at.filter(|at| *at > now);
        node.timer = node.missing_since.map(|since| since + self.hold_down).into_iter().chain(node.retry_at).min();
        if let Some(timer) = node.timer {
            self.timers.insert((timer, name.into()));
        }
        self.announce(name, &mut node);
        self.note_change(before, node.decision.deploy.map(DeployLabel::is_set), now);
        let due = node.decision.differs(&node.view) && node.retry_at.is_none() && node.in_flight.is_none();
        if due && !node.queued {
            node.queued = true;
            self.queue.push_back(name.into());
        }
        self.tally.count(name, &node, 1);
        self.nodes.insert(name.into(), node);
    }

    fn announce(&mut self, name: &str, node: &mut Node) {
        let invalid = match &node.view.workload {
            WorkloadLabel::Unknown(value) if node.decision.standing == Standing::InvalidMode => Some(value.clone()),
            _ => None,
        };
        if node.announced != invalid {
            if let Some(value) = &invalid {
                self.announcements.push(InvalidMode { node: name.into(), value: value.to_string() });
            }
            node.announced = invalid;
        }
    }

    fn look_again(&mut self, name: &str, now: Instant) {
        if self.nodes.contains_key(name) {
            let node = self.take(name);
            self.put(name, node, now);
        }
    }

    /// Pods will follow. What is found in the first list is how the cluster was before we came.
    fn note_change(&mut self, before: PerComponent<bool>, after: PerComponent<bool>, now: Instant) {
        if self.synced && before != after {
            self.changed = Some(now);
        }
    }
}

impl Tally {
    fn count(&mut self, name: &str, node: &Node, sign: i64) {
        let count = match node.decision.standing {
            Standing::Unrelated => None,
            Standing::InMode(Workload::Container) => Some(&mut self.counts.container),
            Standing::InMode(Workload::VmPassthrough) => Some(&mut self.counts.vm_passthrough),
            Standing::WithoutMode => Some(&mut self.counts.without_mode),
            Standing::InvalidMode => Some(&mut self.counts.invalid_mode),
            Standing::Skipped => Some(&mut self.counts.skipped),
        };
        if let Some(count) = count {
            *count += sign;
        }
        for (sum, label) in self.assigned.iter_mut().zip(node.decision.deploy) {
            *sum += if label.is_set() { sign } else { 0 };
        }
        if node.decision.differs(&node.view) {
            self.pending += sign;
        }
        let listed = [
            (&mut self.invalid, node.decision.standing == Standing::InvalidMode),
            (&mut self.failing, node.trouble.is_some()),
        ];
        for (names, _) in listed.into_iter().filter(|(_, is_one)| *is_one) {
            if sign > 0 {
                names.insert(name.into())
            } else {
                names.remove(name)
            };
        }
    }
}

#[cfg(test)]
mod tests;
