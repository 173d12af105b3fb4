//! The look at nodes that are assigned and not counted: only while counts differ for more than a few seconds, only at
//! nodes that have taints, at most twenty of them at a time and ever less often.

use std::sync::Arc;
use std::time::Duration;

use accelerator_api::Toleration;
use accelerator_runtime::{Backoff, Shared};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::exclusion::{Exclusion, exclusion};
use crate::view::PerComponent;

/// How long counts may differ before that is looked into: a DaemonSet notices a node that joins sooner.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// Pauses between looks at the same difference; the shortest is kept between any two.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_mins(10));
/// Nodes per look.
pub(crate) const NODES: usize = 20;

/// A node with taints, and when they were changed.
pub(crate) type Tainted = (String, Timestamp);

/// What a look found: only as good as the taints are old.
pub(crate) type Found = (Tainted, Exclusion);

pub(crate) struct ExclusionLook {
    nodes: Api<Node>,
    changed: Arc<Notify>,
    schedule: Schedule,
    found: Shared<Vec<Found>>,
}

impl ExclusionLook {
    pub(crate) fn new(nodes: Api<Node>, changed: Arc<Notify>) -> Self {
        Self { nodes, changed, schedule: Schedule::default(), found: Shared::new(vec![]) }
    }

    /// What is known.
    pub(crate) fn found(&self) -> Vec<Found> {
        self.found.with(|found| found.clone())
    }

    /// Has nodes looked at if that is due. `uncounted` is how many each component misses, `tainted` gives nodes to look at,
    /// the newest taints first. Returns when to come back.
    pub(crate) fn observe(
        &mut self,
        uncounted: PerComponent<i64>,
        tainted: impl FnOnce() -> Vec<Tainted>,
        tolerations: &[Toleration],
    ) -> Option<Instant> {
        let now = Instant::now();
        let Some(due) = self.schedule.due_at(uncounted, now) else {
            // What is still under way is for nobody.
            self.found = Shared::new(vec![]);
            return None;
        };
        if due > now {
            return Some(due);
        }
        self.schedule.looked(now);
        let (nodes, changed, found) = (self.nodes.clone(), Arc::clone(&self.changed), self.found.clone());
        let (tainted, tolerations) = (tainted(), tolerations.to_vec());
        tokio::spawn(async move {
            match look(&nodes, tainted, &tolerations).await {
                Ok(seen) => {
                    found.with(|found| *found = seen);
                    changed.notify_one();
                }
                Err(error) => warn!(err = %error, "Could not look why a node is not counted"),
            }
        });
        self.schedule.due_at(uncounted, now)
    }
}

/// Reads these nodes one by one. By a list, which may be asked for already, of one name, which reads one object.
async fn look(nodes: &Api<Node>, tainted: Vec<Tainted>, tolerations: &[Toleration]) -> Result<Vec<Found>, kube::Error> {
    let mut found = vec![];
    for one in tainted {
        let name = ListParams::default().fields(&format!("metadata.name={}", one.0));
        let node = nodes.list(&name).await?.items.pop();
        found.extend(node.and_then(|node| exclusion(&node, tolerations)).map(|why| (one, why)));
    }
    Ok(found)
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
}

impl Schedule {
    fn due_at(&mut self, uncounted: PerComponent<i64>, now: Instant) -> Option<Instant> {
        if uncounted.iter().all(|missing| *missing <= 0) {
            *self = Self { last: self.last, ..Self::default() };
            return None;
        }
        if self.uncounted != uncounted {
            (self.uncounted, self.looks) = (uncounted, 0);
        }
        let first = *self.since.get_or_insert(now) + LOOK_AFTER;
        let next = self.last.map(|last| last + PAUSES.step(self.looks.max(1)));
        Some(next.map_or(first, |next| next.max(first)))
    }

    fn looked(&mut self, now: Instant) {
        self.looks += 1;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which a look is taken.
    fn looks(uncounted: impl Fn(u64) -> i64, seconds: u64) -> Vec<u64> {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let mut looks = vec![];
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let missing = [uncounted(second), 0, 0, 0, 0];
            if schedule.due_at(missing, now).is_some_and(|due| due <= now) {
                schedule.looked(now);
                looks.push(second);
            }
        }
        looks
    }

    #[test]
    fn looks_are_late_and_ever_rarer() {
        assert_eq!(looks(|_| 0, 10_000), Vec::<u64>::new(), "settled");
        assert_eq!(looks(|second| i64::from(second % 20 < 4), 1_000), Vec::<u64>::new(), "nodes that join");
        assert_eq!(looks(|_| 1, 2_000), [5, 35, 95, 215, 455, 935, 1535]);
    }

    #[test]
    fn another_difference_is_looked_at_sooner_but_never_all_the_time() {
        assert_eq!(looks(|second| if second < 300 { 1 } else { 2 }, 400), [5, 35, 95, 215, 300, 330, 390]);
        let changing = looks(|second| 1 + i64::try_from(second).expect("small"), 100);
        assert_eq!(changing, [5, 35, 65, 95]);
    }
}
