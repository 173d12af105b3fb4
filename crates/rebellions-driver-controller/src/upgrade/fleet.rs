//! What the planner is told: the nodes, their driver pods, and what each of them should run.

use k8s_openapi::jiff::Timestamp;

use super::Policy;
use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods};

/// Everything that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// Every node that has the driver, should have it, or carries a record of ours.
    pub members: &'a [Member<'a>],
    /// The node on which this controller runs.
    pub own_node: Option<&'a str>,
    /// Whether what is wanted is already the last driver that worked, because of a rollback.
    pub is_rolled_back: bool,
    /// The time.
    pub now: Timestamp,
}

/// A node and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The node.
    pub node: &'a NodeView,
    /// What it should run.
    pub target: Target<'a>,
    /// Its driver pods.
    pub driver: DriverPods<'a>,
    /// Its other pods; `None` unless they are followed and have been listed.
    pub pods: Option<&'a NodePods>,
    /// Since when no job has been seen on it, as far as this process has followed its pods; `None` when it has not.
    pub jobs_gone: Option<Timestamp>,
    /// What the API server last said to a write of it, if that was no and the write is still to be made.
    pub refusal: Option<&'a Refusal>,
}

/// The API server said no to a write of a node: an admission policy forbids it, or a right is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its words.
    pub words: String,
    /// When it is asked again.
    pub retry_at: Timestamp,
}

/// What a node should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A driver. The pool's DaemonSet must carry this digest already, or a pod that is deleted comes back as it was.
    Install {
        /// The pool; `None` for the DaemonSet `rebellions-driver`.
        pool: Option<&'a str>,
        /// Digest of what is installed.
        digest: &'a str,
    },
    /// Another driver than its pool's DaemonSet installs as yet: that is being written.
    Pending,
    /// It is not known what, for this reason, which names what is missing.
    Unknown(&'a str),
    /// Nothing: what an upgrade of ours did to the node is undone.
    None,
}

/// The driver pods of one node. There are two while a node moves between pools.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverPods<'a> {
    /// The one that counts.
    pub current: Option<&'a DriverPod>,
    /// Another one that is not being deleted, and has to be.
    pub leftover: Option<&'a DriverPod>,
    /// Whether the one that counts has no DaemonSet any more: nobody else ends it, and it would meet the one of the node's pool.
    pub is_orphan: bool,
}

impl<'a> DriverPods<'a> {
    /// Takes in one more pod of the node. One that stays counts before one that is being deleted, then one that installs what is
    /// wanted, then the newer one.
    pub fn add(&mut self, pod: &'a DriverPod, target: Target<'_>) {
        let rank = |pod: &DriverPod| {
            let is_right = matches!(target, Target::Install { digest, .. } if digest == pod.install);
            (!pod.is_terminating, is_right, pod.created, pod.version)
        };
        let other = match self.current {
            Some(current) if rank(current) >= rank(pod) => Some(pod),
            other => {
                self.current = Some(pod);
                other
            }
        };
        if let Some(other) = other.filter(|pod| !pod.is_terminating) {
            self.leftover = Some(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, install: &str, is_terminating: bool, version: u64) -> DriverPod {
        DriverPod { name: name.into(), install: install.into(), is_terminating, version, ..DriverPod::default() }
    }

    #[test]
    fn of_two_driver_pods_the_one_that_stays_and_is_wanted_counts() {
        let target = Target::Install { pool: None, digest: "new" };
        let old = pod("old", "old", false, 9);
        let new = pod("new", "new", false, 2);
        let newer = pod("newer", "new", false, 3);
        let ending = pod("ending", "new", true, 10);
        for (pods, current, leftover) in [
            (vec![&old], "old", None),
            (vec![&old, &new], "new", Some("old")),
            (vec![&new, &old], "new", Some("old")),
            (vec![&new, &newer], "newer", Some("new")),
            (vec![&ending, &old], "old", None),
            (vec![&old, &ending], "old", None),
            (vec![&ending], "ending", None),
        ] {
            let mut driver = DriverPods::default();
            for pod in pods {
                driver.add(pod, target);
            }
            assert_eq!(driver.current.map(|pod| pod.name.as_str()), Some(current));
            assert_eq!(driver.leftover.map(|pod| pod.name.as_str()), leftover);
        }
    }
}
