//! Facts about the machine and about processes, from /proc.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

/// The machine that figures were taken on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub memory_gib: u64,
    pub kernel: String,
}

impl Machine {
    pub fn this() -> Self {
        let text = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kilobytes = field(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:");
        Self {
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kilobytes / 1024 / 1024,
            kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

/// What a process takes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Resident memory now, in MB.
    pub resident_mb: f64,
    /// The most that it ever was, in MB.
    pub peak_mb: f64,
    /// Processor time so far, in seconds.
    pub cpu_seconds: f64,
}

impl Usage {
    pub fn of(process: u32) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let megabytes = |kilobytes: u64| kilobytes as f64 * 1024.0 / 1e6;
        let status = read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let stat = read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Fields are counted after the name, which may contain spaces. 14 and 15 are user and system ticks of 10 ms.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        Self {
            resident_mb: megabytes(field(&status, "VmRSS:")),
            peak_mb: megabytes(field(&status, "VmHWM:")),
            cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
