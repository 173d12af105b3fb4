//! The look at nodes that are assigned and not counted: only while counts differ for more than a few seconds, only at
//! nodes that have taints, some of them at a time, and ever less often once all have been looked at or all is explained.

use std::sync::Arc;
use std::time::Duration;

use accelerator_api::Toleration;
use accelerator_runtime::{Backoff, Shared};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::exclusion::exclusion;
use crate::exclusion_search::{Found, Search, Tainted};
use crate::view::PerComponent;

/// How long counts may differ before that is looked into: a DaemonSet notices a node that joins sooner.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Pauses between looks at the same difference; the shortest is kept between any two.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_mins(10));
pub(crate) struct ExclusionLook {
    nodes: Api<Node>,
    changed: Arc<Notify>,
    schedule: Schedule,
    search: Shared<Search>,
    /// What the search was about.
    tolerations: PerComponent<Vec<Toleration>>,
}

/// How many assigned nodes each component's DaemonSet does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uncounted {
    pub nodes: PerComponent<i64>,
    /// Whether so many nodes are known that keep pods off.
    pub is_explained: bool,
}

impl ExclusionLook {
    pub(crate) fn new(nodes: Api<Node>, changed: Arc<Notify>) -> Self {
        Self {
            nodes,
            changed,
            schedule: Schedule::default(),
            search: Shared::new(Search::default()),
            tolerations: PerComponent::default(),
        }
    }

    /// What is known.
    pub(crate) fn found(&self) -> Vec<Found> {
        self.search.with(|search| search.found())
    }

    /// Has nodes looked at if that is due. `tainted` gives all assigned nodes that have taints. Returns when to come back.
    pub(crate) fn observe(
        &mut self,
        uncounted: Uncounted,
        tainted: impl FnOnce() -> Vec<Tainted>,
        tolerations: PerComponent<Vec<Toleration>>,
    ) -> Option<Instant> {
        let now = Instant::now();
        let due = self.schedule.due_at(uncounted, now);
        if due.is_none() || self.tolerations != tolerations {
            // What is still under way is for nobody.
            self.search = Shared::new(Search::default());
            self.tolerations.clone_from(&tolerations);
        }
        let due = due?;
        if due > now {
            return Some(due);
        }
        let (tainted, has_more) = self.search.with(|search| search.next(tainted()));
        self.schedule.looked(has_more, now);
        let (nodes, changed, search) = (self.nodes.clone(), Arc::clone(&self.changed), self.search.clone());
        tokio::spawn(async move {
            if let Err(error) = look(&nodes, tainted, &tolerations, &search).await {
                warn!(err = %error, "Could not look why a node is not counted");
            }
            changed.notify_one();
        });
        self.schedule.due_at(uncounted, now)
    }
}

/// Reads these nodes one by one. By a list, which may be asked for already, of one name, which reads one object.
async fn look(
    nodes: &Api<Node>,
    tainted: Vec<Tainted>,
    tolerations: &PerComponent<Vec<Toleration>>,
    search: &Shared<Search>,
) -> Result<(), kube::Error> {
    for one in tainted {
        let name = ListParams::default().fields(&format!("metadata.name={}", one.0));
        let node = nodes.list(&name).await?.items.pop();
        let why = tolerations.each_ref().map(|own| exclusion(node.as_ref()?, own));
        search.with(|search| search.saw(one, why));
    }
    Ok(())
}

/// When to look.
#[derive(Debug, Default)]
struct Schedule {
    /// Since when counts have differed.
    since: Option<Instant>,
    uncounted: PerComponent<i64>,
    /// Looks at this difference, and when the last one at any was.
    looks: u32,
    last: Option<Instant>,
    /// Whether there are nodes that have not been looked at.
    has_more: bool,
}

impl Schedule {
    fn due_at(&mut self, uncounted: Uncounted, now: Instant) -> Option<Instant> {
        if uncounted.nodes.iter().all(|missing| *missing <= 0) {
            *self = Self { last: self.last, ..Self::default() };
            return None;
        }
        if self.uncounted != uncounted.nodes {
            (self.uncounted, self.looks) = (uncounted.nodes, 0);
        }
        let first = *self.since.get_or_insert(now) + LOOK_AFTER;
        let is_searching = self.has_more && !uncounted.is_explained;
        let looks = if is_searching { 1 } else { self.looks.max(1) };
        let next = self.last.map(|last| last + PAUSES.step(looks));
        Some(next.map_or(first, |next| next.max(first)))
    }

    fn looked(&mut self, has_more: bool, now: Instant) {
        self.looks += 1;
        self.last = Some(now);
        self.has_more = has_more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a look is taken, of which the first `more` leave nodes to be looked at.
    fn looks(uncounted: impl Fn(u64) -> Uncounted, more: usize, seconds: u64) -> Vec<u64> {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let mut looks = vec![];
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            if schedule.due_at(uncounted(second), now).is_some_and(|due| due <= now) {
                schedule.looked(looks.len() < more, now);
                looks.push(second);
            }
        }
        looks
    }

    fn missing(nodes: i64) -> Uncounted {
        Uncounted { nodes: [nodes, 0, 0, 0, 0], is_explained: false }
    }

    #[test]
    fn looks_are_late_and_ever_rarer() {
        assert_eq!(looks(|_| missing(0), 0, 10_000), Vec::<u64>::new(), "settled");
        assert_eq!(looks(|second| missing(i64::from(second % 20 < 4)), 0, 1_000), Vec::<u64>::new(), "nodes that join");
        assert_eq!(looks(|_| missing(1), 0, 2_000), [5, 35, 95, 215, 455, 935, 1535]);
    }

    #[test]
    fn another_difference_is_looked_at_sooner_but_never_all_the_time() {
        let another = |second| missing(if second < 300 { 1 } else { 2 });
        assert_eq!(looks(another, 0, 400), [5, 35, 95, 215, 300, 330, 390]);
        let changing = looks(|second| missing(1 + i64::try_from(second).expect("small")), 0, 100);
        assert_eq!(changing, [5, 35, 65, 95]);
    }

    #[test]
    fn looks_go_on_while_nodes_are_left_that_may_explain_the_difference() {
        assert_eq!(looks(|_| missing(1), 4, 800), [5, 35, 65, 95, 125, 605]);
        let explained = |second| Uncounted { is_explained: second >= 36, ..missing(1) };
        assert_eq!(looks(explained, 99, 400), [5, 35, 95, 215]);
    }
}
