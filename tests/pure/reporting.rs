//! What a component controller says in the status.

use std::collections::BTreeSet;
use std::sync::Arc;

use accelerator_api::{AcceleratorConfigStatus, Reason};
use accelerator_operand::{Observation, Outcome, Report, ReportContext, combine, report};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

static OPERAND: &accelerator_operand::Operand = &rebellions_metric_exporter_controller::OPERAND;

fn say(outcome: &Outcome, previous: &AcceleratorConfigStatus, second: i64) -> Report {
    let daemon_set: DaemonSet = serde_json::from_value(json!({
        "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "main", "image": "i:1"}, {"name": "b"}]}}},
        "status": {"desiredNumberScheduled": 5, "updatedNumberScheduled": 4, "numberReady": 3, "numberAvailable": 2,
                   "currentNumberScheduled": 5, "numberMisscheduled": 0},
    }))
    .expect("a DaemonSet");
    let now = Timestamp::from_second(second).expect("a time");
    let (component, generation) = (OPERAND.component, Some(7));
    let context = ReportContext { component, previous, generation, controller_version: "0.1.0", now };
    report(context, outcome, &[Arc::new(daemon_set)])
}

fn observed(reason: Reason, message: &str) -> Outcome {
    Outcome::Observed(Observation { reason, message: message.into(), needs_attention: false })
}

#[test]
fn the_entry_has_the_counts_and_the_condition_the_reason() {
    let report = say(&observed(Reason::RolloutInProgress, "4 of 5"), &AcceleratorConfigStatus::default(), 1);
    let entry = &report.entry;
    assert_eq!((entry.desired, entry.updated, entry.ready, entry.available), (5, 4, 3, 2));
    assert_eq!((entry.name.as_str(), entry.image.as_str()), ("rebellions-metric-exporter", "i:1"));
    assert_eq!(entry.message, "4 of 5");
    let condition = &report.condition;
    assert_eq!(condition.type_, "RebellionsMetricExporterReady");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "RolloutInProgress"));
    assert_eq!(condition.observed_generation, Some(7));
}

#[test]
fn what_is_ready_has_nothing_to_say() {
    let report = say(&observed(Reason::Ready, "5 of 5"), &AcceleratorConfigStatus::default(), 1);
    assert_eq!(report.entry.message, "");
    assert_eq!(report.condition.message, "5 of 5");
}

#[test]
fn a_disabled_component_counts_nothing_even_while_its_last_pods_go() {
    let report = say(&Outcome::Disabled("off".into()), &AcceleratorConfigStatus::default(), 1);
    assert_eq!((report.entry.desired, report.entry.ready, report.entry.image.as_str()), (0, 0, ""));
    assert_eq!(report.condition.reason, "Disabled");
}

/// Or every look at a settled cluster would be a write.
#[test]
fn the_same_said_later_is_the_same_report() {
    let outcome = observed(Reason::Ready, "5 of 5");
    let first = say(&outcome, &AcceleratorConfigStatus::default(), 1);
    let status = AcceleratorConfigStatus {
        components: vec![first.entry.clone()],
        conditions: vec![first.condition.clone()],
        ..AcceleratorConfigStatus::default()
    };
    assert_eq!(say(&outcome, &status, 1000), first);
}

/// Alerts and `kubectl wait` name them.
#[test]
fn reasons_are_distinct_words_that_the_api_takes() {
    let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for name in names {
        assert!(name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric), "{name}");
    }
}

#[test]
fn several_daemon_sets_are_told_by_the_worst_of_them() {
    let named = |name: &str, outcome| (name.to_owned(), outcome);
    let ready = || Some(observed(Reason::Ready, "ready on 2 of 2 nodes"));
    let starting = || Some(observed(Reason::RolloutInProgress, "a pod on 1 of 2 nodes"));
    let failing = || Some(observed(Reason::PodsNotReady, "ready on 0 of 2 nodes"));
    let combined = |outcomes| combine(outcomes, Observation::default());

    assert_eq!(combined(vec![named("a", starting())]), starting(), "the only one speaks for itself");
    assert_eq!(combined(vec![]), Some(Outcome::Observed(Observation::default())));
    assert_eq!(
        combined(vec![named("a", ready()), named("b", starting()), named("c", failing())]),
        Some(observed(Reason::PodsNotReady, "c: ready on 0 of 2 nodes; 2 of 3 pools are not ready"))
    );
    assert_eq!(
        combined(vec![named("a", ready()), named("b", starting())]),
        Some(observed(Reason::RolloutInProgress, "b: a pod on 1 of 2 nodes"))
    );
    assert_eq!(
        combined(vec![named("a", ready()), named("b", ready())]),
        Some(observed(Reason::Ready, "2 pools are ready"))
    );
    let refused = Outcome::Refused(Reason::ApplyFailed, "no".into());
    assert_eq!(
        combined(vec![named("a", failing()), named("b", Some(refused))]),
        Some(Outcome::Refused(Reason::ApplyFailed, "b: no; 2 of 2 pools are not ready".into()))
    );
    assert_eq!(combined(vec![named("a", ready()), named("b", None)]), None, "b has not been looked at yet");
    assert_eq!(
        combined(vec![named("a", failing()), named("b", None)]),
        Some(observed(Reason::PodsNotReady, "a: ready on 0 of 2 nodes")),
        "what is known to be wrong is told"
    );
}
