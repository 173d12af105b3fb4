//! What `deploy/components/monitoring` asks Prometheus.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::Value;

use crate::repository;

/// The folder of the component's objects.
#[must_use]
pub fn folder() -> PathBuf {
    repository::root().join("deploy/components/monitoring/objects")
}

/// What begins the names of the vendor's metrics, which none of our programs has.
pub const VENDOR: &str = "rbln_";

/// An expression, and where it is used.
#[derive(Clone, Debug)]
pub struct Expression {
    /// For people.
    pub place: String,
    /// As Prometheus gets it.
    pub text: String,
}

/// The groups of alerts.
pub fn groups() -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(folder().join("alerts.yaml"))?;
    let rule: Value = serde_saphyr::from_str(&text)?;
    Ok(rule["spec"]["groups"].clone())
}

/// The alerts.
pub fn alerts() -> anyhow::Result<Vec<Value>> {
    let groups = groups()?;
    let rules = groups.as_array().context("no groups")?.iter().filter_map(|group| group["rules"].as_array());
    Ok(rules.flatten().cloned().collect())
}

/// The dashboards, by their files' names.
pub fn dashboards() -> anyhow::Result<Vec<(String, Value)>> {
    let entries = std::fs::read_dir(folder().join("dashboards"))?;
    let each = entries.map(|entry| {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        Ok((name, serde_json::from_str(&std::fs::read_to_string(&path)?)?))
    });
    each.collect()
}

/// Every expression of alerts and dashboards.
pub fn expressions() -> anyhow::Result<Vec<Expression>> {
    let of_alert = |alert: &Value| {
        let text = alert["expr"].as_str().unwrap_or_default().to_owned();
        Expression { place: alert["alert"].as_str().unwrap_or_default().to_owned(), text }
    };
    let mut all: Vec<_> = alerts()?.iter().map(of_alert).collect();
    for (name, dashboard) in dashboards()? {
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = concrete(target["expr"].as_str().context("a target without an expression")?);
                all.push(Expression { place: format!("{name}: {}", panel["title"]), text });
            }
        }
        for variable in dashboard["templating"]["list"].as_array().context("no variables")? {
            let values = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values("));
            if let Some((metric, label)) = values.and_then(|text| text.strip_suffix(')')?.rsplit_once(',')) {
                let text = format!("count by ({}) ({metric})", label.trim());
                all.push(Expression { place: format!("{name}: {}", variable["name"]), text });
            }
        }
    }
    Ok(all)
}

/// As Grafana puts its variables in.
fn concrete(expression: &str) -> String {
    expression.replace("$__rate_interval", "5m").replace("\"$controller\"", "\".*\"").replace("\"$node\"", "\".*\"")
}
