//! What the driver controller keeps of pods: the driver's own, and those of a node while its driver is replaced.

mod decode;
mod driver_pod;
mod node_pods;

use k8s_openapi::jiff::Timestamp;

pub use decode::Pod;
pub use node_pods::Rules;

/// A pod of the driver, of any pool or of none.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DriverPod {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Its version.
    pub version: u64,
    /// The node that it is on, or that it is made for.
    pub node: String,
    /// The pool that it belongs to; `None` for the DaemonSet `rebellions-driver` and what it has left behind.
    pub pool: Option<String>,
    /// Digest of what it installs.
    pub install: String,
    /// Whether a DaemonSet owns it: when that is deleted, Kubernetes ends it, or tells it that it is on its own.
    pub is_owned: bool,
    /// The kernel that its driver is built for, if it says so.
    pub kernel: Option<String>,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_terminating: bool,
    /// Whether any of its containers, init containers included, has ever run: it may have touched the driver.
    pub has_begun: bool,
    /// How often its containers were restarted, in sum.
    pub restarts: u32,
    /// Why it is not ready, for people: `ImagePullBackOff: …`.
    pub problem: Option<String>,
    /// Whether its main image cannot be pulled because it does not exist.
    pub is_image_missing: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// What is on a node whose driver is to be replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePods {
    /// Pods that use NPUs and are to be evicted, or, when the node is drained, every pod that is to leave.
    pub to_evict: Vec<WorkloadPod>,
    /// Pods that are waited for before any pod is evicted.
    pub jobs: Vec<PodName>,
    /// Pods of components that use the driver.
    pub dependents: Vec<PodName>,
}

/// A pod in any namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A pod that has to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadPod {
    /// Which.
    pub pod: PodName,
    /// Its identity.
    pub uid: String,
    /// Whether it ends already.
    pub is_terminating: bool,
    /// Why it must not be evicted, by the policy: it has an emptyDir, or no controller that would make it anew.
    pub obstacle: Option<Obstacle>,
    /// What the API server last answered to its eviction, when that was no: a disruption budget, for example.
    pub refusal: Option<String>,
}

/// Why a pod must not be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has an emptyDir, and `eviction.deleteEmptyDirData` is false.
    EmptyDir,
    /// Nothing would make it anew, and `eviction.force` is false.
    Unmanaged,
}
