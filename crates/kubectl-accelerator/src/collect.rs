//! One file for support: what is known, the objects themselves, logs, metrics and explanations, without secrets.

mod archive;
mod bundle;
mod logs;
mod redact;

pub use archive::{Archive, read_facts};
pub use bundle::collect;
pub use redact::{redact, redact_text};
