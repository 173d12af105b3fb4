//! docs/performance.md, from every run that is kept beside it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use testbed::repository::root;

use crate::measure::Run;
use crate::plot::svg;

/// A figure and what it is to be.
struct Goal {
    figure: &'static str,
    words: &'static str,
    meets: Option<fn(&Run, f64) -> bool>,
    /// Why it may miss.
    why: &'static str,
}

const fn figure(figure: &'static str) -> Goal {
    Goal { figure, words: "", meets: None, why: "" }
}

const fn goal(figure: &'static str, words: &'static str, meets: fn(&Run, f64) -> bool, why: &'static str) -> Goal {
    Goal { figure, words, meets: Some(meets), why }
}

/// Why a ratio of two times may miss its goal although we send hardly anything.
const SHORT: &str = "one run on a shared machine, and with few nodes the start is a large part of it: compare the requests, which are counted";

const GOALS: [Goal; 14] = [
    goal("patches per node", "1", |_, value| value <= 1.0, "somebody else changed nodes meanwhile"),
    goal(
        "labelling, ours to raw",
        "≤ 1.1",
        |_, value| value <= 1.1,
        "the API server also sends every change to node-labeler's watch, which the raw client's first run does without",
    ),
    figure("labelling by node-labeler (s)"),
    figure("labelling by a raw client (s)"),
    figure("processor time of node-labeler while labelling (s)"),
    goal("node patches when one joins", "1", |_, value| value <= 1.0, "somebody else changed the node meanwhile"),
    goal("writes after restarts", "0", |_, value| value <= 0.0, "something changed during the restarts"),
    goal("settled memory, all six (MB)", "≤ 60 at 1,000", |run, value| run.nodes > 1000 || value <= 60.0, ""),
    goal("settled memory, node-labeler (MB)", "≤ 20 at 5,000", |_, value| value <= 20.0, ""),
    goal("growth over a thousand node changes, all six (MB)", "flat: ≤ 1", |_, value| value <= 1.0, ""),
    goal("rollout, ours to kubectl", "≤ 1.1", |_, value| value <= 1.1, SHORT),
    figure("rollout of ours (s)"),
    figure("rollout by kubectl apply (s)"),
    figure("deletion of the config, until nothing is left (s)"),
];

/// Measured on the same kind of test bed with 1,000 nodes on 2026-11-23, other machine load.
const PEERS: &str = "\
| | label all | writes per node | when one node joins | memory |\n|---|---|---|---|---|\n\
| raw Go client | 1.6-2.5 s | 1 | | |\n\
| rbln-npu-operator v0.3.0 | 7.0 s | 2 full updates | rewrites 646 other nodes | 129 MB |\n\
| NVIDIA gpu-operator | 108 s | | 240 writes, 2,000 reads | 474 MB |\n";

pub fn write(folder: &Path) -> anyhow::Result<()> {
    let mut runs = vec![];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            runs.push(serde_json::from_str::<Run>(&std::fs::read_to_string(path)?)?);
        }
    }
    runs.sort_by_key(|run| run.nodes);
    #[expect(clippy::cast_precision_loss, reason = "a plot")]
    let line = |figure: &str| runs.iter().map(|run| (run.nodes as f64, run.figure(figure))).collect::<Vec<_>>();
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
    std::fs::write(root().join("docs/performance.md"), page(&runs)?)?;
    Ok(())
}

fn page(runs: &[Run]) -> anyhow::Result<String> {
    let mut out = String::from(
        "# Performance\n\nWritten by `cargo bench-cluster`; do not edit. Each number of nodes is one run on a control plane \
         of its own with simulated\nnodes; a raw client that only sends PATCHes, and `kubectl apply` of the same DaemonSets, \
         run in the same run. Compare ratios and\ncounts; seconds depend on the machine.\n\n## Figures\n\n",
    );
    let heads = runs.iter().fold(String::new(), |heads, run| heads + &format!(" {} nodes |", run.nodes));
    writeln!(out, "| figure | goal |{heads}\n|---|---|{}", "--:|".repeat(runs.len()))?;
    let mut misses = vec![];
    for Goal { figure, words, meets, why } in GOALS {
        write!(out, "| {figure} | {words} |")?;
        for run in runs {
            let value = run.figure(figure);
            let is_miss = meets.is_some_and(|meets| !meets(run, value));
            write!(out, " {value:.2}{} |", if is_miss { " **misses**" } else { "" })?;
            if is_miss {
                misses.push(format!("- *{figure}* misses its goal at {} nodes: {why}.\n", run.nodes));
            }
        }
        out.push('\n');
    }
    if !misses.is_empty() {
        out.push('\n');
        out.extend(misses);
    }
    out.push_str("\n![Labelling](performance/labelling.svg)\n![Memory](performance/memory.svg)\n");
    out.push_str("\n## Requests\n\nOf all six programs, without the renewals of leases (one in 2 s each).\n\n");
    writeln!(out, "| phase | client | request |{heads}\n|---|---|---|{}", "--:|".repeat(runs.len()))?;
    let mut kinds = vec![];
    let mut known = BTreeSet::new();
    for count in runs.iter().flat_map(|run| &run.requests) {
        let kind = (count.phase.as_str(), count.client.as_str(), count.request.as_str());
        if known.insert(kind) {
            kinds.push(kind);
        }
    }
    for (phase, client, request) in kinds {
        write!(out, "| {phase} | {client} | {request} |")?;
        for run in runs {
            let found = run.requests.iter().find(|one| {
                (one.phase.as_str(), one.client.as_str(), one.request.as_str()) == (phase, client, request)
            });
            write!(out, " {} |", found.map_or(0, |one| one.times))?;
        }
        out.push('\n');
    }
    out.push_str(
        "\nA phase without a line had no request: that is the goal of a settled minute and of an unrelated change.\n",
    );
    for run in runs {
        writeln!(
            out,
            "\n## Processes at {} nodes\n\n| program | settled MB | peak MB | CPU s | lists at start KB | binary MB |\n|---|--:|--:|--:|--:|--:|",
            run.nodes
        )?;
        for one in &run.processes {
            writeln!(
                out,
                "| {} | {:.1} | {:.1} | {:.2} | {:.0} | {:.1} |",
                one.name, one.settled_mb, one.peak_mb, one.cpu_seconds, one.listed_kb, one.binary_mb
            )?;
        }
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
