//! The demo: everything at work in a minute.

mod screen;
mod snapshot;
mod stage;
mod story;
mod upgrade;
mod view;

use accelerator_process::Signals;
use clap::Parser;
use testbed::say;
use tokio::signal::unix::{SignalKind, signal};

use crate::screen::Screen;
use crate::stage::Stage;

/// Shows the operator at work: a real control plane with simulated NPU nodes, the controllers with their own rights,
/// and what each node runs, while modes and settings change and the driver is upgraded
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Options {
    /// How many nodes with NPUs to create: half of them for pods, a third for virtual machines, the rest without a mode
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(3..=5000))]
    nodes: u32,

    /// End when everything has been shown, instead of waiting for Ctrl-C
    #[arg(long)]
    exit: bool,

    /// Use the cluster of the current kubeconfig context instead of a control plane of its own. Creates simulated nodes
    /// and an AcceleratorConfig there, and removes them at the end. Refused where there are other nodes with NPUs
    #[arg(long)]
    use_current_context: bool,

    /// Add a real node, with kubelet, containerd and real pods of ours. The controllers run in pods on it
    #[arg(long, conflicts_with = "use_current_context")]
    real_node: bool,

    /// With --use-current-context: install what is missing (CRD, namespaces, service accounts and roles), and remove it at
    /// the end
    #[arg(long, requires = "use_current_context")]
    install: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let nodes = usize::try_from(options.nodes)?;
    let mut screen = Screen::new();
    let (mut signals, mut hang_up) = (Signals::listen()?, signal(SignalKind::hangup())?);
    // Ctrl-C, SIGTERM, or a terminal that is closed.
    let interrupt = async {
        tokio::select! {
            _ = signals.next() => {}
            _ = hang_up.recv() => {}
        }
    };
    tokio::pin!(interrupt);

    let opening = async {
        match (options.use_current_context, options.real_node) {
            (true, _) => Stage::theirs(options.install).await,
            (false, true) => Stage::with_a_real_node().await,
            (false, false) => Stage::own(nodes).await,
        }
    };
    let mut stage = tokio::select! {
        stage = opening => stage?,
        () = &mut interrupt => {
            say("Interrupted.");
            return Ok(());
        }
    };
    let told = tokio::select! {
        told = story::tell(&mut stage, &mut screen, nodes) => told,
        () = &mut interrupt => {
            screen.keep();
            say("Interrupted.");
            return stage.close().await;
        }
    };
    screen.keep();
    if told.is_ok() && !options.exit {
        let (kubeconfig, more) = (stage.access.kubeconfig.display(), stage.more_to_see());
        say(format!(
            "\nLook around:\n  export KUBECONFIG={kubeconfig}\n  kubectl get ac,nodes,daemonsets,pods -A{more}\nCtrl-C ends it."
        ));
        interrupt.await;
    }
    let closed = stage.close().await;
    told.and(closed)
}
