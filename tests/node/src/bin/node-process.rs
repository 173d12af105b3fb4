//! A node's own processes. Started by the test bed, never by hand.

use std::path::Path;

use anyhow::bail;
use node_suite::node::{enter, init};
use node_suite::virtual_node::first_process;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [verb, spec] if verb == "launch" => init::launch(Path::new(spec)),
        [verb, spec] if verb == "init" => init::run(Path::new(spec)),
        [verb, pid, command @ ..] if verb == "enter" => enter::run(pid, command),
        [verb] if verb == "machine" => first_process::run(),
        [verb] if verb == "answer" => first_process::answer(),
        _ => bail!("usage: node-process launch SPEC | enter PID COMMAND..."),
    }
}
