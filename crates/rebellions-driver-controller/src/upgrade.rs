//! The upgrade engine: pure decisions about which node's driver is replaced when.

mod record;
mod state;

pub use record::Record;
pub use state::State;
