//! Real nodes for the test bed: kubelet, containerd, runc and kube-proxy in namespaces of their own, beside a control plane
//! of the test bed and its simulated nodes.
//!
//! [`Software`] gets what a node is made of, [`Node`] starts, harms and ends one, [`images`] makes the images that it runs.
//! A node's root is an overlay over unpacked packages: nothing of this machine is in it, and nothing is written to this
//! machine but a folder, a network link and a control group, which go with it.

pub mod host;
pub mod images;
pub mod node;
pub mod registry;
mod reservation;
mod software;
pub mod virtual_node;
pub mod world;

pub use node::Node;
pub use software::Software;
pub use virtual_node::VirtualNode;
pub use world::World;

/// The program that becomes a node's first process.
pub const NODE_PROCESS: &str = "node-process";

/// Why something was not tried: this machine cannot do it. Neither a success nor a failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skipped(pub String);
