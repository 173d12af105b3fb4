//! Which nodes somebody undoes what is written to, and what is told of it: one event when it begins, one message while it
//! lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use accelerator_api::count;

use crate::effect::Contest;
use crate::view::NodeView;

/// How long it is said of a node after a repair.
const LINGER: Duration = Duration::from_secs(3);

/// Nodes on which somebody undoes what is written.
#[derive(Debug, Default)]
pub struct Contests {
    /// What to say of each.
    nodes: BTreeMap<Box<str>, Said>,
    /// What is to be told, if it has not been.
    news: Option<String>,
    /// Until when another one belongs to what has been told already.
    told_until: Option<Instant>,
}

/// What is said of a node.
#[derive(Debug)]
struct Said {
    why: String,
    /// Until when, if it has been put right.
    until: Option<Instant>,
}

impl Contests {
    /// The node is gone.
    pub fn forget(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// What is to be told, once.
    pub fn take_news(&mut self) -> Option<String> {
        self.news.take()
    }

    /// What is contested of a node now. Returns when to look again: what was put right a moment ago may be undone in the
    /// next, so that it is said a little longer.
    pub fn note(&mut self, name: &str, view: &NodeView, contests: &[Contest], now: Instant) -> Option<Instant> {
        let Some(first) = contests.iter().max_by_key(|contest| contest.repairs) else {
            let until = *self.nodes.get_mut(name)?.until.get_or_insert(now + LINGER);
            if until <= now {
                self.nodes.remove(name);
            }
            return Some(until).filter(|until| *until > now);
        };
        let why = first.describe(name, view.other_writer.as_deref());
        if contests.iter().any(Contest::is_certain) {
            if self.told_until.is_none_or(|until| now >= until) {
                self.news = Some(why.clone());
            }
            let forgotten_at = contests.iter().map(|contest| contest.forgotten_at).max();
            self.told_until = self.told_until.max(forgotten_at);
        }
        self.nodes.insert(name.into(), Said { why, until: None });
        contests.iter().map(|contest| contest.until).min()
    }

    /// One of them in full, and how many more there are.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let first = &self.nodes.values().next()?.why;
        Some(match self.nodes.len() - 1 {
            0 => first.clone(),
            more => {
                format!("{first}; and the same or alike on {}", count(more.try_into().unwrap_or(i64::MAX), "more node"))
            }
        })
    }
}
