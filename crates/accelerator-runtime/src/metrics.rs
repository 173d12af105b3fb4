//! The metrics of every controller: same names in all of them, so that one dashboard serves all. What is true of the
//! cluster's objects is not a controller's metric and is left to kube-state-metrics; what a controller itself says of the
//! AcceleratorConfig that counts is one, so that an alert needs nobody else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Label of a counter by result: `success`, `error`, …
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRequest {
    verb: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerb {
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVersion {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct ByCondition {
    condition: String,
    status: String,
    reason: String,
}

/// What is said of conditions, and whether this replica may say anything.
#[derive(Debug, Default)]
struct Told {
    leads: bool,
    conditions: BTreeSet<ByCondition>,
}

/// The metric families of one controller.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<ByResult, Counter>,
    reconcile_seconds: Histogram,
    applies: Family<ByResult, Counter>,
    requests: Family<ByRequest, Counter>,
    received_bytes: Family<ByVerb, Counter>,
    watch_errors: Family<ByKind, Counter>,
    store_differences: Family<ByKind, Counter>,
    events: Family<ByResult, Counter>,
    leadership: Family<ByState, Gauge>,
    conditions: Family<ByCondition, Gauge>,
    told: Arc<Mutex<Told>>,
}

impl Metrics {
    /// Registers the families, each with the label `controller`.
    pub(crate) fn register(registry: &mut Registry, controller: &'static str, version: &'static str) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            applies: Family::default(),
            requests: Family::default(),
            received_bytes: Family::default(),
            watch_errors: Family::default(),
            store_differences: Family::default(),
            events: Family::default(),
            leadership: Family::default(),
            conditions: Family::default(),
            told: Arc::default(),
        };
        let registry = registry.sub_registry_with_label(("controller".into(), controller.into()));
        let registry = registry.sub_registry_with_prefix("accelerator");
        registry.register("reconcile", "Reconciles by result (success, error)", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "Time of a reconcile", metrics.reconcile_seconds.clone());
        registry.register("apply", "Writes of what this controller owns, by result", metrics.applies.clone());
        registry.register("api_requests", "Requests to the API server by verb and HTTP code", metrics.requests.clone());
        let received = "Bytes of the API server's answers by verb, watches as they come";
        registry.register("api_received_bytes", received, metrics.received_bytes.clone());
        registry.register("watch_errors", "Watches that broke, by kind", metrics.watch_errors.clone());
        let differences = "Objects that were found known wrongly when compared with the API server, by kind; always 0";
        registry.register("store_differences", differences, metrics.store_differences.clone());
        registry.register("events", "Events by result (published, dropped, failed)", metrics.events.clone());
        let states =
            "1 for what this replica is: leader (may write), follower (another may) or candidate (none is known to)";
        registry.register("leadership", states, metrics.leadership.clone());
        let conditions = "1 for what this controller says of the AcceleratorConfig that counts; told by the leader";
        registry.register("config_condition", conditions, metrics.conditions.clone());
        let build = Family::<ByVersion, Gauge>::default();
        build.get_or_create(&ByVersion { version }).set(1);
        registry.register("build_info", "Always 1; the label tells the version", build);
        metrics
    }

    /// Counts a reconcile and the time that it took.
    pub fn reconciled(&self, success: bool, took: Duration) {
        self.reconciles.get_or_create(&ByResult { result: result(success) }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Counts a write of a DaemonSet or of a node's labels.
    pub fn applied(&self, success: bool) {
        self.applies.get_or_create(&ByResult { result: result(success) }).inc();
    }

    pub(crate) fn requested(&self, verb: &'static str, code: String) {
        self.requests.get_or_create(&ByRequest { verb, code }).inc();
    }

    /// Where the bytes of an answer are counted.
    pub(crate) fn received(&self, verb: &'static str) -> Counter {
        self.received_bytes.get_or_create_owned(&ByVerb { verb })
    }

    pub(crate) fn watch_failed(&self, kind: &str) {
        self.watch_errors.get_or_create(&ByKind { kind: kind.into() }).inc();
    }

    pub(crate) fn differed(&self, kind: &str, count: usize) {
        self.store_differences.get_or_create(&ByKind { kind: kind.into() }).inc_by(count as u64);
    }

    /// What this replica is. Without an election it leads.
    pub(crate) fn leading(&self, leads: bool, follows: bool) {
        for (state, holds) in [("leader", leads), ("follower", follows), ("candidate", !leads && !follows)] {
            self.leadership.get_or_create(&ByState { state }).set(holds.into());
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).leads = leads;
        if !leads {
            self.conditions(&[]);
        }
    }

    /// Tells these conditions in place of those that were told before. A replica that does not lead tells none.
    pub fn conditions<'a>(&self, conditions: impl IntoIterator<Item = &'a Condition>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = conditions.into_iter().filter(|_| told.leads).map(|one| ByCondition {
            condition: one.type_.clone(),
            status: one.status.clone(),
            reason: one.reason.clone(),
        });
        let now: BTreeSet<_> = now.collect();
        // First what is new, so that no scrape comes upon a condition that nobody tells.
        for one in now.difference(&told.conditions) {
            self.conditions.get_or_create(one).set(1);
        }
        for one in told.conditions.difference(&now) {
            self.conditions.remove(one);
        }
        told.conditions = now;
    }

    pub(crate) fn event(&self, result: &'static str) {
        self.events.get_or_create(&ByResult { result }).inc();
    }
}

fn result(success: bool) -> &'static str {
    if success { "success" } else { "error" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: &str, reason: &str) -> Condition {
        let (type_, status, reason) = (type_.into(), status.into(), reason.into());
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(accelerator_process::clock::now());
        let (message, observed_generation) = (String::new(), None);
        Condition { type_, status, reason, message, observed_generation, last_transition_time: now }
    }

    /// The lines of conditions, without what they have in common.
    fn told(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
        let prefix = "accelerator_config_condition{controller=\"x\",";
        let mut lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn conditions_are_told_by_the_leader_and_replace_those_before() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, "x", "1");
        let (accepted, ready) =
            (condition("Accepted", "True", "Active"), condition("Ready", "False", "ComponentsNotReady"));
        metrics.conditions([&accepted, &ready]);
        assert_eq!(told(&registry), [""; 0], "nobody leads yet");
        metrics.leading(true, false);
        metrics.conditions([&accepted, &ready]);
        let accepted_line = r#"condition="Accepted",status="True",reason="Active"} 1"#;
        assert_eq!(
            told(&registry),
            [accepted_line, r#"condition="Ready",status="False",reason="ComponentsNotReady"} 1"#]
        );
        metrics.conditions([&accepted, &condition("Ready", "True", "AllComponentsReady")]);
        assert_eq!(
            told(&registry),
            [accepted_line, r#"condition="Ready",status="True",reason="AllComponentsReady"} 1"#]
        );
        metrics.leading(false, true);
        assert_eq!(told(&registry), [""; 0], "another leads");
        metrics.conditions([&accepted]);
        assert_eq!(told(&registry), [""; 0], "a look that was under way when the lease went");
    }
}
