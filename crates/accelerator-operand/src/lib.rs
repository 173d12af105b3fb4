//! Everything that is decided about an operand, as pure functions: [`Template::render`] turns a configuration into a
//! DaemonSet, [`plan`] says what to write, [`observe`] and [`report`] turn what is seen into status. Time and cluster
//! state are arguments; nothing here can talk to a cluster.

mod condition;
mod diff;
mod findings;
mod image;
mod observe;
mod operand;
mod plan;
mod pod_events;
mod pod_problem;
mod pod_view;
mod render;
mod report;

pub use condition::{condition, present};
pub use diff::{difference, last_other_writer};
pub use findings::{Findings, PodProblems};
pub use observe::{Counts, Observation, observe};
pub use operand::{ManifestError, Operand};
pub use plan::{
    Desire, Desired, Plan, PlanContext, Write, daemon_set_difference, desire, is_ours, is_removable, plan, write,
};
pub use pod_events::EventView;
pub use pod_problem::{PodProblem, ProblemKind};
pub use pod_view::PodView;
pub use render::{Placement, Template, digest, stamp};
pub use report::{Outcome, Parts, Report, ReportContext, combine, report};
