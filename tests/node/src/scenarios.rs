//! What is tried. Each scenario has a control plane and nodes of its own on which nothing has run before.

mod causes;
mod controllers;
mod nodes;
mod npus;
mod readme;
mod virtual_node;

use futures::future::LocalBoxFuture;
use node_suite::World;

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Names of its nodes.
    pub nodes: &'static [&'static str],
    /// Why it fails today, if it does. A scenario that is expected to fail and passes fails the suite.
    pub fails_because: Option<&'static str>,
    /// What happens.
    pub run: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, anyhow::Result<()>>,
}

/// A scenario that passes, with its nodes.
macro_rules! scenario {
    ($name:literal, $nodes:expr, $run:path, $about:literal) => {
        scenario!($name, $nodes, $run, $about, None)
    };
    ($name:literal, $nodes:expr, $run:path, $about:literal, fails: $why:literal) => {
        scenario!($name, $nodes, $run, $about, Some($why))
    };
    ($name:literal, $nodes:expr, $run:path, $about:literal, $why:expr) => {
        Scenario { name: $name, about: $about, nodes: $nodes, fails_because: $why, run: |world| Box::pin($run(world)) }
    };
}

const NONE: &[&str] = &[];
const ONE: &[&str] = &["node-1"];
const TWO: &[&str] = &["node-1", "node-2"];
const FOUR: &[&str] = &["node-1", "node-2", "node-3", "node-4"];

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    scenario!("readme", TWO, readme::run, "install, use and removal, every command as the README has it"),
    scenario!(
        "restricted",
        ONE,
        controllers::restricted,
        "all six controllers under Pod Security restricted, and their memory"
    ),
    scenario!("upgrade", ONE, controllers::upgrade, "one controller goes to another tag and back, alone"),
    scenario!("ends", ONE, controllers::ends, "SIGTERM, SIGKILL and a hanging process of the leader"),
    scenario!("drain", TWO, nodes::drain, "a node is drained"),
    scenario!("reboot", TWO, nodes::reboot, "a node reboots"),
    scenario!("power-loss", TWO, nodes::power_loss, "the leader's node loses power"),
    scenario!("frozen-kubelet", TWO, nodes::frozen_kubelet, "a kubelet hangs and goes on"),
    scenario!("no-npus", ONE, npus::none, "the VFIO manager and give-back on a node without NPUs"),
    scenario!("blocked-npus", ONE, npus::blocked, "NPUs that cannot be bound, told through probe, event and condition"),
    scenario!("last-words", ONE, causes::last_words, "a program's last words, and a Warning"),
    scenario!("pulls", ONE, causes::pulls, "a registry that refuses, and one that lacks the image"),
    scenario!("mount", ONE, causes::mount, "a path of the host that is no folder"),
    scenario!("memory", ONE, causes::memory, "a container that runs out of memory"),
    scenario!("bad-version", FOUR, causes::bad_version, "a version that crashes a little later takes one pod, not all"),
    scenario!("dead-node", TWO, nodes::dead, "a dead node is told of as one"),
    scenario!("advice", TWO, causes::advice, "a pod that cannot be made is no old revision"),
    scenario!("driver-alone", ONE, causes::driver_alone, "the driver on a machine on which nothing has run before"),
    scenario!("plugin-first", ONE, causes::plugin_first, "a device plugin that starts before the driver"),
    scenario!("virtual-node", NONE, virtual_node::run, "NPUs behind an IOMMU go to virtual machines and come back"),
];
