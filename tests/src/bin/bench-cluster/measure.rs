//! What is measured, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use testbed::audit::Request;

use crate::machine::Machine;

/// One run of the benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub nodes: usize,
    /// Whether labelling is all that was measured.
    #[serde(default)]
    pub labels_only: bool,
    /// How many nodes at once, where an upgrade of the driver is all that was measured.
    #[serde(default)]
    pub upgrade: Option<usize>,
    /// Which components are rolled out.
    #[serde(default)]
    pub components: Vec<String>,
    pub machine: Machine,
    /// By name; seconds, ratios or megabytes, as the name says.
    pub figures: BTreeMap<String, f64>,
    /// What each phase took, in their order.
    #[serde(default)]
    pub work: Vec<Work>,
    /// Requests by phase, client, verb and resource. Leases apart.
    pub requests: Vec<Count>,
    pub processes: Vec<ProcessFigures>,
}

/// What a phase took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Work {
    pub phase: String,
    pub seconds: f64,
    /// Requests of our programs, renewals of leases apart.
    pub requests: usize,
    pub writes: usize,
    /// Bytes of the answers that our programs got, those of watches included, in KB.
    pub received_kb: f64,
    /// Processor seconds of our programs.
    pub own_cpu: f64,
    /// Processor seconds of each process of the control plane.
    pub cpu: BTreeMap<String, f64>,
}

/// So many requests of a kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Count {
    pub phase: String,
    pub client: String,
    pub request: String,
    pub times: usize,
}

/// One of the six programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessFigures {
    pub name: String,
    pub settled_mb: f64,
    pub peak_mb: f64,
    pub cpu_seconds: f64,
    pub binary_mb: f64,
    /// Bytes of all lists that it takes when it starts, in KB.
    pub listed_kb: f64,
}

impl Run {
    /// Of so many nodes with these components, on this machine; nothing is measured yet.
    pub fn new(nodes: usize, components: &[String]) -> Self {
        Self {
            nodes,
            labels_only: false,
            upgrade: None,
            components: components.to_vec(),
            machine: Machine::this(),
            figures: BTreeMap::new(),
            work: vec![],
            requests: vec![],
            processes: vec![],
        }
    }

    /// What tells it from others of its section.
    pub fn title(&self) -> String {
        let parallel = self.upgrade.map_or_else(String::new, |parallel| format!(" by {parallel}"));
        format!("{} nodes{parallel}", self.nodes)
    }

    /// Its file beside the page.
    pub fn file(&self) -> String {
        match (self.upgrade, self.labels_only) {
            (Some(parallel), _) => format!("upgrade-{}-{parallel}.json", self.nodes),
            (None, true) => format!("labels-{}.json", self.nodes),
            (None, false) => format!("{}.json", self.nodes),
        }
    }

    /// Requests of our programs in a phase: those that this is true of, by verb and resource.
    pub fn count(&self, phase: &str, is_meant: impl Fn(&str, &str) -> bool) -> usize {
        let counts = self.requests.iter().filter(|one| one.phase == phase);
        let meant = counts.filter(|one| one.request.split_once(' ').is_some_and(|(verb, what)| is_meant(verb, what)));
        meant.map(|one| one.times).sum()
    }

    pub fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or(f64::NAN)
    }

    pub fn set(&mut self, name: &str, value: f64) {
        testbed::say(format!("  {name}: {value:.2}"));
        self.figures.insert(name.into(), value);
    }

    pub fn work(&self, phase: &str) -> Option<&Work> {
        self.work.iter().find(|work| work.phase == phase)
    }
}

impl Work {
    pub fn cpu_of(&self, process: &str) -> f64 {
        self.cpu.get(process).copied().unwrap_or(f64::NAN)
    }

    /// Processor seconds of the control plane but for the API server and etcd: of what plays the nodes and of what makes
    /// and binds pods.
    pub fn other_cpu(&self) -> f64 {
        let others = self.cpu.iter().filter(|(name, _)| !matches!(name.as_str(), "kube-apiserver" | "etcd"));
        others.map(|(_, seconds)| seconds).sum()
    }
}

/// Seconds from the first of these requests to the end of the last.
pub fn span(requests: &[Request]) -> f64 {
    let begun = requests.iter().map(|request| request.begun).min().unwrap_or_default();
    let ended = requests.iter().map(|request| request.ended).max().unwrap_or_default();
    ended.duration_since(begun).as_secs_f64()
}
