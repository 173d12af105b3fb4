//! See `--help`.

fn main() -> anyhow::Result<()> {
    let (operand, version) = (&rebellions_driver_controller::OPERAND, env!("CARGO_PKG_VERSION"));
    accelerator_runtime::run_extended(operand, version, rebellions_driver_controller::controller::Driver::new)
}
