//! The component vfio-manager, as a value.

use accelerator_api::contract;
use accelerator_operand::Operand;

/// Binds NPUs to vfio-pci for virtual machines.
pub static OPERAND: Operand = Operand {
    component: &contract::VFIO_MANAGER,
    manifest: include_str!("../../../assets/rebellions/vfio-manager/daemonset.yaml"),
    customize: |_, _| {},
};
