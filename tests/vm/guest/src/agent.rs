//! The agent, in its container or as a command of the host.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::container;

/// Where the manifest has the agent report.
pub const DOCUMENT: &str = "/run/rebellions/vfio-manager/status.json";

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
}

/// A running container.
pub struct Agent {
    runtime: Child,
    log: String,
    environment: Vec<String>,
}

fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout) + &text(&output.stderr) }
}

/// Runs the program as somebody on the node would.
pub fn command(arguments: &[&str]) -> Said {
    run(Command::new("/program").args(arguments))
}

/// Where devices stand: `address state/reason on driver`, a text each.
pub fn status() -> Vec<String> {
    lines(&command(&["status", "--json"]).out)
}

/// What the agent's document says, likewise.
pub fn document() -> Vec<String> {
    lines(&fs::read_to_string(DOCUMENT).unwrap_or_default())
}

fn lines(json: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(json).unwrap_or_default();
    let text = |device: &Value, key: &str| device[key].as_str().unwrap_or("none").to_owned();
    let devices = report["devices"].as_array().cloned().unwrap_or_default();
    devices
        .iter()
        .map(|one| {
            let (address, state) = (text(one, "address"), text(one, "state"));
            format!("{address} {state}/{} on {}", text(one, "reason"), text(one, "driver"))
        })
        .collect()
}

impl Agent {
    /// Starts the manifest's container.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts the manifest's container with these beside its own variables, `NAME=VALUE` each.
    pub fn start_with(environment: &[&str]) -> Self {
        // What the one before said is not taken for what this one says.
        let _ = fs::remove_file(DOCUMENT);
        Self::launch(environment)
    }

    /// Starts one while another is at work.
    pub fn start_beside() -> Self {
        Self::launch(&[])
    }

    fn launch(environment: &[&str]) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let log = format!("/tmp/agent.{}.log", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let environment: Vec<_> = environment.iter().map(|one| (*one).to_owned()).collect();
        let mut runtime = Command::new("/proc/self/exe");
        runtime.args(["container", &log]).args(&environment);
        Self { runtime: runtime.spawn().expect("a container"), log, environment }
    }

    /// Process id of its first process, on the host.
    pub fn pid(&self) -> u32 {
        let begun = Instant::now();
        let children = format!("/proc/{0}/task/{0}/children", self.runtime.id());
        loop {
            let text = fs::read_to_string(&children).unwrap_or_default();
            match text.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
                Some(pid) => return pid,
                None if begun.elapsed() > Duration::from_secs(10) => panic!("no container: {}", self.said()),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends its first process a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a running agent");
    }

    /// Tells it to stop. Returns how it ended and how long that took. Before it has started, the kernel would not even
    /// deliver the signal to the first process of a PID namespace.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        while !self.said().contains("Started") {
            std::thread::sleep(Duration::from_millis(10));
        }
        let begun = Instant::now();
        self.signal(Signal::TERM);
        let status = self.runtime.wait().expect("it ends");
        (status.code(), begun.elapsed())
    }

    /// Ends it as the kernel would when memory runs out.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.runtime.wait().expect("it ends");
    }

    /// Runs the manifest's readiness probe in it.
    pub fn probe(&self) -> Said {
        let command = container::manifest().expect("a manifest").probe;
        self.exec(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a command in it.
    pub fn exec(&self, arguments: &[&str]) -> Said {
        let mut exec = Command::new("/proc/self/exe");
        exec.args(["exec", &self.pid().to_string(), &self.environment.join(",")]);
        run(exec.args(arguments))
    }

    /// A GET.
    pub fn get(&self, path: &str) -> String {
        run(Command::new("/proc/self/exe").args(["get", &self.pid().to_string(), path])).out
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.runtime.try_wait().ok().flatten().is_none() {
            self.kill();
        }
    }
}

/// A virtual machine with a device, or another user of one.
pub struct Machine(Child);

impl Machine {
    /// Opens a device and keeps it; `None` when that is refused.
    pub fn start(address: &str) -> Option<Self> {
        Self::launch("hold", address)
    }

    /// A program that opens a device node and has a child that inherits its descriptor.
    pub fn fork(node: &str) -> Self {
        Self::launch("fork", node).expect("a device node")
    }

    /// A program that keeps a device node open without a descriptor of it.
    pub fn hide(node: &str) -> Self {
        Self::launch("hide", node).expect("a device node")
    }

    fn launch(how: &str, what: &str) -> Option<Self> {
        use std::io::{BufRead, BufReader};
        let mut child =
            Command::new("/proc/self/exe").args([how, what]).stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        if line.trim() == "held" {
            return Some(Self(child));
        }
        let _ = child.wait();
        None
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
