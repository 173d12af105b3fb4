//! See `--help`.

use std::time::Duration;

use accelerator_api::contract::NODE_LABELER;
use accelerator_runtime::Program;
use anyhow::Context;
use clap::Parser;
use node_labeler::node::HoldDowns;
use node_labeler::options::Command;

fn main() -> anyhow::Result<()> {
    let Command { discovery_hold_down, paused_labels_hold_down, options } = Command::parse();
    let hold_downs = HoldDowns {
        discovery: Duration::try_from(discovery_hold_down)
            .context("--discovery-hold-down must not be negative; use 0s for none")?,
        paused_labels: Duration::try_from(paused_labels_hold_down)
            .context("--paused-labels-hold-down must not be negative; use 0s for none")?,
    };
    let program = Program { name: NODE_LABELER, version: env!("CARGO_PKG_VERSION") };
    program.run(&options, async |runtime| node_labeler::controller::run(runtime, hold_downs).await)
}
