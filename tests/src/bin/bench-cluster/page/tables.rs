//! The tables of the page.

use std::collections::BTreeSet;
use std::fmt::{Result, Write};

use super::goals::Goal;
use crate::measure::Run;

/// A row for each figure, a column for each run, and why goals are missed.
pub fn figures(out: &mut String, goals: &[Goal], runs: &[Run]) -> Result {
    writeln!(out, "| figure | goal |{}\n|---|---|{}", heads(runs), "--:|".repeat(runs.len()))?;
    let mut misses = vec![];
    for Goal { figure, words, meets, why } in goals {
        write!(out, "| {figure} | {words} |")?;
        for run in runs {
            let value = run.figure(figure);
            let is_miss = value.is_finite() && meets.is_some_and(|meets| !meets(run, value));
            write!(out, " {}{} |", in_figures(value), if is_miss { " **misses**" } else { "" })?;
            if is_miss {
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                misses.push(format!("- *{figure}* misses its goal at {}{why}.\n", run.title()));
            }
        }
        out.push('\n');
    }
    if !misses.is_empty() {
        out.push('\n');
        out.extend(misses);
    }
    Ok(())
}

/// What each phase of a run took.
pub fn work(out: &mut String, run: &Run) -> Result {
    writeln!(
        out,
        "\n## Work at {} nodes\n\n| phase | s | requests | received KB | CPU s of ours | of the API server | of etcd | of the rest |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|",
        run.nodes
    )?;
    for work in &run.work {
        writeln!(
            out,
            "| {} | {:.1} | {} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} |",
            work.phase,
            work.seconds,
            work.requests,
            work.received_kb,
            work.own_cpu,
            work.cpu_of("kube-apiserver"),
            work.cpu_of("etcd"),
            work.other_cpu()
        )?;
    }
    Ok(())
}

/// Requests by phase, client and kind.
pub fn requests(out: &mut String, runs: &[Run]) -> Result {
    out.push_str("\n## Requests\n\nOf all six programs, without the renewals of leases (one in 2 s each).\n\n");
    writeln!(out, "| phase | client | request |{}\n|---|---|---|{}", heads(runs), "--:|".repeat(runs.len()))?;
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
    Ok(())
}

/// What each of our programs takes.
pub fn processes(out: &mut String, run: &Run) -> Result {
    writeln!(
        out,
        "\n## Processes at {} nodes\n\n| program | settled MB | peak MB | CPU s | lists at start KB | binary MB |\n\
         |---|--:|--:|--:|--:|--:|",
        run.nodes
    )?;
    for one in &run.processes {
        writeln!(
            out,
            "| {} | {:.1} | {:.1} | {:.2} | {:.0} | {:.1} |",
            one.name, one.settled_mb, one.peak_mb, one.cpu_seconds, one.listed_kb, one.binary_mb
        )?;
    }
    Ok(())
}

/// A value; nothing when it was not measured.
pub fn in_figures(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { String::new() }
}

/// The heads of the columns of these runs.
pub fn heads(runs: &[Run]) -> String {
    runs.iter().fold(String::new(), |heads, run| heads + &format!(" {} |", run.title()))
}
