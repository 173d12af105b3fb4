//! The component npu-feature-discovery, as a value.

use accelerator_api::contract;
use accelerator_operand::Operand;

/// Labels nodes with the properties of their NPUs.
pub static OPERAND: Operand = Operand {
    component: &contract::NPU_FEATURE_DISCOVERY,
    manifest: include_str!("../../../assets/rebellions/npu-feature-discovery/daemonset.yaml"),
    customize: |_, _| {},
};
