//! See `--help`.

fn main() -> anyhow::Result<()> {
    accelerator_runtime::run_component(&rebellions_device_plugin_controller::OPERAND, env!("CARGO_PKG_VERSION"))
}
