//! Which of several replicas may write.
//!
//! [`election`] decides, by the rules of Kubernetes' own leader election; [`lease`] asks and answers it; [`fence`] holds
//! back every write of a process that does not lead. Source of rules and defaults: client-go's package `leaderelection`.

mod election;
mod fence;
mod lease;

pub(crate) use election::{JITTER, Timing};
pub(crate) use fence::{Fence, FenceLayer};
pub(crate) use lease::LeaderElector;
