//! What is measured, as data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use testbed::audit::{Mark, Request};

use crate::machine::Machine;

/// One run of the benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub nodes: usize,
    pub machine: Machine,
    /// By name; seconds, ratios or megabytes, as the name says.
    pub figures: BTreeMap<String, f64>,
    /// Requests by phase, client, verb and resource. Leases apart.
    pub requests: Vec<Count>,
    pub processes: Vec<ProcessFigures>,
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
    #[serde(default)]
    pub listed_kb: f64,
}

impl Run {
    pub fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or(f64::NAN)
    }

    pub fn set(&mut self, name: &str, value: f64) {
        testbed::say(format!("  {name}: {value:.2}"));
        self.figures.insert(name.into(), value);
    }

    /// Counts what our programs asked since `mark`. Returns how many of it were writes.
    pub fn count(&mut self, phase: &str, mark: &Mark) -> anyhow::Result<usize> {
        let mut counts = BTreeMap::new();
        let ours = |request: &Request| request.is_ours() && request.resource != "leases";
        let requests: Vec<_> = mark.requests()?.into_iter().filter(ours).collect();
        for request in &requests {
            *counts.entry((request.user.clone(), format!("{} {}", request.verb, request.resource))).or_insert(0) += 1;
        }
        let writes = requests.iter().filter(|request| request.is_write()).count();
        testbed::say(format!("  {phase}: {} requests, {writes} of them writes", requests.len()));
        self.requests.extend(counts.into_iter().map(|((client, request), count)| Count {
            phase: phase.into(),
            client,
            request,
            times: count,
        }));
        Ok(writes)
    }
}

/// Seconds from the first of these requests to the end of the last.
pub fn span(requests: &[Request]) -> f64 {
    let begun = requests.iter().map(|request| request.begun).min().unwrap_or_default();
    let ended = requests.iter().map(|request| request.ended).max().unwrap_or_default();
    ended.duration_since(begun).as_secs_f64()
}
