//! See `--help`.

fn main() -> anyhow::Result<()> {
    accelerator_runtime::run_component(&rebellions_npu_feature_discovery_controller::OPERAND, env!("CARGO_PKG_VERSION"))
}
