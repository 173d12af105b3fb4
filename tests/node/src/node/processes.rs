//! The processes of a node, as this machine sees them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::Node;

/// A process of a node.
#[derive(Clone, Debug)]
pub struct NodeProcess {
    /// Its id on this machine.
    pub id: u32,
    /// The command that it was started with.
    pub command: String,
    /// Resident memory in kB.
    pub resident_kb: u64,
}

impl Node {
    /// Its processes whose command contains a text.
    pub fn processes(&self, text: &str) -> anyhow::Result<Vec<NodeProcess>> {
        let own = fs::read_link(format!("/proc/{}/ns/mnt", self.first_process()?))?;
        let mut found = vec![];
        for entry in fs::read_dir("/proc")? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let belongs = belongs(id, &own.to_string_lossy(), self);
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if belongs && command.contains(text) {
                found.push(NodeProcess { id, command, resident_kb: resident(id) });
            }
        }
        Ok(found)
    }

    /// Sends a signal to the processes whose command contains a text. Returns how many there were.
    pub fn signal(&self, text: &str, signal: Signal) -> anyhow::Result<usize> {
        let processes = self.processes(text)?;
        for process in &processes {
            if let Some(pid) = i32::try_from(process.id).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
        Ok(processes.len())
    }

    /// Stops every process of it, as a machine that hangs. It goes on with [`Node::thaw`].
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal("", Signal::STOP).map(drop)
    }

    /// The reverse of [`Node::freeze`].
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal("", Signal::CONT).map(drop)
    }
}

/// Whether a process descends from the node's first one: containers have namespaces of their own, but their parents lead
/// there.
fn belongs(id: u32, namespace: &str, node: &Node) -> bool {
    let first = node.first_process().unwrap_or(0);
    let mut id = id;
    while id > 1 {
        if id == first
            || fs::read_link(format!("/proc/{id}/ns/mnt")).is_ok_and(|its| its.to_string_lossy() == namespace)
        {
            return true;
        }
        id = parent(id).unwrap_or(0);
    }
    false
}

fn parent(id: u32) -> Option<u32> {
    field(id, "PPid:")
}

fn resident(id: u32) -> u64 {
    field(id, "VmRSS:").unwrap_or(0)
}

fn field<T: std::str::FromStr>(id: u32, name: &str) -> Option<T> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
