//! The component metric-exporter, as a value.

mod host;

use accelerator_api::contract;
use accelerator_operand::Operand;

/// Serves NPU metrics to Prometheus.
pub static OPERAND: Operand = Operand {
    component: &contract::METRIC_EXPORTER,
    manifest: include_str!("../../../assets/rebellions/metric-exporter/daemonset.yaml"),
    customize: host::serve,
};
