//! The component driver: as a value, and what it does beyond the others, which is pools and upgrades.

pub mod actions;
pub mod claims;
pub mod controller;
mod core_resource;
pub mod customize;
pub mod family;
pub mod follower;
pub mod image_tag;
pub mod install;
pub mod metrics;
pub mod news;
pub mod node;
pub mod os;
pub mod pods;
pub mod policy;
pub mod pool;
pub mod pool_status;
pub mod pools;
pub mod seen;
pub mod selector;
pub mod standing;
pub mod strays;
pub mod upgrade;
pub mod upgrade_report;

use accelerator_api::contract;
use accelerator_operand::Operand;

/// Kernel driver and user-mode libraries.
pub static OPERAND: Operand = Operand {
    component: &contract::DRIVER,
    manifest: include_str!("../../../assets/rebellions/driver/daemonset.yaml"),
    customize: customize::for_all,
};
