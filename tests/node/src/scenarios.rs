//! What is tried. Each scenario has a control plane and nodes of its own on which nothing has run before.

mod readme;

use futures::future::BoxFuture;
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
    pub run: for<'a> fn(&'a mut World) -> BoxFuture<'a, anyhow::Result<()>>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "readme",
    about: "install, use and removal, every command as the README has it",
    nodes: &["node-1", "node-2"],
    fails_because: None,
    run: |world| Box::pin(readme::run(world)),
}];
