//! What must be true of every run.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::DRIVER;
use serde_json::Value;

use super::moment::{Seen, SeenPod};
use super::{History, Moment};

/// At most so many writes cost an upgraded node, of both writers together.
const WRITES: usize = 6;

impl History {
    /// What was wrong in this run, a line each: more nodes unavailable than the budget or under way than allowed, a cordon
    /// of the driver controller that it did not lift, an eviction from a node that was not cordoned, a write to a node that
    /// was not upgraded; or two drivers on one node.
    #[must_use]
    pub fn violations(&self, budget: usize, parallel: usize) -> Vec<String> {
        let mut violations = vec![];
        let (unavailable, under_way) = (self.most_unavailable(), self.most_under_way());
        if unavailable.len() > budget {
            violations
                .push(format!("{} nodes unavailable at once, budget {budget}: {unavailable:?}", unavailable.len()));
        }
        if under_way.len() > parallel {
            violations.push(format!("{} nodes under way at once, limit {parallel}: {under_way:?}", under_way.len()));
        }
        violations.extend(self.two_drivers());
        violations.extend(self.cordons_left());
        violations.extend(self.evictions_out_of_turn());
        violations.extend(self.writes_out_of_turn());
        violations
    }

    /// Nodes that the driver controller made unschedulable and did not make schedulable again.
    #[must_use]
    pub fn cordons_left(&self) -> Vec<String> {
        let mut cordons = BTreeMap::<&str, bool>::new();
        for request in self.writes().into_values().flatten().filter(|write| write.user == DRIVER.controller) {
            match request.json().pointer("/spec/unschedulable") {
                Some(Value::Bool(true)) => drop(cordons.insert(&request.name, true)),
                Some(Value::Bool(false) | Value::Null) => drop(cordons.insert(&request.name, false)),
                _ => {}
            }
        }
        let there = self.end().unschedulable();
        let left =
            cordons.into_iter().filter(|(name, is_cordoned)| *is_cordoned && there.iter().any(|one| one == name));
        left.map(|(name, _)| format!("{name} was cordoned by us and still is")).collect()
    }

    /// Pods that were evicted from a node that was not cordoned at that moment.
    #[must_use]
    pub fn evictions_out_of_turn(&self) -> Vec<String> {
        let ours: BTreeSet<_> = self.evictions().into_iter().map(|request| request.name.as_str()).collect();
        let mut told = BTreeSet::new();
        for (moment, seen) in self.moments() {
            let Some(Seen::Pod { uid, pod: Some(SeenPod { name, node, is_evicted: true, .. }), .. }) = seen else {
                continue;
            };
            if ours.contains(name.as_str()) && told.insert((uid.clone(), false)) && !moment.is_unschedulable(node) {
                told.insert((format!("{name} was evicted from {node}, which was not cordoned"), true));
            }
        }
        told.into_iter().filter(|(_, is_wrong)| *is_wrong).map(|(line, _)| line).collect()
    }

    /// Nodes on which a second driver was started while one was still there.
    #[must_use]
    pub fn two_drivers(&self) -> Vec<String> {
        let twice: BTreeSet<_> = self.moments().flat_map(|(moment, _)| moment.with_two_drivers()).collect();
        twice.into_iter().map(|node| format!("{node} had two drivers at once")).collect()
    }

    /// Nodes that were written though they were never upgraded, or more often than an upgrade may.
    #[must_use]
    pub fn writes_out_of_turn(&self) -> Vec<String> {
        let upgraded: BTreeSet<_> = self.moments().flat_map(|(moment, _)| Moment::under_way(&moment)).collect();
        let mut wrong = vec![];
        for (node, writes) in self.writes() {
            let states = self.states(&node);
            let count = |wanted: &str| states.iter().filter(|state| *state == wanted).count();
            // A node that failed and recovered was written when it did, and again when it was done.
            let (begun, failed) = (count("Cordoned"), count("Failed"));
            let lines: Vec<_> = writes.iter().map(ToString::to_string).collect();
            if !upgraded.contains(&node) {
                wrong.push(format!("{node} was written and never upgraded: {lines:?}"));
            } else if writes.len() > WRITES * begun.max(1) + failed {
                wrong.push(format!("{node} took {} writes in {begun} upgrades: {lines:?}", writes.len()));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::moment::SeenNode;
    use super::*;
    use crate::Request;

    fn node(version: u64, name: &str, state: &str, is_unschedulable: bool) -> Seen {
        let node = SeenNode { is_ready: true, is_unschedulable, state: state.into() };
        Seen::Node { version, name: name.into(), node: Some(node) }
    }

    fn pod(version: u64, name: &str, node: &str, is_evicted: bool) -> Seen {
        let is_driver = name.starts_with("driver");
        let (name, uid, node) = (name.to_owned(), format!("uid-{name}"), node.to_owned());
        let pod = SeenPod { name, node, is_driver, is_ready: true, is_evicted, is_terminating: is_evicted };
        Seen::Pod { version, uid, pod: Some(pod) }
    }

    fn request(verb: &str, resource: &str, name: &str, body: &Value) -> Request {
        Request::of(DRIVER.controller, verb, resource, name, body)
    }

    fn settled() -> Vec<Seen> {
        vec![
            node(1, "a", "", false),
            node(2, "b", "", false),
            pod(3, "driver-a", "a", false),
            pod(4, "driver-b", "b", false),
            pod(5, "job", "a", false),
        ]
    }

    fn cordon(name: &str, value: &Value) -> Request {
        request("patch", "nodes", name, &json!({"spec": {"unschedulable": value}}))
    }

    #[test]
    fn a_good_run_has_no_violation() {
        let then = vec![
            node(20, "a", "Done", false),
            node(10, "a", "Cordoned", true),
            pod(11, "job", "a", true),
            Seen::Pod { version: 12, uid: "uid-driver-a".into(), pod: None },
            pod(13, "driver-a2", "a", false),
        ];
        let requests = vec![
            cordon("a", &json!(true)),
            request("create", "pods/eviction", "job", &Value::Null),
            cordon("a", &Value::Null),
        ];
        let history = History::new(settled(), then, requests);
        assert_eq!(history.violations(1, 1), Vec::<String>::new());
        assert_eq!(history.states("a"), ["Cordoned", "Done"]);
        assert_eq!(history.order(), ["a"]);
        assert_eq!(history.most_unavailable(), ["a"]);
        assert_eq!(history.most_unschedulable(), ["a"]);
        assert_eq!((history.writes()["a"].len(), history.evictions().len()), (2, 1));
    }

    #[test]
    fn each_violation_is_named() {
        let then = vec![
            pod(9, "job", "a", true),
            node(10, "a", "Cordoned", true),
            node(11, "b", "Cordoned", true),
            node(12, "b", "Done", false),
            pod(13, "driver-b2", "b", false),
        ];
        let requests = vec![
            request("create", "pods/eviction", "job", &Value::Null),
            cordon("a", &json!(true)),
            cordon("c", &Value::Null),
        ];
        let lines = History::new(settled(), then, requests).violations(1, 1);
        let expected = [
            "2 nodes unavailable at once, budget 1",
            "2 nodes under way at once, limit 1",
            "b had two drivers at once",
            "a was cordoned by us and still is",
            "job was evicted from a, which was not cordoned",
            "c was written and never upgraded",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:?}");
        assert!(lines.iter().zip(expected).all(|(line, words)| line.starts_with(words)), "{lines:?}");
    }
}
