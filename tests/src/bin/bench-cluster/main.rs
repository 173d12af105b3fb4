//! The benchmark: what the operator costs, beside what a raw client and a bare `kubectl apply` cost in the same run.

mod labelling;
mod machine;
mod measure;
mod meter;
mod page;
mod phases;
mod plot;
mod rollout;
mod unready;
mod upgrade;

use std::time::Instant;

use clap::Parser;
use testbed::repository::root;
use testbed::say;

/// Measures the operator on control planes of its own and writes docs/performance.md
#[derive(Parser)]
struct Options {
    /// How many nodes with NPUs to create; several numbers, with commas between them, are a run each
    #[arg(long, default_value = "1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(20..=20_000))]
    nodes: Vec<u32>,

    /// Which components to roll out, with commas between them; fewer pods make a run with many nodes shorter
    #[arg(long, value_delimiter = ',', default_values = rollout::names(), value_parser = rollout::names())]
    components: Vec<String>,

    /// Measure labelling alone
    #[arg(long)]
    labels_only: bool,

    /// Measure an upgrade of the driver alone, so many nodes at once
    #[arg(long, value_name = "NODES", conflicts_with = "labels_only")]
    upgrade: Option<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = root().join("docs/performance");
    std::fs::create_dir_all(&folder)?;
    for nodes in options.nodes {
        let (begun, nodes) = (Instant::now(), usize::try_from(nodes)?);
        let run = match options.upgrade {
            Some(parallel) => upgrade::run(nodes, parallel).await?,
            None => phases::run(nodes, &options.components, options.labels_only).await?,
        };
        std::fs::write(folder.join(run.file()), serde_json::to_string_pretty(&run)? + "\n")?;
        page::write(&folder)?;
        say(format!("Wrote docs/performance.md after {} s.", begun.elapsed().as_secs()));
    }
    Ok(())
}
