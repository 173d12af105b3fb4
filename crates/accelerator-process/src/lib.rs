//! What every process of the project has, controllers and what runs on nodes alike: logs, health and metrics over HTTP,
//! signals, the wall clock. Nothing here knows Kubernetes.

pub mod admin;
mod backoff;
pub mod clock;
mod logs;
mod signals;

pub use backoff::Backoff;
pub use logs::{LogFormat, LogOptions, chain, log_panics};
pub use signals::Signals;
