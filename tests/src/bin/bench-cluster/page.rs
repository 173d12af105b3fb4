//! docs/performance.md, from every run that is kept beside it.

mod goals;
mod rollouts;
mod tables;
mod unready;
mod upgrades;

use std::fmt::Write;
use std::path::Path;

use testbed::repository::root;

use self::goals::{GOALS, LABELS_ONLY, PEERS};
use self::rollouts::rollouts;
use self::tables::{figures, processes, requests, work};
use self::unready::unready;
use self::upgrades::upgrades;
use crate::measure::Run;
use crate::plot::svg;

pub fn write(folder: &Path) -> anyhow::Result<()> {
    let mut runs = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            runs.push(serde_json::from_str::<Run>(&std::fs::read_to_string(path)?)?);
        }
    }
    runs.sort_by_key(|run| (run.nodes, run.upgrade));
    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    let line = |figure: &str| {
        let points = runs.iter().map(|run| (run.nodes as f64, run.figure(figure)));
        points.filter(|(_, value)| value.is_finite()).collect::<Vec<_>>()
    };
    let labelling = [
        ("node-labeler", line("labelling by node-labeler (s)")),
        ("raw client", line("labelling by a raw client (s)")),
    ];
    std::fs::write(folder.join("labelling.svg"), svg("Labelling all nodes", "s", &labelling))?;
    let memory = [
        ("all six", line("settled memory, all six (MB)")),
        ("node-labeler", line("settled memory, node-labeler (MB)")),
    ];
    std::fs::write(folder.join("memory.svg"), svg("Settled memory", "MB", &memory))?;
    std::fs::write(root().join("docs/performance.md"), page(runs)?)?;
    Ok(())
}

fn page(runs: Vec<Run>) -> anyhow::Result<String> {
    let (upgraded, runs): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.upgrade.is_some());
    let (labels_only, runs): (Vec<_>, Vec<_>) = runs.into_iter().partition(|run| run.labels_only);
    let mut out = String::from(
        "# Performance\n\nWritten by `cargo bench-cluster`; do not edit. Each number of nodes is one run on a control plane \
         of its own with simulated\nnodes; a raw client that only sends PATCHes, and `kubectl apply` of the same DaemonSets, \
         run in the same run. Compare ratios and\ncounts; seconds depend on the machine.\n\n## Figures\n\n",
    );
    figures(&mut out, &GOALS, &runs)?;
    out.push_str("\n![Labelling](performance/labelling.svg)\n![Memory](performance/memory.svg)\n");
    if !labels_only.is_empty() {
        out.push_str("\n## Labels alone\n\nA run each that ends when the nodes are labelled.\n\n");
        figures(&mut out, &LABELS_ONLY, &labels_only)?;
    }
    unready(&mut out, &runs)?;
    rollouts(&mut out, &runs)?;
    upgrades(&mut out, &upgraded)?;
    for run in &runs {
        work(&mut out, run)?;
    }
    requests(&mut out, &runs)?;
    for run in &runs {
        processes(&mut out, run)?;
    }
    writeln!(out, "\n## Beside others\n\nMeasured with 1,000 nodes on such a test bed on 2026-11-23.\n\n{PEERS}")?;
    if let Some(machine) = runs.last().map(|run| &run.machine) {
        writeln!(
            out,
            "## Machine\n\n{} × {}, {} GiB, Linux {}; shared with the control plane.",
            machine.processors, machine.processor, machine.memory_gib, machine.kernel
        )?;
    }
    Ok(out)
}
