//! See `--help`.

fn main() -> anyhow::Result<()> {
    accelerator_runtime::run_component(&rebellions_metric_exporter_controller::OPERAND, env!("CARGO_PKG_VERSION"))
}
