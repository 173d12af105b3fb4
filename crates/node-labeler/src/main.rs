//! See `--help`.

use std::time::Duration;

use accelerator_api::contract::NODE_LABELER;
use accelerator_runtime::{Options, Program};
use anyhow::Context;
use clap::Parser;
use k8s_openapi::jiff::SignedDuration;
use node_labeler::node::HoldDowns;

/// Labels nodes so that each runs the components of its mode, and sums up what every component reports
#[derive(Parser)]
#[command(name = NODE_LABELER, version)]
struct Command {
    /// How long a node that got its mode by default keeps it after its NPUs were last discovered, such as 90s or 10m
    #[arg(long, env = "DISCOVERY_HOLD_DOWN", default_value = "10m", value_name = "DURATION")]
    discovery_hold_down: SignedDuration,

    /// How long deploy labels that a driver manager paused must have stayed the same before they count as left behind and
    /// are set again
    #[arg(long, env = "PAUSED_LABELS_HOLD_DOWN", default_value = PAUSED_LABELS_HOLD_DOWN, value_name = "DURATION")]
    paused_labels_hold_down: SignedDuration,

    #[command(flatten)]
    options: Options,
}

/// A driver manager that is alive is through by then: the driver's startup probe allows 10 minutes, and the vendor's driver
/// manager gives the pods that it evicts 5.
const PAUSED_LABELS_HOLD_DOWN: &str = "30m";

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
