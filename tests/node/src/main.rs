//! Tries the operator on real nodes, as an admin would. Everything that it needs beyond Rust and Go comes from the package
//! registry that the machine's apt uses, unpacked beside the system and not installed.

mod scenarios;
mod traces;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use futures::FutureExt;
use node_suite::{Skipped, Software, World, images};
use testbed::{Folder, say};

use crate::scenarios::{SCENARIOS, Scenario};

/// What a run ends with when it could not be made: neither a success nor a failure. Source: the convention of Automake.
const SKIPPED: u8 = 77;

/// Tries the operator on real nodes: kubelet, containerd and real pods
#[derive(Parser)]
struct Options {
    /// Run only scenarios whose name contains this
    filter: Option<String>,

    /// List the scenarios
    #[arg(long)]
    list: bool,

    /// Start an empty cluster with so many nodes, print how to reach it, and keep it until Ctrl-C
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u8).range(1..=4))]
    hold: Option<u8>,

    /// With --hold: one node more, a virtual machine with two NPUs
    #[arg(long, requires = "hold")]
    virtual_node: bool,

    /// With --hold: end by a panic as soon as everything is up
    #[arg(long, hide = true)]
    panic: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.list {
        for one in SCENARIOS {
            say(format!("{}: {}", one.name, one.about));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let begun = Instant::now();
    let software = match tokio::task::spawn_blocking(Software::get).await?? {
        Ok(software) => software,
        Err(reason) => {
            say(format!("SKIPPED: {reason}"));
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    if let Some(nodes) = options.hold {
        return traces::hold(&software, nodes, options.virtual_node, options.panic).await.map(|()| ExitCode::SUCCESS);
    }
    say(format!("Kubelet, {} are there after {} s.", software.versions(), begun.elapsed().as_secs()));
    let folder = Folder::new()?;
    let archives = images::archives(folder.path())?;
    say(format!("Images are there after {} s.", begun.elapsed().as_secs()));

    let is_chosen = |name: &str| options.filter.as_ref().is_none_or(|text| name.contains(text));
    let chosen: Vec<_> = SCENARIOS.iter().filter(|one| is_chosen(one.name)).collect();
    anyhow::ensure!(!chosen.is_empty() || is_chosen(traces::NAME), "no scenario has such a name; see --list");
    let (mut failed, mut skipped) = (vec![], vec![]);
    for scenario in &chosen {
        match run(scenario, &software, &archives).await? {
            Verdict::AsExpected => {}
            Verdict::Failed => failed.push(scenario.name),
            Verdict::Skipped => skipped.push(scenario.name),
        }
    }
    if is_chosen(traces::NAME) && !traces::nothing_is_left(&software).await? {
        failed.push(traces::NAME);
    }
    let seconds = begun.elapsed().as_secs();
    if failed.is_empty() && !skipped.is_empty() {
        say(format!("SKIPPED: {}; all others ended as expected, {seconds} s in all.", skipped.join(", ")));
        return Ok(ExitCode::from(SKIPPED));
    }
    if failed.is_empty() {
        say(format!("All scenarios ended as expected, {seconds} s in all."));
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("FAILED: {}; {seconds} s in all.", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// How a scenario ended.
enum Verdict {
    AsExpected,
    Failed,
    /// This machine cannot run it.
    Skipped,
}

/// Runs one scenario on a cluster of its own.
async fn run(scenario: &Scenario, software: &Software, archives: &[PathBuf]) -> anyhow::Result<Verdict> {
    let begun = Instant::now();
    let mut world = World::start(software, archives, scenario.nodes).await?;
    let outcome = AssertUnwindSafe((scenario.run)(&mut world)).catch_unwind().await;
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) if error.is::<Skipped>() => {
            say(format!("{}: SKIPPED: {error}", scenario.name));
            return Ok(Verdict::Skipped);
        }
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(words_of(panic.as_ref())),
    };
    let seconds = begun.elapsed().as_secs_f32();
    let (name, as_expected) = (scenario.name, failure.is_some() == scenario.fails_because.is_some());
    match (&failure, scenario.fails_because) {
        (None, None) => say(format!("{name}: passed, {seconds:.1} s")),
        (Some(_), Some(why)) => say(format!("{name}: fails as expected ({why}), {seconds:.1} s")),
        (None, Some(why)) => {
            say(format!("{name}: PASSED, but is marked as failing because {why}; remove the mark, {seconds:.1} s"));
        }
        (Some(failure), None) => {
            let kept = kept_logs(name)?;
            say(format!("{name}: FAILED, {seconds:.1} s\n{failure}\nLogs, objects and events: {}", kept.display()));
            world.keep(&kept)?;
        }
    }
    Ok(if as_expected { Verdict::AsExpected } else { Verdict::Failed })
}

/// What a panic says.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}

/// An empty folder for what a scenario leaves to look at, below Cargo's target folder.
fn kept_logs(scenario: &str) -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let target = executable.ancestors().nth(2).unwrap_or(Path::new("."));
    let folder = target.join("node-suite").join(scenario);
    let _ = std::fs::remove_dir_all(&folder);
    Ok(folder)
}
