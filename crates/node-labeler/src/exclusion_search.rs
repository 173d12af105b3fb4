//! Which of the nodes that have taints to look at next, and what has been found so far. A few at a time, so that all of
//! them have been looked at in the end.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::exclusion::Exclusion;
use crate::view::PerComponent;

/// Nodes per look.
pub(crate) const NODES: usize = 50;

/// A node with taints, and when they were changed.
pub(crate) type Tainted = (String, Timestamp);

/// What keeps each component's pods off a node: only as good as the taints are old.
pub(crate) type Found = (Tainted, PerComponent<Option<Exclusion>>);

/// What looks have shown.
#[derive(Debug, Default)]
pub(crate) struct Search {
    nodes: BTreeMap<String, Seen>,
    /// Nodes looked at so far, one after the other.
    turn: u64,
}

#[derive(Debug)]
struct Seen {
    tainted_at: Timestamp,
    turn: u64,
    why: PerComponent<Option<Exclusion>>,
}

impl Search {
    /// The nodes to look at next, and whether there are more that have not been looked at as they are. First those, the
    /// newest taints first; then those that were looked at longest ago.
    pub(crate) fn next(&mut self, mut tainted: Vec<Tainted>) -> (Vec<Tainted>, bool) {
        let known: BTreeMap<_, _> = tainted.iter().map(|(node, at)| (node.as_str(), *at)).collect();
        self.nodes.retain(|node, seen| known.get(node.as_str()) == Some(&seen.tainted_at));
        let unseen = tainted.iter().filter(|(node, _)| !self.nodes.contains_key(node)).count();
        tainted.sort_by_cached_key(|(node, at)| {
            (self.nodes.get(node).map(|seen| seen.turn), Reverse(*at), Reverse(node.clone()))
        });
        tainted.truncate(NODES);
        (tainted, unseen > NODES)
    }

    /// Takes note of what a look at a node has shown: what keeps each component's pods off it, if anything does.
    pub(crate) fn saw(&mut self, (node, tainted_at): Tainted, why: PerComponent<Option<Exclusion>>) {
        self.turn += 1;
        self.nodes.insert(node, Seen { tainted_at, turn: self.turn, why });
    }

    /// The nodes that keep pods off, by name.
    pub(crate) fn found(&self) -> Vec<Found> {
        let found = self.nodes.iter().filter(|(_, seen)| seen.why.iter().any(Option::is_some));
        found.map(|(node, seen)| ((node.clone(), seen.tainted_at), seen.why.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tainted(names: impl IntoIterator<Item = usize>, at: impl Fn(usize) -> usize) -> Vec<Tainted> {
        let second = |number| Timestamp::from_second(i64::try_from(at(number)).expect("small")).expect("a time");
        names.into_iter().map(|number| (format!("n{number:03}"), second(number))).collect()
    }

    fn names(nodes: &[Tainted]) -> Vec<&str> {
        nodes.iter().map(|(node, _)| node.as_str()).collect()
    }

    #[test]
    fn every_node_is_looked_at_in_the_end_the_newest_taints_first() {
        let all = tainted(0..120, |number| number);
        let mut search = Search::default();
        let mut order = vec![];
        for more in [true, true, false] {
            let (next, has_more) = search.next(all.clone());
            assert_eq!(has_more, more, "after {}", order.len());
            assert!(next.len() <= NODES);
            for one in next {
                order.push(one.0.clone());
                let mut why = PerComponent::default();
                why[0] = (one.0 == "n000").then(|| Exclusion::Taint("a:NoExecute".into()));
                search.saw(one, why);
            }
        }
        assert_eq!((order[0].as_str(), order[119].as_str()), ("n119", "n000"), "the newest first");
        assert_eq!(search.found().iter().map(|(node, _)| node.0.as_str()).collect::<Vec<_>>(), ["n000"]);
        let (again, more) = search.next(all);
        assert_eq!((again[0].0.as_str(), more), ("n089", false), "the second look ended with the one before");
    }

    #[test]
    fn a_taint_that_changed_comes_first_and_what_was_found_before_is_forgotten() {
        let mut search = Search::default();
        let before = tainted(0..70, |_| 1);
        for _ in 0..2 {
            let (next, _) = search.next(before.clone());
            for one in next {
                search.saw(one, std::array::from_fn(|_| Some(Exclusion::NotReady)));
            }
        }
        assert_eq!(search.found().len(), 70);
        let now = tainted(0..69, |number| if number == 33 { 2 } else { 1 });
        let (next, more) = search.next(now);
        assert_eq!((names(&next)[0], more), ("n033", false));
        assert_eq!(search.found().len(), 68, "without the one that changed and the one that is gone");
    }
}
