//! A control plane to play with: starts one, says how to reach it, and ends it with Ctrl-C.

use clap::Parser;
use testbed::{Cluster, ControlPlane, Profile, say};

/// Starts a real control plane with simulated nodes and the operator's CRD, rights and namespaces installed
#[derive(Parser)]
struct Command {
    /// How many nodes with NPUs to create
    #[arg(long, default_value_t = 3)]
    nodes: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Command { nodes } = Command::parse();
    let profile = if nodes > 200 { Profile::Scale } else { Profile::Functional };
    let mut cluster = Cluster::connect(ControlPlane::start(profile)?).await?;
    cluster.install().await?;
    cluster.npu_nodes("npu", nodes, "").await?;
    let pids: Vec<_> = cluster.control_plane().process_ids().into_iter().map(|(_, pid)| pid).collect();
    say(format!("export KUBECONFIG={}", cluster.kubeconfig.display()));
    say(format!("Process ids: {pids:?}. Ctrl-C ends it."));
    tokio::signal::ctrl_c().await?;
    Ok(())
}
