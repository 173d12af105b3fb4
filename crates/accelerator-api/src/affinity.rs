//! Which nodes a component may run on, besides having its deploy label: with the field names of a pod, and the rules that the API
//! server has for them there.

use k8s_openapi::api::core::v1;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::LabelSet;
use crate::contract::{NOT_OURS_MESSAGE, not_ours};
use crate::label::LabelValue;
use crate::null::null_is_empty;

/// Which nodes pods may run on, as in a pod. Of a pod's affinity only what a DaemonSet looks at: required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Which nodes pods may run on, by labels of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
}

/// Which nodes pods may run on, by labels of nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAffinity {
    /// What a node must be like. Where a node is no longer, its pod ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

/// What a node must be like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Of these, one must be true of the node.
    #[schemars(length(min = 1, max = 16))]
    #[serde(deserialize_with = "null_is_empty")]
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

/// Requirements that must all be true of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm {
    /// Requirements of labels of the node, of which all must be met.
    #[schemars(length(min = 1, max = 16))]
    #[serde(deserialize_with = "null_is_empty")]
    pub match_expressions: Vec<NodeSelectorRequirement>,
}

/// A requirement of one label of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)")
    .message("values must be given with In and NotIn, and with nothing else").field_path(".values"))]
pub struct NodeSelectorRequirement {
    /// Key of the label.
    #[x_kube(validation = Rule::new("!format.qualifiedName().validate(self).hasValue()")
        .message("must be a qualified name, such as topology.kubernetes.io/zone"))]
    #[x_kube(validation = Rule::new(not_ours!("self")).message(NOT_OURS_MESSAGE))]
    #[schemars(length(max = 317))]
    pub key: String,
    /// `In` (the label has one of these values), `NotIn` (it has none of them, or is not there), `Exists` or `DoesNotExist`.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values, with `In` and `NotIn`.
    #[schemars(with = "Vec<LabelValue>", length(max = 64))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Affinity {
    /// The terms of which one must be true of a node; `None` when every node will do.
    fn terms(&self) -> Option<&[NodeSelectorTerm]> {
        let required = self.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
        // No list is what an applied list becomes that is taken away again.
        Some(required.node_selector_terms.as_slice()).filter(|terms| !terms.is_empty())
    }

    /// Whether a node with these labels will do.
    #[must_use]
    pub fn allows(&self, labels: &LabelSet) -> bool {
        let is_met = |term: &NodeSelectorTerm| {
            // As Kubernetes has it: a term without requirements is true of no node.
            !term.match_expressions.is_empty() && term.match_expressions.iter().all(|one| one.is_met(labels))
        };
        self.terms().is_none_or(|terms| terms.iter().any(is_met))
    }

    /// The same as a pod has it; `None` when every node will do.
    #[must_use]
    pub fn to_core(&self) -> Option<v1::Affinity> {
        let term = |term: &NodeSelectorTerm| {
            let expressions = term.match_expressions.iter().map(NodeSelectorRequirement::to_core).collect::<Vec<_>>();
            v1::NodeSelectorTerm {
                match_expressions: (!expressions.is_empty()).then_some(expressions),
                match_fields: None,
            }
        };
        let required = v1::NodeSelector { node_selector_terms: self.terms()?.iter().map(term).collect() };
        let node_affinity = Some(v1::NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..v1::NodeAffinity::default()
        });
        Some(v1::Affinity { node_affinity, ..v1::Affinity::default() })
    }
}

impl NodeSelectorRequirement {
    fn is_met(&self, labels: &LabelSet) -> bool {
        let has_one = || self.values.iter().any(|value| labels.contains(&self.key, value));
        match self.operator.as_str() {
            "In" => has_one(),
            "NotIn" => !has_one(),
            "Exists" => labels.contains_key(&self.key),
            "DoesNotExist" => !labels.contains_key(&self.key),
            _ => false,
        }
    }

    fn to_core(&self) -> v1::NodeSelectorRequirement {
        v1::NodeSelectorRequirement {
            key: self.key.clone(),
            operator: self.operator.clone(),
            values: (!self.values.is_empty()).then(|| self.values.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn affinity(terms: &Value) -> Affinity {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        serde_json::from_value(json!({"nodeAffinity": required})).expect("an affinity")
    }

    fn labels(labels: &Value) -> LabelSet {
        LabelSet::from(&serde_json::from_value::<BTreeMap<_, _>>(labels.clone()).expect("labels"))
    }

    #[test]
    fn a_node_is_judged_as_kubernetes_does() {
        let node = labels(&json!({"zone": "a", "empty": ""}));
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["b", "a"]), true),
            ("zone", "In", json!(["b"]), false),
            ("rack", "In", json!(["b"]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("zone", "NotIn", json!(["a"]), false),
            ("rack", "NotIn", json!(["a"]), true),
            ("empty", "Exists", json!([]), true),
            ("rack", "Exists", json!(null), false),
            ("rack", "DoesNotExist", json!([]), true),
            ("empty", "DoesNotExist", json!([]), false),
            ("zone", "Like", json!(["a"]), false),
        ] {
            let one = json!({"key": key, "operator": operator, "values": values});
            assert_eq!(affinity(&json!([{"matchExpressions": [one]}])).allows(&node), expected, "{one}");
        }
    }

    #[test]
    fn one_term_has_to_be_true_and_all_of_it() {
        let (zone, rack) = (json!({"key": "zone", "operator": "Exists"}), json!({"key": "rack", "operator": "Exists"}));
        let node = labels(&json!({"zone": "a"}));
        let allows = |terms: Value| affinity(&terms).allows(&node);
        assert!(allows(json!([{"matchExpressions": [rack]}, {"matchExpressions": [zone]}])));
        assert!(!allows(json!([{"matchExpressions": [rack, zone]}])));
        assert!(!allows(json!([{"matchExpressions": null}])), "no requirement, no node");
        assert!(allows(json!(null)), "no list");
        assert!(Affinity::default().allows(&node));
        assert_eq!((Affinity::default().to_core(), affinity(&json!(null)).to_core()), (None, None));
    }
}
