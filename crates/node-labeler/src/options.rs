//! Command line and environment.

use accelerator_api::contract::NODE_LABELER;
use accelerator_runtime::Options;
use clap::Parser;
use k8s_openapi::jiff::SignedDuration;

/// Labels nodes so that each runs the components of its mode, and sums up what every component reports
#[derive(Debug, Parser)]
#[command(name = NODE_LABELER, version)]
pub struct Command {
    /// How long a node that got its mode by default keeps it after its NPUs were last discovered, such as 90s or 10m
    #[arg(long, env = "DISCOVERY_HOLD_DOWN", default_value = DISCOVERY_HOLD_DOWN, value_name = "DURATION")]
    pub discovery_hold_down: SignedDuration,

    /// How long deploy labels that a driver manager paused must have stayed the same before they count as left behind and
    /// are set again
    #[arg(long, env = "PAUSED_LABELS_HOLD_DOWN", default_value = PAUSED_LABELS_HOLD_DOWN, value_name = "DURATION")]
    pub paused_labels_hold_down: SignedDuration,

    /// What every controller has
    #[command(flatten)]
    pub options: Options,
}

/// Discovery that restarts or is upgraded is back by then.
pub const DISCOVERY_HOLD_DOWN: &str = "10m";

/// A driver manager that is alive is through by then: the driver's startup probe allows 10 minutes, and the vendor's driver
/// manager gives the pods that it evicts 5.
pub const PAUSED_LABELS_HOLD_DOWN: &str = "30m";
