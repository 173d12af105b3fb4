//! Asks the API server: every list paged, every object cut down to its facts while it is read, and nothing but what is asked.

mod plan;
mod reader;

pub use plan::{for_bundle, for_status, for_subject};
pub use reader::{Reader, connect};
