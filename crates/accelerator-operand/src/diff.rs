//! Whether a live object still has everything that we want of it, and who took it away.

use accelerator_api::Quantity;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;
use serde_json::Value;

/// Where `live` lacks a field of `wanted` or has another value there; `None` when it has all of it. What `live` has beyond
/// that is somebody else's: a default that the server filled in, or a field that another manager added.
///
/// - Objects: field by field.
/// - Lists of objects (containers, variables, mounts, tolerations): every wanted item is covered by some live item, and
///   those in the same order; servers and other managers may add items anywhere.
/// - Lists of anything else (arguments, commands): equal.
/// - Amounts of resources: equal as amounts, because the server rewrites `0.5` as `500m`.
#[must_use]
pub fn difference(live: &Value, wanted: &Value) -> Option<String> {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().find_map(|(key, wanted)| {
            let below = match live.get(key) {
                Some(live) if matches!(key.as_str(), "limits" | "requests") => {
                    (!amounts_cover(live, wanted)).then(String::new)
                }
                Some(live) => difference(live, wanted),
                None => (!is_empty(wanted)).then(String::new),
            };
            below.map(|path| join(key, &path))
        }),
        (Value::Array(live), Value::Array(wanted)) if wanted.iter().all(Value::is_object) => {
            let mut rest = live.iter();
            let missing = wanted.iter().find(|wanted| !rest.any(|live| difference(live, wanted).is_none()))?;
            Some(item_difference(live, missing))
        }
        _ => (live != wanted).then(String::new),
    }
}

/// Where in a list an item is missing, as `[name]`, and what is different in it when there is one of its name.
fn item_difference(live: &[Value], missing: &Value) -> String {
    let Some(name) = missing["name"].as_str() else { return String::new() };
    let namesake = live.iter().find(|item| item["name"] == missing["name"]);
    join(&format!("[{name}]"), &namesake.and_then(|item| difference(item, missing)).unwrap_or_default())
}

fn join(key: &str, path: &str) -> String {
    let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("{key}{dot}{path}")
}

/// Who else wrote the object last, by its field manager; status does not count.
#[must_use]
pub fn last_other_writer<'a>(live: &'a DaemonSet, ours: &str) -> Option<&'a str> {
    let others = live.managed_fields().iter().filter(|entry| entry.subresource.is_none());
    let others = others.filter_map(|entry| Some((entry.time.as_ref()?.0, entry.manager.as_deref()?)));
    others.filter(|(_, manager)| *manager != ours).max().map(|(_, manager)| manager)
}

/// Nothing, as the server stores it: it drops empty texts, maps, lists and nulls.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn amounts_cover(live: &Value, wanted: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity(text.into()).millis());
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            live.get(key)
                .is_some_and(|live| live == wanted || (amount(live).is_some() && amount(live) == amount(wanted)))
        }),
        _ => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn covers(live: &Value, wanted: &Value) -> bool {
        difference(live, wanted).is_none()
    }

    #[test]
    fn a_difference_is_named_by_its_path() {
        let wanted =
            json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}], "args": ["-v"]}});
        let mut live = wanted.clone();
        live["spec"]["containers"][0]["env"][0]["value"] = json!("2");
        assert_eq!(difference(&live, &wanted).as_deref(), Some("spec.containers[a].env[X].value"));
        live["spec"]["containers"] = json!([]);
        assert_eq!(difference(&live, &wanted).as_deref(), Some("spec.containers[a]"));
        assert_eq!(
            difference(&json!({"spec": {"containers": wanted["spec"]["containers"]}}), &wanted).as_deref(),
            Some("spec.args")
        );
    }

    #[test]
    fn what_the_server_or_another_manager_added_is_no_difference() {
        let wanted = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}});
        let live = json!({"spec": {"dnsPolicy": "ClusterFirst", "containers": [
            {"name": "sidecar"},
            {"name": "a", "env": [{"name": "FOREIGN"}, {"name": "X", "value": "1"}], "terminationMessagePath": "/x"},
        ]}});
        assert!(covers(&live, &wanted));
    }

    #[test]
    fn a_changed_missing_or_reordered_field_is_a_difference() {
        let wanted = json!({"image": "a:1", "args": ["-v", "-x"], "items": [{"name": "p"}, {"name": "q"}]});
        let same = |change: Value| {
            let mut live = wanted.clone();
            live.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
            covers(&live, &wanted)
        };
        assert!(same(json!({})));
        assert!(!same(json!({"image": "a:2"})));
        assert!(!same(json!({"args": ["-x", "-v"]})));
        assert!(!same(json!({"args": ["-v", "-x", "-y"]})));
        assert!(!same(json!({"items": [{"name": "q"}, {"name": "p"}]})));
        assert!(!same(json!({"items": [{"name": "p"}]})));
        assert!(!covers(&json!({}), &wanted));
    }

    #[test]
    fn amounts_are_compared_as_amounts() {
        let live = json!({"limits": {"cpu": "500m", "memory": "200Mi"}});
        assert!(covers(&live, &json!({"limits": {"cpu": "0.5", "memory": "0.1953125Gi"}})));
        assert!(!covers(&live, &json!({"limits": {"cpu": "501m"}})));
        assert!(!covers(&live, &json!({"requests": {"cpu": "1"}})));
    }

    #[test]
    fn an_empty_field_that_the_server_dropped_is_no_difference() {
        assert!(covers(&json!({}), &json!({"emptyDir": {}, "list": [], "value": ""})));
        assert!(!covers(&json!({"value": "x"}), &json!({"value": ""})));
        assert!(!covers(&json!({}), &json!({"automountServiceAccountToken": false})));
    }
}
