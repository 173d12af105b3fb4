//! What happened over a run: every state of every node and of every pod in the order of their versions, and the audit log
//! beside it, to find out afterwards whether something was true all the time.

mod moment;
mod recording;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{DRIVER, NODE_LABELER};

use crate::Request;

pub use moment::Moment;
use moment::Seen;
pub use recording::Recording;

/// A run that is over.
#[derive(Debug)]
pub struct History {
    /// What was there when it began.
    first: Vec<Seen>,
    /// What came then, by version.
    then: Vec<Seen>,
    /// Every request of the run.
    pub requests: Vec<Request>,
}

impl History {
    fn new(first: Vec<Seen>, mut then: Vec<Seen>, requests: Vec<Request>) -> Self {
        then.sort_by_key(Seen::version);
        Self { first, then, requests }
    }

    /// Looks at every moment of the run, in order.
    fn moments(&self) -> impl Iterator<Item = (Moment, Option<&Seen>)> {
        let mut moment = Moment::default();
        for seen in &self.first {
            moment.take(seen);
        }
        let begin = moment.clone();
        let later = self.then.iter().map(move |seen| {
            moment.take(seen);
            (moment.clone(), Some(seen))
        });
        std::iter::once((begin, None)).chain(later)
    }

    /// The last moment.
    #[must_use]
    pub fn end(&self) -> Moment {
        self.moments().last().map(|(moment, _)| moment).unwrap_or_default()
    }

    fn most(&self, nodes: impl Fn(&Moment) -> Vec<String>) -> Vec<String> {
        self.moments().map(|(moment, _)| nodes(&moment)).max_by_key(Vec::len).unwrap_or_default()
    }

    /// The nodes that were unavailable at the moment when most were: not ready, unschedulable, or without a driver that is
    /// ready.
    #[must_use]
    pub fn most_unavailable(&self) -> Vec<String> {
        self.most(Moment::unavailable)
    }

    /// The nodes that were unschedulable at the moment when most were.
    #[must_use]
    pub fn most_unschedulable(&self) -> Vec<String> {
        self.most(Moment::unschedulable)
    }

    /// The nodes whose driver was being replaced at the moment when most were.
    #[must_use]
    pub fn most_under_way(&self) -> Vec<String> {
        self.most(Moment::under_way)
    }

    /// The upgrade states of a node in the order in which it had them; nothing in between is left out.
    #[must_use]
    pub fn states(&self, node: &str) -> Vec<String> {
        let mut states: Vec<_> = self.moments().map(|(moment, _)| moment.state(node)).collect();
        states.dedup();
        states.retain(|state| !state.is_empty());
        states
    }

    /// The nodes in the order in which their upgrades began.
    #[must_use]
    pub fn order(&self) -> Vec<String> {
        let mut order = vec![];
        for (moment, _) in self.moments() {
            order.extend(moment.under_way().into_iter().filter(|node| !order.contains(node)).collect::<Vec<_>>());
        }
        order
    }

    /// Whether a node had been in this state before the upgrade of any of the others began.
    #[must_use]
    pub fn began_after(&self, node: &str, state: &str, others: &[String]) -> bool {
        let before = self.moments().map(|(moment, _)| moment).take_while(|moment| moment.state(node) != state);
        before.into_iter().all(|moment| !moment.under_way().iter().any(|one| others.contains(one)))
    }

    /// Writes to nodes by the driver controller and node-labeler that were carried out, by node.
    #[must_use]
    pub fn writes(&self) -> BTreeMap<String, Vec<&Request>> {
        let mut writes = BTreeMap::<_, Vec<_>>::new();
        let ours = |request: &&Request| request.user == DRIVER.controller || request.user == NODE_LABELER;
        for request in self.requests.iter().filter(ours) {
            let is_node = matches!(request.resource.as_str(), "nodes" | "nodes/status");
            if is_node && request.is_write() && request.has_succeeded() {
                writes.entry(request.name.clone()).or_default().push(request);
            }
        }
        writes
    }

    /// Evictions that the driver controller asked for, in order, refused ones too.
    #[must_use]
    pub fn evictions(&self) -> Vec<&Request> {
        let ours = |request: &&Request| request.is_eviction() && request.user == DRIVER.controller;
        self.requests.iter().filter(ours).collect()
    }

    /// How many pods of the driver a node had, one after the other.
    #[must_use]
    pub fn drivers(&self, on: &str) -> usize {
        let all = self.first.iter().chain(&self.then);
        let drivers = all.filter_map(|seen| match seen {
            Seen::Pod { uid, pod: Some(pod), .. } if pod.is_driver && pod.node == on => Some(uid),
            _ => None,
        });
        drivers.collect::<BTreeSet<_>>().len()
    }

    /// How many events the driver controller created about an object.
    #[must_use]
    pub fn events(&self, about: &str) -> usize {
        let created = |request: &&Request| {
            request.user == DRIVER.controller
                && (request.verb.as_str(), request.resource.as_str()) == ("create", "events")
                && request.has_succeeded()
        };
        let named = |request: &&Request| {
            let event = request.json();
            event["regarding"]["name"] == about || event["involvedObject"]["name"] == about
        };
        self.requests.iter().filter(created).filter(named).count()
    }
}
