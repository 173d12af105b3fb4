//! Whether a write had its effect: a mutating admission policy may drop some of it, and the API server answers that all is well.

use kube::ResourceExt;
use serde_json::Value;

use crate::node::Node;

/// What of this merge patch is not so in the answer to it, for people.
pub(super) fn without_effect(patch: &Value, answer: &Node) -> Option<String> {
    let metadata = [("label", "labels", answer.labels()), ("annotation", "annotations", answer.annotations())];
    let mut dropped = metadata.into_iter().flat_map(|(kind, field, now)| {
        let wanted = patch["metadata"][field].as_object().into_iter().flatten();
        let dropped = wanted.filter(|(key, value)| now.get(*key).map(String::as_str) != value.as_str());
        dropped.map(move |(key, _)| format!("{kind} {key}"))
    });
    let cordon = patch.pointer("/spec/unschedulable").map(|value| *value == true);
    let cordon = cordon.filter(|wanted| *wanted != answer.is_unschedulable()).map(|_| "spec.unschedulable".to_owned());
    let what = dropped.next().or(cordon)?;
    Some(format!("its answer does not have {what} as it was written, as an admission policy may have it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_policy_drops_or_changes_is_found() {
        let patch = json!({
            "metadata": {"resourceVersion": "7", "labels": {"state": "Cordoned", "old": null}, "annotations": {"record": "r"}},
            "spec": {"unschedulable": true},
        });
        let found = |labels: Value, annotations: Value, unschedulable: bool| {
            let node = json!({"metadata": {"name": "n", "labels": labels, "annotations": annotations}, "spec": {"unschedulable": unschedulable}});
            let node: Node = serde_json::from_value(node).expect("a node");
            let text = without_effect(&patch, &node);
            text.map(|text| text.split(" as it").next().unwrap_or_default().replace("its answer does not have ", ""))
        };
        let (labels, record) = (json!({"state": "Cordoned", "other": "x"}), json!({"record": "r"}));
        assert_eq!(found(labels.clone(), record.clone(), true), None);
        for (labels, annotations, unschedulable, expected) in [
            (json!({}), record.clone(), true, "label state"),
            (json!({"state": "Other"}), record.clone(), true, "label state"),
            (json!({"state": "Cordoned", "old": "x"}), record.clone(), true, "label old"),
            (labels.clone(), json!(null), true, "annotation record"),
            (labels.clone(), record.clone(), false, "spec.unschedulable"),
        ] {
            assert_eq!(found(labels, annotations, unschedulable).as_deref(), Some(expected));
        }
    }
}
