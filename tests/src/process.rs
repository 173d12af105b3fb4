//! Processes that end when we do, however we end.
//!
//! Each of our processes is its own process group, so that Ctrl-C reaches us and not them. A reaper, one more process,
//! is told of each; its standard input closes when we are gone, be it by a panic or SIGKILL, and then it ends them all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::{control_group, programs};

/// A process of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it wrote.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program; its output goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = command.spawn().with_context(|| format!("could not start {}", command.get_program().display()))?;
        tell_reaper(&format!("+{}", child.id()))?;
        Ok(Self { child, log: log.into() })
    }

    /// Sends a signal; no error if the process is gone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end and waits so long; then kills it. Returns how it ended.
    pub fn stop(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// The end of its log, for error messages.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = tell_reaper(&format!("-{}", self.child.id()));
    }
}

/// A folder that goes when we do.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes one.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("accelerator-testbed-").tempdir()?;
        tell_reaper(&format!("/{}", folder.path().display()))?;
        Ok(Self(folder))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Tells the reaper, starting it first if need be.
pub(crate) fn tell_reaper(line: &str) -> anyhow::Result<()> {
    static REAPER: Mutex<Option<ChildStdin>> = Mutex::new(None);
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if reaper.is_none() {
        let mut command = Command::new(programs::own_binary("reaper")?);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn()?;
        *reaper = child.stdin.take();
    }
    let stdin = reaper.as_mut().context("the reaper has no standard input")?;
    writeln!(stdin, "{line}").context("the reaper is gone")
}

/// The reaper's `main`: remembers what it is told until its standard input closes, then kills and removes all of it.
/// Lines: `+PID`, `-PID`, `=` and a control group's absolute path, and a folder's absolute path.
pub fn watch_stdin_and_reap() {
    let mut pids = BTreeSet::new();
    let mut folders = BTreeSet::new();
    let mut groups = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.split_at_checked(1) {
            Some(("+", pid)) => drop(pid.parse::<i32>().map(|pid| pids.insert(pid))),
            Some(("-", pid)) => drop(pid.parse::<i32>().map(|pid| pids.remove(&pid))),
            Some(("=", group)) => drop(groups.insert(group.to_owned())),
            Some(("/", _)) => drop(folders.insert(line)),
            _ => {}
        }
    }
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
    for group in groups {
        control_group::remove(Path::new(&group));
    }
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
}
