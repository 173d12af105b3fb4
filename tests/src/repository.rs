//! Where things are in this repository, and what is in it.

use std::path::{Path, PathBuf};

use accelerator_api::contract::{COMPONENTS, NODE_LABELER};
use accelerator_operand::Operand;

/// The folder with the workspace's `Cargo.toml`.
#[must_use]
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Every operand, in the order of the contract.
#[must_use]
pub fn operands() -> [&'static Operand; COMPONENTS.len()] {
    [
        &rebellions_driver_controller::OPERAND,
        &rebellions_device_plugin_controller::OPERAND,
        &rebellions_metric_exporter_controller::OPERAND,
        &rebellions_vfio_manager_controller::OPERAND,
        &rebellions_npu_feature_discovery_controller::OPERAND,
    ]
}

/// The folder of an operand's manifest.
#[must_use]
pub fn assets(operand: &Operand) -> PathBuf {
    root().join("assets/rebellions").join(operand.component.name)
}

/// Every program that runs in a cluster: the node-labeler and a controller per component.
pub fn programs() -> impl Iterator<Item = &'static str> {
    let controllers = operands().map(|operand| operand.component.controller);
    std::iter::once(NODE_LABELER).chain(controllers)
}
