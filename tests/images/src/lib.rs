//! Our images without a tool for containers: the Containerfile says what they are, `.ci/image-contents` makes what is in them,
//! and [`oci`] writes them down.

pub mod containerfile;
mod contents;
pub mod oci;

pub use contents::{Architecture, Ours, root};

/// The most bytes that a pull of one of our images may move: nodes pull it over whatever link they have.
pub const LARGEST: u64 = 4 << 20;
