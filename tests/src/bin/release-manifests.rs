//! Writes what a release ships of `deploy/`: `cargo run --package testbed --bin release-manifests -- FOLDER`.

use std::path::PathBuf;

use clap::Parser;
use testbed::{install, say};

/// Writes each overlay of deploy/ as one file, install-OVERLAY.yaml
#[derive(Parser)]
struct Arguments {
    /// Where to write
    #[arg(default_value = "target/release-manifests")]
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    for path in install::release_manifests(&Arguments::parse().folder)? {
        say(path.display().to_string());
    }
    Ok(())
}
