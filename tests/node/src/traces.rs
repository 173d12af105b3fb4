//! Whether anything is left on this machine after a cluster has ended, however it ended.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use accelerator_process::Signals;
use anyhow::ensure;
use node_suite::host::Traces;
use node_suite::{Software, World};
use rustix::process::{Pid, Signal, kill_process};
use testbed::say;

/// Its name among the scenarios.
pub const NAME: &str = "traces";

/// How long ends and starts may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Said when everything is up.
const UP: &str = "Ctrl-C ends it";

/// Keeps a cluster until it is told to end.
pub async fn hold(software: &Software, nodes: u8, virtual_node: bool, panic: bool) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let names: Vec<_> = (1..=nodes).map(|number| format!("node-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut world = tokio::select! {
        world = World::start(software, &[], &names) => world?,
        _ = signals.next() => return Ok(()),
    };
    if virtual_node {
        world.add_virtual_node("virtual-node", &[0x1250, 0x2130])?;
        for node in &world.virtual_nodes {
            node.ready(&world.cluster).await?;
            say(format!("{} is Ready", node.name));
        }
    }
    for node in &world.nodes {
        say(format!("{} is Ready at {}; its logs: {}", node.name, node.address(), node.log("kubelet").display()));
    }
    say(format!("export KUBECONFIG={}\n{UP}", world.cluster.kubeconfig.display()));
    assert!(!panic, "asked for");
    signals.next().await;
    Ok(())
}

/// Starts a cluster and ends it by Ctrl-C, by SIGKILL and by a panic; each time nothing may be left.
pub async fn nothing_is_left(software: &Software) -> anyhow::Result<bool> {
    let begun = Instant::now();
    let mut passed = true;
    let has_emulator = vm_suite::fetch::fetch(false)?.is_ok();
    for (how, signal) in [("Ctrl-C", Some(Signal::INT)), ("SIGKILL", Some(Signal::KILL)), ("a panic", None)] {
        let before = Traces::take(&software.root)?;
        // A machine that is emulated ends in the same way; once is enough.
        let mut child = start(signal.is_none(), signal == Some(Signal::KILL) && has_emulator)?;
        let begun = Instant::now();
        if let Some(signal) = signal {
            wait_until_up(&mut child).await?;
            let at_work = Traces::take(&software.root)?;
            ensure!(!at_work.differences(&before).is_empty(), "a cluster that leaves no trace while it is at work");
            kill_process(Pid::from_child(&child), signal)?;
        }
        while child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < PATIENCE, "it does not end by {how}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // After a kill, the reaper ends everything a moment later.
        let ended = Instant::now();
        let mut left = Traces::take(&software.root)?.differences(&before);
        while !left.is_empty() && ended.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            left = Traces::take(&software.root)?.differences(&before);
        }
        if !left.is_empty() {
            say(format!("{NAME}: FAILED: after {how} this is left:\n{}", left.join("\n")));
            passed = false;
        }
    }
    if passed {
        say(format!("{NAME}: passed, {:.1} s", begun.elapsed().as_secs_f32()));
    }
    Ok(passed)
}

fn start(panic: bool, virtual_node: bool) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--hold", "2"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let arguments = [("--panic", panic), ("--virtual-node", virtual_node)];
    command.args(arguments.iter().filter(|(_, is_wanted)| *is_wanted).map(|(name, _)| name));
    Ok(command.spawn()?)
}

async fn wait_until_up(child: &mut Child) -> anyhow::Result<()> {
    use std::io::{BufRead, BufReader};
    let errors = child.stderr.take().map(BufReader::new);
    let up = tokio::task::spawn_blocking(move || {
        errors.into_iter().flat_map(BufRead::lines).map_while(Result::ok).any(|line| line == UP)
    });
    ensure!(tokio::time::timeout(PATIENCE, up).await??, "the cluster did not start");
    Ok(())
}
