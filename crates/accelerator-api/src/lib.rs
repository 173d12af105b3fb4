//! The contract between an admin, the cluster and our programs: the [`AcceleratorConfig`] resource, the node labels and
//! the table of components. Everything here is data and pure functions; nothing talks to a cluster.

mod active;
mod affinity;
mod amount;
mod component;
mod config;
pub mod contract;
mod crd;
mod daemon_sets;
mod driver;
mod driver_status;
mod duration;
mod image;
mod label;
mod null;
mod observed;
mod quantity;
mod resources;
mod status;
mod text;
mod toleration;

pub use active::{active, active_first};
pub use affinity::{Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
pub use component::{
    ComponentSpec, ContainerSpec, DevicePluginSpec, EnvVar, FeatureDiscoverySpec, MetricExporterSpec, SurgeStrategy,
};
pub use config::{AcceleratorConfig, AcceleratorConfigSpec, Providers, Rebellions, WorkloadDefaults};
pub use crd::{crd, crd_yaml};
pub use daemon_sets::{DaemonSets, ImageSource, UpdateStrategy};
pub use driver::{DrainPolicy, DriverSpec, EvictionPolicy, UpgradePolicy, WaitForJobs};
pub use driver_status::{NodeUpgradeStatus, PoolStatus, UpgradeStatus};
pub use duration::Duration;
pub use image::Image;
pub use label::LabelSet;
pub use observed::ObservedConfig;
pub use quantity::Quantity;
pub use resources::ResourceRequirements;
pub use status::{AcceleratorConfigStatus, ComponentStatus, NodeCounts, Reason, condition_types};
pub use text::{count, first_of};
pub use toleration::Toleration;
