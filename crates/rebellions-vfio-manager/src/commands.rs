//! The commands for people, probes and init containers.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use tracing::info;

use crate::decide::Goal;
use crate::options::{Common, Once};
use crate::parallel::{Mode, run_all};
use crate::pass::Worker;
use crate::probe;
use crate::records::{Lock, LockHeld, Records};
use crate::report::{DeviceReport, Report};
use crate::step::Step;
use crate::stop::Stop;
use crate::verdict::State;

/// The time limit of commands that change nothing, the readiness probe included.
const LOOK: Duration = Duration::from_secs(3);
/// The time limit of commands that change devices; a device that takes longer is reported as stuck.
const ACT: Duration = Duration::from_mins(1);
/// How often a waiting command tries to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Why a command ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All NPUs are as they should be.
    Done = 0,
    /// Some are not.
    Pending = 3,
    /// There is no NPU.
    NoDevices = 4,
    /// Another process is at work on them.
    Locked = 5,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

impl Outcome {
    fn of(ready: bool, reason: &str) -> Self {
        match (ready, reason) {
            (true, _) => Self::Done,
            (false, "NoDevices") => Self::NoDevices,
            (false, _) => Self::Pending,
        }
    }
}

/// Shows where every NPU stands.
pub fn status(common: &Common, json: bool) -> anyhow::Result<Outcome> {
    let (report, _) = look(common)?;
    print(&if json { report.json() } else { format!("{}{}\n", report.table(), report.message) })?;
    Ok(Outcome::Done)
}

/// Prints one line about what is missing. With the address of an agent, asks the agent and reads nothing of the kernel.
pub fn check(common: &Common, json: bool, agent: Option<SocketAddr>) -> anyhow::Result<Outcome> {
    let Some(agent) = agent else {
        let (report, _) = look(common)?;
        print(&if json { report.json() } else { format!("{}\n", report.message) })?;
        return Ok(Outcome::of(report.ready, report.reason));
    };
    match probe::ask(agent, LOOK) {
        Ok((text, told)) => {
            print(&if json { text } else { format!("{}\n", told.message) })?;
            Ok(Outcome::of(told.ready, &told.reason))
        }
        Err(why) => {
            let report = Report::without_devices(Goal::Bind, "AgentNotReady", why);
            print(&if json { report.json() } else { format!("{}\n", report.message) })?;
            Ok(Outcome::Pending)
        }
    }
}

/// Brings every NPU to a goal, once.
pub fn once(common: &Common, goal: Goal, how: Once) -> anyhow::Result<Outcome> {
    let acted = act(common, goal, how, &Stop::listen()?)?;
    print(&acted.text)?;
    Ok(acted.outcome)
}

/// What a command did.
pub(crate) struct CommandResult {
    pub(crate) outcome: Outcome,
    /// For standard output.
    pub(crate) text: String,
    /// `None` when another process is at work.
    pub(crate) report: Option<Report>,
}

pub(crate) fn act(common: &Common, goal: Goal, how: Once, stop: &Stop) -> anyhow::Result<CommandResult> {
    let mut worker = common.worker();
    let _lock = if how.dry_run {
        None
    } else {
        match lock(&worker.records, Duration::from_secs(how.wait), stop)? {
            Ok(lock) => Some(lock),
            Err(why) => return Ok(CommandResult { outcome: Outcome::Locked, text: format!("{why}\n"), report: None }),
        }
    };
    if goal == Goal::Bind && !how.dry_run {
        load_vfio_pci(&mut worker, common);
    }
    let (mode, timeout) = if how.dry_run { (Mode::DryRun, LOOK) } else { (Mode::Act, ACT) };
    let records = worker.records.clone();
    let (report, steps) = run(worker, common, goal, mode, timeout)?;
    if !how.dry_run {
        records.publish(&report.json())?;
    }
    let outcome = Outcome::of(report.ready, report.reason);
    Ok(CommandResult { outcome, text: text(&report, &steps, how), report: Some(report) })
}

fn load_vfio_pci(worker: &mut Worker, common: &Common) {
    if worker.host.vfio_pci.is_err()
        && let Some(modules) = common.modules()
    {
        let loaded = modules.load();
        worker.host = worker.tree.host();
        if let Err(error) = loaded {
            worker.host.vfio_pci = Err(format!("{error:#}"));
        }
    }
}

fn text(report: &Report, steps: &[(String, Step)], how: Once) -> String {
    if how.json {
        return report.json();
    }
    let would = if how.dry_run { "would " } else { "" };
    let lines = steps.iter().filter(|(_, step)| *step != Step::CheckUsage);
    let lines: Vec<_> = lines.map(|(address, step)| format!("{address}: {would}{step}\n")).collect();
    let gap = if lines.is_empty() { "" } else { "\n" };
    format!("{}{gap}{}{}\n", lines.concat(), report.table(), report.message)
}

fn look(common: &Common) -> anyhow::Result<(Report, Vec<(String, Step)>)> {
    let worker = common.worker();
    let known = agent_document(&worker.records);
    let (mut report, steps) = run(worker, common, Goal::Bind, Mode::Look, LOOK)?;
    // Failed attempts of the agent are in its report only.
    for device in &mut report.devices {
        if let Some(known) = known.iter().find(|known| known.address == device.address.to_string()) {
            known.add_to(device);
        }
    }
    Ok((Report::new(Goal::Bind, report.devices, common.when_none), steps))
}

fn run(
    worker: Worker,
    common: &Common,
    goal: Goal,
    mode: Mode,
    timeout: Duration,
) -> anyhow::Result<(Report, Vec<(String, Step)>)> {
    let folder = worker.tree.sys.clone();
    run_all(&Arc::new(worker), goal, mode, common.when_none, timeout)
        .with_context(|| format!("could not list the PCI devices of {}", folder.display()))
}

/// What is read of the agent's document.
#[derive(Deserialize)]
struct Document {
    goal: String,
    devices: Vec<AgentDevice>,
}

#[derive(Deserialize)]
struct AgentDevice {
    address: String,
    state: String,
    reason: String,
    message: String,
}

impl AgentDevice {
    /// Adds the agent's message about a device to the report.
    fn add_to(&self, device: &mut DeviceReport) {
        let is_trouble = ["Failed", "Stuck", "Blocked", "Busy"].contains(&self.state.as_str());
        if self.state == format!("{:?}", device.state) && self.reason == format!("{:?}", device.reason) {
            device.message.clone_from(&self.message);
        } else if device.state == State::Unbound && is_trouble {
            let Self { state, reason, message, .. } = self;
            device.message = format!("{}; the agent says {state} ({reason}): {message}", device.message);
        }
    }
}

/// The devices of the agent's last report.
fn agent_document(records: &Records) -> Vec<AgentDevice> {
    let text = std::fs::read_to_string(records.document()).unwrap_or_default();
    let document = serde_json::from_str::<Document>(&text).ok().filter(|document| document.goal == "Bind");
    document.map(|document| document.devices).unwrap_or_default()
}

/// Waits for the lock, at the longest until the signal to stop.
fn lock(records: &Records, timeout: Duration, stop: &Stop) -> anyhow::Result<Result<Lock, LockHeld>> {
    let begun = Instant::now();
    let mut is_logged = false;
    loop {
        let taken = match records.lock()? {
            Ok(lock) => return Ok(Ok(lock)),
            Err(taken) => taken,
        };
        if begun.elapsed() >= timeout {
            return Ok(Err(taken));
        }
        if !std::mem::replace(&mut is_logged, true) {
            info!(err = %taken, "Waiting for the end of another process");
        }
        if stop.wait(LOCK_POLL) {
            return Ok(Err(taken));
        }
    }
}

/// Writes to standard output; a closed pipe is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("could not write"),
        _ => Ok(()),
    }
}
