//! The benchmark: what the operator costs, beside what a raw client and a bare `kubectl apply` cost in the same run.

mod machine;
mod measure;
mod page;
mod phases;
mod plot;

use clap::Parser;
use testbed::repository::root;
use testbed::say;

/// Measures the operator on a control plane of its own and writes docs/performance.md
#[derive(Parser)]
struct Options {
    /// How many nodes with NPUs to create
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=20_000))]
    nodes: u32,

    /// Measure labelling alone, and keep nothing
    #[arg(long)]
    labelling: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let nodes = usize::try_from(options.nodes)?;
    let run = phases::run(nodes, options.labelling).await?;
    if options.labelling {
        return Ok(());
    }
    let folder = root().join("docs/performance");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{nodes}.json")), serde_json::to_string_pretty(&run)? + "\n")?;
    page::write(&folder)?;
    say("Wrote docs/performance.md.");
    Ok(())
}
