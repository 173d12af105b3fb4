//! Why something is as it is: from facts to a short text. Pure: the same facts give the same explanation, wherever they were read.
//!
//! Controllers compute most reasons already and write them into the status, events and annotations; those are taken over. What
//! is added is what no single object says.

mod advice;
mod cluster;
mod component;
mod component_on_node;
mod config;
mod driver;
mod finding;
mod installation;
mod labels;
mod node;
mod not_created;
mod npus;
mod place;
mod pod;
mod subject;
mod text;
mod vfio;

pub use finding::{Explanation, Finding, Line, State, Weight};
pub use subject::Subject;
pub use text::{ago, render};

use crate::facts::Facts;

pub use cluster::Cluster;
pub use component_on_node::{ComponentState, component_state};
pub use driver::rollout;
pub use installation::program;
pub use node::NodeContext;

/// Explains one subject.
#[must_use]
pub fn explain(facts: &Facts, subject: &Subject) -> Explanation {
    explain_in(&Cluster::new(facts), subject)
}

/// Explains one subject of several.
#[must_use]
pub fn explain_in(cluster: &Cluster<'_>, subject: &Subject) -> Explanation {
    let explanation = match subject {
        Subject::Node(name) => node::explain(cluster, name),
        Subject::Component(component) => component::explain(cluster, component),
        Subject::Config(name) => config::explain(cluster, name.as_deref()),
    };
    let unread = cluster.facts.unread.iter().map(|one| format!("{:?} could not be read: {}", one.kind, one.why));
    Explanation { unknown: unread.collect(), ..explanation }
}
