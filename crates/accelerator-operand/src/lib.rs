//! Everything that is decided about an operand, as pure functions: [`Template::render`] turns a configuration into a
//! DaemonSet, [`plan`] says what to write, [`observe`] and [`report`] turn what is seen into status. Time and cluster
//! state are arguments; nothing here can talk to a cluster.

mod condition;
mod covers;
mod image;
mod observe;
mod operand;
mod plan;
mod pods;
mod render;
mod report;

pub use condition::condition;
pub use covers::{difference, last_other_writer};
pub use observe::{Observation, observe};
pub use operand::{ManifestError, Operand};
pub use plan::{Plan, Surroundings, Write, daemon_set_difference, plan};
pub use pods::{PodTrouble, PodView, troubles};
pub use render::{Placement, Template, digest};
pub use report::{Outcome, Parts, Report, report};
