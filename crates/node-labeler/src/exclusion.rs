//! Why a node that is assigned is not counted by a DaemonSet: it is not ready, has a taint that the pods do not tolerate, or
//! lacks a label that the component's settings ask for.

use accelerator_api::contract::{COMPONENTS, Component, NPU_TAINT};
use accelerator_api::{ComponentSpec, LabelSet, Rebellions, Toleration};
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use crate::view::PerComponent;

/// A node that a DaemonSet does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// Its name.
    pub node: String,
    /// What keeps each component's pods off; `None` for one that is not assigned, or that nothing keeps off.
    pub why: PerComponent<Option<Exclusion>>,
}

/// What keeps pods off a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// Kubernetes calls it not ready.
    NotReady,
    /// A taint that the pods do not tolerate, as `key=value:effect`.
    Taint(String),
    /// A setting that its labels do not match, and what that asks for: `devicePlugin.nodeSelector: zone=a`.
    Setting(String),
}

impl Exclusion {
    /// The node and why, for people.
    #[must_use]
    pub fn describe(&self, node: &str) -> String {
        match self {
            Self::NotReady => format!("{node} (the node is not ready)"),
            Self::Taint(taint) => format!("{node} (its pods do not tolerate the taint {taint})"),
            Self::Setting(setting) => format!("{node} (its labels do not match {setting})"),
        }
    }
}

/// What a component's settings keep its pods off of a node with these labels for.
#[must_use]
pub fn by_setting(component: &Component, section: &ComponentSpec, labels: &LabelSet) -> Option<Exclusion> {
    let name = component.path.rsplit('.').next().unwrap_or_default();
    Some(Exclusion::Setting(format!("{name}.{}", section.rejection(labels)?)))
}

/// When the taints of a node were last changed; `None` if it has none. The API server keeps it in the metadata.
#[must_use]
pub fn tainted_at(meta: &ObjectMeta) -> Option<Timestamp> {
    let entries = meta.managed_fields.iter().flatten();
    let of_taints = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:spec"]);
        fields.is_some_and(|spec| spec.get("f:taints").is_some())
    });
    of_taints.filter_map(|entry| Some(entry.time.as_ref()?.0)).max()
}

/// What every operand tolerates without being asked: its manifests, and what the DaemonSet controller adds.
/// Source: `AddOrUpdateDaemonPodTolerations` of Kubernetes.
const TOLERATED: [(&str, &str); 7] = [
    (NPU_TAINT, "NoSchedule"),
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What every component's pods tolerate besides what they always do.
#[must_use]
pub fn tolerations(rebellions: &Rebellions) -> PerComponent<Vec<Toleration>> {
    let common = rebellions.daemonsets.as_ref().map(|common| common.tolerations.as_slice()).unwrap_or_default();
    COMPONENTS.map(|component| {
        let own = (component.section)(rebellions).map(|section| section.tolerations.as_slice()).unwrap_or_default();
        [common, own].concat()
    })
}

/// What keeps pods with these tolerations, besides the ones that they always have, off a node.
#[must_use]
pub fn exclusion(node: &Node, tolerations: &[Toleration]) -> Option<Exclusion> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut refused = taints.filter(|taint| is_hard(taint) && !is_tolerated(taint, tolerations));
    let first = refused.next()?;
    let is_lost =
        |taint: &Taint| matches!(taint.key.as_str(), "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable");
    // A taint that somebody set keeps pods off when the node is ready again.
    match [first].into_iter().chain(refused).find(|taint| !is_lost(taint)) {
        Some(taint) => Some(Exclusion::Taint(words(taint))),
        None => Some(Exclusion::NotReady),
    }
}

fn is_hard(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
}

fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    TOLERATED.contains(&(taint.key.as_str(), taint.effect.as_str()))
        || tolerations.iter().any(|one| {
            let is_about = one.key == taint.key || (one.key.is_empty() && one.operator == "Exists");
            let has_effect = one.effect.is_empty() || one.effect == taint.effect;
            is_about && has_effect && (one.operator == "Exists" || one.value == value)
        })
}

/// As `kubectl describe node` writes it.
fn words(taint: &Taint) -> String {
    match taint.value.as_deref() {
        None | Some("") => format!("{}:{}", taint.key, taint.effect),
        Some(value) => format!("{}={value}:{}", taint.key, taint.effect),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn excluded(taints: &[(&str, &str, &str)], tolerations: &serde_json::Value) -> Option<String> {
        let taint = |(key, value, effect): &(&str, &str, &str)| json!({"key": key, "value": value, "effect": effect});
        let taints: Vec<_> = taints.iter().map(taint).collect();
        let node = serde_json::from_value(json!({"metadata": {}, "spec": {"taints": taints}})).expect("a node");
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations.clone()).expect("tolerations");
        Some(exclusion(&node, &tolerations)?.describe("n"))
    }

    #[test]
    fn a_taint_that_is_not_tolerated_is_named() {
        let none = json!([]);
        let team = ("example.com/team", "a", "NoSchedule");
        let words = Some("n (its pods do not tolerate the taint example.com/team=a:NoSchedule)".to_owned());
        assert_eq!(excluded(&[("rebellions.ai/npu", "", "NoSchedule"), team], &none), words);
        assert_eq!(excluded(&[("example.com/team", "a", "PreferNoSchedule")], &none), None);
        let npu = excluded(&[("rebellions.ai/npu", "", "NoExecute")], &none);
        assert_eq!(npu.as_deref(), Some("n (its pods do not tolerate the taint rebellions.ai/npu:NoExecute)"));
        assert_eq!(excluded(&[("node.kubernetes.io/unschedulable", "", "NoSchedule")], &none), None, "cordoned");
        for (tolerations, is_tolerated) in [
            (json!([{"operator": "Exists"}]), true),
            (json!([{"key": "example.com/team", "operator": "Exists"}]), true),
            (json!([{"key": "example.com/team", "value": "a"}]), true),
            (json!([{"key": "example.com/team", "operator": "Equal", "value": "b"}]), false),
            (json!([{"key": "example.com/team", "operator": "Exists", "effect": "NoExecute"}]), false),
            (json!([{"key": "example.com/other", "operator": "Exists"}]), false),
        ] {
            assert_eq!(excluded(&[team], &tolerations).is_none(), is_tolerated, "{tolerations}");
        }
    }

    #[test]
    fn a_node_that_does_not_answer_is_not_ready_unless_a_taint_of_somebody_keeps_pods_off_too() {
        let lost =
            [("node.kubernetes.io/unreachable", "", "NoSchedule"), ("node.kubernetes.io/unreachable", "", "NoExecute")];
        assert_eq!(excluded(&lost, &json!([])).as_deref(), Some("n (the node is not ready)"));
        assert_eq!(excluded(&lost[1..], &json!([])), None, "the DaemonSet still counts it");
        let both = [lost[0], ("a", "b", "NoExecute")];
        let words = "n (its pods do not tolerate the taint a=b:NoExecute)";
        assert_eq!(excluded(&both, &json!([])).as_deref(), Some(words));
    }

    #[test]
    fn a_component_tolerates_what_all_do_and_what_it_alone_does() {
        let rebellions = json!({"daemonsets": {"tolerations": [{"key": "all", "operator": "Exists"}]},
            "devicePlugin": {"enabled": true, "tolerations": [{"key": "own", "operator": "Exists"}]}});
        let keys = tolerations(&serde_json::from_value(rebellions).expect("a section"))
            .map(|each| each.into_iter().map(|one| one.key).collect::<Vec<_>>());
        assert_eq!((&keys[0], &keys[1]), (&vec!["all".to_owned()], &vec!["all".to_owned(), "own".to_owned()]));
    }

    #[test]
    fn a_setting_that_the_labels_do_not_match_is_named_with_what_it_asks_for() {
        let labels = LabelSet::from(&[("zone".to_owned(), "b".to_owned())].into());
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]});
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
        for (settings, expected) in [
            (json!({}), None),
            (json!({"nodeSelector": {"zone": "b"}}), None),
            (
                json!({"nodeSelector": {"zone": "a"}}),
                Some("n (its labels do not match devicePlugin.nodeSelector: zone=a)"),
            ),
            (json!({"affinity": affinity}), Some("n (its labels do not match devicePlugin.affinity)")),
        ] {
            let mut section = settings.clone();
            section["enabled"] = json!(true);
            let section: ComponentSpec = serde_json::from_value(section).expect("a section");
            let told = by_setting(COMPONENTS[1], &section, &labels).map(|why| why.describe("n"));
            assert_eq!(told.as_deref(), expected, "{settings}");
        }
    }

    #[test]
    fn the_metadata_says_when_taints_changed() {
        let entry = |time: &str, fields: serde_json::Value| json!({"manager": "m", "time": time, "fieldsV1": fields});
        let meta = json!({"managedFields": [
            entry("2026-01-01T00:00:01Z", json!({"f:spec": {"f:taints": {}}})),
            entry("2026-01-01T00:00:09Z", json!({"f:spec": {"f:podCIDR": {}}, "f:metadata": {}}))]});
        let meta: ObjectMeta = serde_json::from_value(meta).expect("metadata");
        assert_eq!(tainted_at(&meta), "2026-01-01T00:00:01Z".parse().ok());
        assert_eq!(tainted_at(&ObjectMeta::default()), None);
    }
}
