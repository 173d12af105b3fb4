//! Upgrades of the driver, beside their floor and beside others'.

use std::fmt::{Result, Write};

use super::goals::UPGRADES;
use super::tables::figures;
use crate::measure::Run;

const INTRODUCTION: &str = "\
A run each, of simulated machines with 8 NPUs whose driver takes 2 s to load, without pods that use NPUs. The floor is the pods that an\n\
upgrade restarts, restarted in the same order by a raw client that does nothing else: the device plugin stops, the driver's pod is\n\
replaced, the device plugin starts, NPUs are allocatable; the first node alone, then as many at once. It is taken before and after.\n\
Below it are the drivers' pods alone: as many at once from the start, and the device plugin stays. A write to the node is counted\n\
whoever of ours sent it: driver controller and node-labeler.\n\n";

/// Of 200 nodes, 20 at once, on the same kind of test bed on 2026-11-23, other machine load.
const PEERS: &str = "\
| 200 nodes by 20, measured on 2026-11-23 | time | reads per node | writes per node | of these to the node | events per node | memory |\n\
|---|--:|--:|--:|--:|--:|--:|\n\
| NVIDIA gpu-operator v26.7 | 122 s | 135 | 257 | 11 | 8 | 180 MB |\n\
| rbln-npu-operator v0.3.0 | never: it stops with 20 nodes cordoned | | | | | 102 MB |\n";

pub fn upgrades(out: &mut String, runs: &[Run]) -> Result {
    if runs.is_empty() {
        return Ok(());
    }
    write!(out, "\n## Driver upgrades\n\n{INTRODUCTION}")?;
    figures(out, &UPGRADES, runs)?;
    write!(out, "\n{PEERS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_a_column_and_what_misses_its_goal_is_named() {
        let mut run = Run { upgrade: Some(20), ..Run::new(200, &[]) };
        assert_eq!(run.file(), "upgrade-200-20.json");
        run.set("upgrade, ours to its floor", 1.1);
        run.set("events per node", 4.0);
        let mut out = String::new();
        upgrades(&mut out, &[]).expect("text");
        assert_eq!(out, "");
        upgrades(&mut out, &[run]).expect("text");
        for line in [
            "| figure | goal | 200 nodes by 20 |",
            "| upgrade, ours to its floor | ≤ 1.2 | 1.10 |",
            "| events per node | ≤ 3 | 4.00 **misses** |",
            "- *events per node* misses its goal at 200 nodes by 20.",
        ] {
            assert!(out.lines().any(|one| one == line), "{line}\n{out}");
        }
    }
}
