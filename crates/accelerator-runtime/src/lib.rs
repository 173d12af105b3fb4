//! The shell around the pure crates, where every side effect of the project lives. A controller is a value and a few
//! lines of `main`; what all of them share is here: options, logs, metrics, health, the client, watches, events, status
//! writes and, for component controllers, the loop itself.

mod backoff;
mod client;
mod component;
mod events;
mod health;
mod leadership;
mod metrics;
mod mirror;
mod options;
mod pace;
mod program;
mod status;
mod vacancy;
mod watch;

pub use accelerator_process::clock::now;
pub use backoff::Backoff;
pub use component::run_component;
pub use events::{Announcement, Events};
pub use metrics::Metrics;
pub use mirror::{Mirror, Shared, version_of};
pub use options::Options;
pub use program::{Program, Reconcile, Runtime};
pub use status::{StatusWriter, Urgency, Written};
pub use vacancy::Vacancy;
pub use watch::PAGE_SIZE;
