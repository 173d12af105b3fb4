//! Which nodes are to be written next, which are being written, and which have to wait after a write that failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use accelerator_runtime::Backoff;

/// The pause after a first write that failed; it doubles.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_LIMIT: Duration = Duration::from_mins(1);

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// Somebody changed the node first, or it is gone. The event that tells is on its way, or was here already.
    Conflict,
    /// Anything else.
    Failed(String),
}

/// News about whether nodes can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The first node could not be.
    Began,
    /// None is left that could not be.
    Ended,
}

/// The queue. A node of which nothing is remembered here has nothing to be written, or was never tried.
#[derive(Debug, Default)]
pub struct WorkQueue {
    order: VecDeque<Box<str>>,
    entries: BTreeMap<Box<str>, Entry>,
    failing: BTreeSet<Box<str>>,
    /// Whether it has been told that nodes cannot be written.
    is_trouble_told: bool,
}

#[derive(Debug)]
struct Entry {
    queued: bool,
    /// The version of the node that a write under way is for.
    in_flight: Option<u64>,
    retry_at: Option<Instant>,
    /// Whether an event of the node ends the wait.
    awaits_event: bool,
    backoff: Backoff,
    /// Why the last write failed.
    trouble: Option<Box<str>>,
}

impl Default for Entry {
    fn default() -> Self {
        let backoff = Backoff::new(RETRY, RETRY_LIMIT);
        Self { queued: false, in_flight: None, retry_at: None, awaits_event: false, backoff, trouble: None }
    }
}

impl WorkQueue {
    /// A node is to be written, when its turn has come.
    pub fn offer(&mut self, name: &str, now: Instant) {
        let entry = self.entries.entry(name.into()).or_default();
        entry.retry_at = entry.retry_at.filter(|at| *at > now);
        if !entry.queued && entry.in_flight.is_none() && entry.retry_at.is_none() {
            entry.queued = true;
            self.order.push_back(name.into());
        }
    }

    /// There is nothing to write any more, or not now.
    pub fn settle(&mut self, name: &str) {
        if self.entries.get(name).is_some_and(|entry| entry.in_flight.is_none()) {
            self.forget(name);
        } else if let Some(entry) = self.entries.get_mut(name) {
            *entry = Entry { in_flight: entry.in_flight, ..Entry::default() };
            self.failing.remove(name);
        }
    }

    /// The node is gone.
    pub fn forget(&mut self, name: &str) {
        self.entries.remove(name);
        self.failing.remove(name);
    }

    /// The node has changed: a write that met another state of it need not wait any longer.
    pub fn changed(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.awaits_event) {
            entry.retry_at = None;
        }
    }

    /// Something else is to be written: it need not wait for what failed.
    pub fn hurry(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.retry_at = None;
        }
    }

    /// When a node whose write failed may be written again.
    #[must_use]
    pub fn retry_at(&self, name: &str) -> Option<Instant> {
        self.entries.get(name)?.retry_at
    }

    /// The next node to look at. It is up to the caller to say that it is written.
    pub fn pop(&mut self) -> Option<Box<str>> {
        while let Some(name) = self.order.pop_front() {
            if let Some(entry) = self.entries.get_mut(&name)
                && std::mem::take(&mut entry.queued)
            {
                return Some(name);
            }
        }
        None
    }

    /// A write of the node in this version is under way.
    pub fn begin(&mut self, name: &str, version: u64) {
        self.entries.entry(name.into()).or_default().in_flight = Some(version);
    }

    /// What became of a write. `version` is that of the node as it is known now. Returns whether the write was waited for.
    pub fn finish(&mut self, name: &str, outcome: Outcome, version: u64, random: f64, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        let written = entry.in_flight.take();
        match outcome {
            Outcome::Done => {
                *entry = Entry { queued: entry.queued, ..Entry::default() };
                self.failing.remove(name);
            }
            // If what is known is not what was refused, the event that explains is here already.
            Outcome::Conflict if written != Some(version) => {}
            Outcome::Conflict => {
                entry.awaits_event = true;
                entry.retry_at = Some(now + entry.backoff.fail(random));
            }
            Outcome::Failed(why) => {
                entry.awaits_event = false;
                entry.trouble = Some(why.into());
                entry.retry_at = Some(now + entry.backoff.fail(random));
                self.failing.insert(name.into());
            }
        }
        written.is_some()
    }

    /// Nothing is to be written any more. What is under way ends by itself.
    pub fn clear(&mut self) {
        self.order.clear();
        self.entries.retain(|_, entry| entry.in_flight.is_some());
        self.entries.values_mut().for_each(|entry| entry.queued = false);
        self.failing.clear();
    }

    /// How many nodes could not be written when that was last tried.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Why the first of them could not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let name = self.failing.first()?;
        let why = self.entries.get(name)?.trouble.as_deref().unwrap_or_default();
        Some(format!("node {name}: {why}"))
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
}
