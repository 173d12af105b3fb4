//! Prints the CRD as YAML: `cargo run --bin crdgen > deploy/crds/acceleratorconfigs.yaml`.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "# Generated from crates/accelerator-api by `just crds`. Do not edit.")?;
    out.write_all(serde_saphyr::to_string(&accelerator_api::crd())?.as_bytes())?;
    Ok(())
}
