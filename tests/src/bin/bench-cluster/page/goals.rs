//! What figures there are, and what they are to be.

use crate::measure::Run;

/// A figure and what it is to be.
pub struct Goal {
    pub figure: &'static str,
    pub words: &'static str,
    pub meets: Option<fn(&Run, f64) -> bool>,
    /// Why it may miss.
    pub why: &'static str,
}

const fn figure(figure: &'static str) -> Goal {
    Goal { figure, words: "", meets: None, why: "" }
}

const fn goal(figure: &'static str, words: &'static str, meets: fn(&Run, f64) -> bool, why: &'static str) -> Goal {
    Goal { figure, words, meets: Some(meets), why }
}

/// Why a ratio of two times may miss its goal although we send hardly anything.
const SHORT: &str = "one run on a shared machine, and with few nodes the start is a large part of it: compare the requests, which are counted";

const CHANGED: &str = "somebody else changed the node meanwhile";

const PATCHES: Goal = goal("patches per node", "1", |_, value| value <= 1.0, "somebody else changed nodes meanwhile");
const LABELLING: Goal = goal(
    "labelling, ours to raw",
    "≤ 1.1",
    |_, value| value <= 1.1,
    "the API server also sends every change to node-labeler's watch, which the raw client's first run does without",
);
const NAMED: fn(&Run, f64) -> bool = |_, value| value <= 30.0;

pub const GOALS: [Goal; 19] = [
    PATCHES,
    LABELLING,
    figure("labelling by node-labeler (s)"),
    figure("labelling by a raw client (s)"),
    figure("processor time of node-labeler while labelling (s)"),
    goal("node patches when one joins, of node-labeler", "1", |_, value| value <= 1.0, CHANGED),
    goal("node patches when one joins, of the driver controller", "≤ 1: its pool", |_, value| value <= 1.0, CHANGED),
    goal("writes after restarts", "0", |_, value| value <= 0.0, "something changed during the restarts"),
    goal("settled memory, all six (MB)", "≤ 60 at 1,000", |run, value| run.nodes > 1000 || value <= 60.0, ""),
    goal("settled memory, node-labeler (MB)", "≤ 20 at 5,000", |_, value| value <= 20.0, ""),
    goal("settled memory, driver controller (MB)", "≤ 25 at 5,000", |_, value| value <= 25.0, ""),
    goal("growth over a thousand node changes, all six (MB)", "flat: ≤ 1", |_, value| value <= 1.0, ""),
    goal("one pod unready: until a node is named (s)", "≤ 30", NAMED, ""),
    goal("500 pods unready: until a node is named (s)", "≤ 30", NAMED, ""),
    goal("rollout, ours to kubectl", "≤ 1.1", |_, value| value <= 1.1, SHORT),
    goal("processor time of the API server in a rollout, ours to kubectl", "≤ 1.1", |_, value| value <= 1.1, SHORT),
    figure("rollout of ours (s)"),
    figure("rollout by kubectl apply (s)"),
    figure("deletion of the config, until nothing is left (s)"),
];

pub const LABELS_ONLY: [Goal; 7] = [
    PATCHES,
    LABELLING,
    figure("labelling by node-labeler (s)"),
    figure("labelling by a raw client (s)"),
    figure("processor time of node-labeler while labelling (s)"),
    figure("memory of node-labeler after labelling (MB)"),
    figure("most memory of node-labeler while labelling (MB)"),
];

pub const UPGRADES: [Goal; 14] = [
    goal(
        "upgrade, ours to its floor",
        "≤ 1.2",
        |_, value| value <= 1.2,
        "each node takes four more writes and two events than its floor, and two cores play API server, nodes and operator",
    ),
    figure("upgrade by us (s)"),
    figure("its floor (s)"),
    figure("its floor, before (s)"),
    figure("its floor, after (s)"),
    figure("upgrade, ours to the drivers' pods alone"),
    figure("drivers' pods alone (s)"),
    goal("writes to the node, per node", "≤ 6", |_, value| value <= 6.0, "somebody else changed nodes meanwhile"),
    goal("events per node", "≤ 3", |_, value| value <= 3.0, ""),
    figure("writes per node, all of ours"),
    figure("reads per node, watches included"),
    goal("most memory of the driver controller (MB)", "≤ 25 at 5,000", |_, value| value <= 25.0, ""),
    figure("processor time of ours (s)"),
    figure("first installation (s)"),
];

/// Measured on the same kind of test bed with 1,000 nodes on 2026-11-23, other machine load.
pub const PEERS: &str = "\
| | label all | writes per node | when one node joins | memory |\n|---|---|---|---|---|\n\
| raw Go client | 1.6-2.5 s | 1 | | |\n\
| rbln-npu-operator v0.3.0 | 7.0 s | 2 full updates | rewrites 646 other nodes | 129 MB |\n\
| NVIDIA gpu-operator | 108 s | | 240 writes, 2,000 reads | 474 MB |\n";
