//! The contract between an admin, the cluster and our programs: the [`AcceleratorConfig`] resource, the node labels and
//! the table of components. Everything here is data and pure functions; nothing talks to a cluster.

mod active;
mod config;
pub mod contract;
mod crd;
mod image;
mod null;
mod observed;
mod quantity;
mod resources;
mod status;
mod text;
mod toleration;

pub use active::{active, active_first};
pub use config::{
    AcceleratorConfig, AcceleratorConfigSpec, ComponentSpec, DaemonSets, EnvVar, Providers, Rebellions, UpdateStrategy,
    WorkloadDefaults,
};
pub use crd::{crd, crd_yaml};
pub use image::Image;
pub use observed::ObservedConfig;
pub use quantity::Quantity;
pub use resources::ResourceRequirements;
pub use status::{AcceleratorConfigStatus, ComponentStatus, NodeCounts, Reason, condition_types};
pub use text::count;
pub use toleration::Toleration;
