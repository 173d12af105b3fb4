//! The shell around the pure crates: what every controller does to a cluster. A controller is a value and a few lines of
//! `main`; what all of them share is here: options, metrics, health, the client, watches, events, status writes and, for
//! component controllers, the loop itself.

mod absence;
mod client;
mod component;
mod events;
mod follow;
mod health;
mod leadership;
mod metrics;
mod options;
mod program;
mod repair;
mod resync;
mod status;
mod store;
mod token_bucket;
mod watch;
mod watch_rate_limit;

pub use absence::AbsenceCheck;
pub use accelerator_process::clock::now;
pub use accelerator_process::{Backoff, chain};
pub use component::{Extension, Layout, Stance, run_component, run_extended};
pub use events::{EventRequest, Events, node_reference};
pub use follow::{Ended, Retries, Source, Task, View};
pub use metrics::Metrics;
pub use options::Options;
pub use program::{Program, Reconcile, Runtime};
pub use repair::{RepairBackoff, random};
pub use status::{StatusWrite, StatusWriter, Urgency};
pub use store::{Event, Shared, Store, Stored, version_of};
pub use watch::{Holder, PAGE_SIZE};
