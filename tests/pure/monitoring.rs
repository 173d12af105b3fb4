//! Alerts and dashboards: each alert is explained and tried, and what they ask for is documented.

use std::collections::BTreeSet;

use serde_json::Value;
use testbed::monitoring::{VENDOR, alerts, dashboards, expressions};
use testbed::promql::selectors;
use testbed::repository::root;

use crate::files::{read, yaml};

const GUIDE: &str = "docs/guides/monitoring.md";

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().expect("a name")
}

/// Whoever is woken by an alert follows its link.
#[test]
fn each_alert_leads_to_what_to_do() {
    let guide = read(&root().join(GUIDE));
    let alerts = alerts().expect("alerts");
    let sections: Vec<_> = guide.split("\n### ").skip(1).collect();
    let headings: BTreeSet<_> = sections.iter().filter_map(|section| section.lines().next()).collect();
    assert_eq!(headings, alerts.iter().map(name).collect(), "{GUIDE} has a section for each alert, and no other");
    assert_eq!(sections.len(), headings.len(), "each once");
    for alert in &alerts {
        let annotations = &alert["annotations"];
        let text = |key: &str| annotations[key].as_str().unwrap_or_else(|| panic!("{}: no {key}", name(alert)));
        let anchor = format!("/{GUIDE}#{}", name(alert).to_lowercase());
        assert!(text("runbook_url").ends_with(&anchor), "{}: {}", name(alert), text("runbook_url"));
        // promtool is asked about the summary alone.
        assert!(!text("description").contains("{{"), "{}: a description that nobody tries", name(alert));
        assert!(!text("summary").is_empty());
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["info", "warning", "critical"].contains(&severity), "{}: {severity}", name(alert));
        let section = sections.iter().find(|section| section.lines().next() == Some(name(alert)));
        let waits = alert["for"].as_str().map_or("at once".to_owned(), |time| format!("after {time}"));
        let told = format!("{severity}, {waits}");
        assert!(section.is_some_and(|section| section.contains(&told)), "{GUIDE}: {} is {told}", name(alert));
    }
}

#[test]
fn each_alert_is_tried_where_it_fires_and_where_it_does_not() {
    let tests = yaml(&root().join("tests/monitoring/alerts.yaml"));
    let cases: Vec<_> = tests["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().expect("cases"))
        .collect();
    let tried = |fires: bool| -> BTreeSet<_> {
        let fired = |case: &Value| case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        cases.iter().filter(|case| fired(case) == fires).filter_map(|case| case["alertname"].as_str()).collect()
    };
    let alerts = alerts().expect("alerts");
    let all: BTreeSet<_> = alerts.iter().map(name).collect();
    assert_eq!(tried(true), all);
    assert_eq!(tried(false), all);
}

#[test]
fn each_metric_that_is_asked_for_is_documented() {
    let pages = ["docs/reference/metrics.md", "docs/reference/vfio-manager.md", GUIDE];
    let text: String = pages.iter().map(|page| read(&root().join(page))).collect();
    for expression in expressions().expect("expressions") {
        let found = selectors(&expression.text);
        assert!(!found.is_empty(), "{}: no metric in {}", expression.place, expression.text);
        for metric in found.into_iter().map(|selector| selector.metric) {
            // Prometheus' own.
            let known = metric == "up" || text.contains(&format!("`{}`", metric.trim_end_matches("_bucket")));
            assert!(known, "{}: {metric} is in none of {pages:?}", expression.place);
        }
    }
}

#[test]
fn dashboards_have_names_of_their_own_and_use_every_metric_of_the_vendor() {
    let dashboards = dashboards().expect("dashboards");
    let mut used = String::new();
    for (file, dashboard) in &dashboards {
        let uid = dashboard["uid"].as_str().expect("a uid");
        assert_eq!(*file, format!("{uid}.json"));
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len(), "{file}: panels have an id each");
        used += &dashboard.to_string();
    }
    for metric in ["temperature", "power", "memory_used", "memory_total", "utilization", "health"] {
        assert!(used.contains(&format!("{VENDOR}npu_{metric}")), "{metric}");
    }
}
