//! What pods cost that are not ready, at each size.

use std::fmt::{Result, Write};

use super::tables::{heads, in_figures};
use crate::measure::{Run, Work};
use crate::phases::SETTLED;
use crate::unready::{FIRST_LOOK, MANY, MINUTE_AFTER, ONE};

const INTRODUCTION: &str = "\
Pods of one component that run and are not ready; at 100 nodes 50 instead of 500. The first look lasts until a node is named, and 20 s at\n\
least; in the minute after it nothing changes. What is received in
a settled minute answers the renewals of leases. The API server's processor time in a first look is also that of making the pods unready.\n\n";

type Figure = (&'static str, fn(&Work) -> f64);

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
const FIGURES: [Figure; 3] = [
    ("requests of ours", |work| work.requests as f64),
    ("received by us (KB)", |work| work.received_kb),
    ("processor time of the API server (s)", |work| work.cpu_of("kube-apiserver")),
];

pub fn unready(out: &mut String, runs: &[Run]) -> Result {
    write!(out, "\n## Pods that are not ready\n\n{INTRODUCTION}")?;
    writeln!(out, "| phase | figure |{}\n|---|---|{}", heads(runs), "--:|".repeat(runs.len()))?;
    let looks = [ONE, MANY].map(|what| [FIRST_LOOK, MINUTE_AFTER].map(|part| format!("{what}, {part}")));
    for phase in std::iter::once(SETTLED.to_owned()).chain(looks.into_iter().flatten()) {
        for (name, figure) in FIGURES {
            write!(out, "| {phase} | {name} |")?;
            for run in runs {
                write!(out, " {} |", in_figures(run.work(&phase).map_or(f64::NAN, figure)))?;
            }
            out.push('\n');
        }
    }
    Ok(())
}
