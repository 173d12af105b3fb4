//! Prints the CRD as YAML: `cargo run --bin crdgen > deploy/crds/acceleratorconfigs.yaml`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::io::stdout().lock().write_all(accelerator_api::crd_yaml()?.as_bytes())?;
    Ok(())
}
