//! The one place that reads the wall clock.

use jiff::Timestamp;

/// The time of day, for what people and the cluster read. Never to measure how long something took.
#[expect(clippy::disallowed_methods, reason = "this is the shell: everything else takes the time as an argument")]
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now()
}
