//! Writes the Helm chart.

use std::path::PathBuf;

use clap::Parser;
use testbed::{chart, say};

/// Writes the Helm chart into an empty folder, which is made if it is not there
#[derive(Parser)]
struct Command {
    /// The folder
    #[arg(default_value = "target/chart/accelerator-operator")]
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Command { folder } = Command::parse();
    std::fs::create_dir_all(&folder)?;
    chart::write(&folder)?;
    say(format!("{} is the chart: helm install accelerator-operator {0}", folder.display()));
    Ok(())
}
