//! The component device-plugin, as a value.

use accelerator_api::contract;
use accelerator_operand::Operand;

/// Advertises NPUs to the kubelet.
pub static OPERAND: Operand = Operand {
    component: &contract::DEVICE_PLUGIN,
    manifest: include_str!("../../../assets/rebellions/device-plugin/daemonset.yaml"),
    customize: |_| {},
};
