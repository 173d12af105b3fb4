//! Whether a live object still has everything that we want of it.

use accelerator_api::Quantity;
use serde_json::Value;

/// Whether `live` has every field of `wanted` with an equal value. What `live` has beyond that is somebody else's: a
/// default that the server filled in, or a field that another manager added.
///
/// - Objects: field by field.
/// - Lists of objects (containers, variables, mounts, tolerations): every wanted item is covered by some live item, and
///   those in the same order; servers and other managers may add items anywhere.
/// - Lists of anything else (arguments, commands): equal.
/// - Amounts of resources: equal as amounts, because the server rewrites `0.5` as `500m`.
#[must_use]
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(live) if matches!(key.as_str(), "limits" | "requests") => amounts_cover(live, wanted),
            Some(live) => covers(live, wanted),
            None => is_empty(wanted),
        }),
        (Value::Array(live), Value::Array(wanted)) if wanted.iter().all(Value::is_object) => {
            let mut live = live.iter();
            wanted.iter().all(|wanted| live.any(|live| covers(live, wanted)))
        }
        _ => live == wanted,
    }
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
    let amount = |value: &Value| value.as_str().and_then(|text| Quantity(text.into()).nanos());
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            live.get(key)
                .is_some_and(|live| live == wanted || (amount(live).is_some() && amount(live) == amount(wanted)))
        }),
        _ => covers(live, wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
