//! Metrics of driver upgrades, beside those that every controller has.

use accelerator_runtime::Runtime;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use std::sync::PoisonError;

use crate::upgrade::{Counts, State};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// The metric families of upgrades.
#[derive(Clone, Debug)]
pub struct UpgradeMetrics {
    nodes: Family<ByState, Gauge>,
    phases: Family<ByState, Histogram>,
    refused: Counter,
}

impl Default for UpgradeMetrics {
    fn default() -> Self {
        // From a second to an hour and a half.
        let histogram = || Histogram::new(exponential_buckets(1.0, 3.0, 9));
        Self { nodes: Family::default(), phases: Family::new_with_constructor(histogram), refused: Counter::default() }
    }
}

impl UpgradeMetrics {
    /// Families that are registered.
    #[must_use]
    pub fn register(runtime: &Runtime) -> Self {
        let metrics = Self::default();
        let mut registry = runtime.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let registry = registry.sub_registry_with_label(("controller".into(), runtime.program.name.into()));
        let registry = registry.sub_registry_with_prefix("accelerator_driver_upgrade");
        registry.register("nodes", "Nodes by state of their driver upgrade", metrics.nodes.clone());
        registry.register("phase_duration_seconds", "Time that nodes spent in a state", metrics.phases.clone());
        registry.register("evictions_refused", "Evictions that the API server refused", metrics.refused.clone());
        metrics
    }

    /// How many nodes are in which state now.
    pub fn nodes(&self, counts: &Counts) {
        let Counts { waiting, cordoned, evicted, restarting, validating, done, failed, skipped } = *counts;
        for (state, count) in [
            ("Waiting", waiting),
            ("Cordoned", cordoned),
            ("Evicted", evicted),
            ("Restarting", restarting),
            ("Validating", validating),
            ("Done", done),
            ("Failed", failed),
            ("Skipped", skipped),
        ] {
            self.nodes.get_or_create(&ByState { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Another replica leads, and tells.
    pub fn forget_nodes(&self) {
        self.nodes.clear();
    }

    /// A node has left a state after so many seconds.
    pub fn left(&self, state: State, seconds: f64) {
        self.phases.get_or_create(&ByState { state: state.as_str() }).observe(seconds);
    }

    /// An eviction was refused.
    pub fn eviction_refused(&self) {
        self.refused.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    /// Two replicas would count each node twice.
    #[test]
    fn who_leads_no_longer_tells_no_nodes() {
        let (metrics, mut registry) = (UpgradeMetrics::default(), Registry::default());
        registry.register("nodes", "Nodes", metrics.nodes.clone());
        let told = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).expect("text");
            text.lines().filter(|line| line.starts_with("nodes{")).count()
        };
        metrics.nodes(&Counts::default());
        assert_eq!(told(&registry), 8);
        metrics.forget_nodes();
        assert_eq!(told(&registry), 0);
    }
}
