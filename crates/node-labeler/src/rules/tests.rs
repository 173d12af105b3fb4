use super::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta};
use serde_json::Map;

const HOLD_DOWN: Duration = Duration::from_mins(10);
const CONTAINER: &[&str] = &["device-plugin", "driver", "metric-exporter", "npu-feature-discovery"];
const VM: &[&str] = &["npu-feature-discovery", "vfio-manager"];
const NO_DEFAULT: Policy = Policy::Modes { default: None };
const DEFAULT_VM: Policy = Policy::Modes { default: Some(Workload::VmPassthrough) };

/// A node from words: `container`, `npu`, `skip`, `driver` (a deploy label of ours), `driver!` (somebody else's `true`),
/// `driver=false`; `mode=X` is a workload label.
fn node(words: &str) -> NodeView {
    let mut labels = std::collections::BTreeMap::new();
    let mut ours = Map::new();
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, "true"));
        let deploy = |name: &str| format!("rebellions.ai/npu.deploy.{name}");
        match key {
            "container" | "vm-passthrough" => {
                labels.insert("rebellions.ai/npu.workload.config".into(), key.into());
            }
            "mode" => {
                labels.insert("rebellions.ai/npu.workload.config".into(), value.into());
            }
            "npu" => {
                labels.insert("feature.node.kubernetes.io/pci-1200_1eff.present".into(), "true".into());
            }
            theirs if theirs.ends_with('!') => {
                labels.insert(deploy(theirs.trim_end_matches('!')), value.into());
            }
            name => {
                labels.insert(deploy(name), value.into());
                ours.insert(format!("f:{}", deploy(name)), json!({}));
            }
        }
    }
    let fields = FieldsV1(json!({"f:metadata": {"f:labels": ours}}));
    NodeView::of(&ObjectMeta {
        labels: Some(labels),
        managed_fields: Some(vec![ManagedFieldsEntry {
            manager: Some("node-labeler".into()),
            fields_v1: Some(fields),
            ..ManagedFieldsEntry::default()
        }]),
        ..ObjectMeta::default()
    })
}

/// Names of the components whose label the node has afterwards, in order.
fn deployed(words: &str, policy: Policy) -> Vec<&'static str> {
    names(&decide(&node(words), policy, None, HOLD_DOWN))
}

fn names(decision: &Decision) -> Vec<&'static str> {
    let labels = COMPONENTS.iter().zip(decision.deploy);
    let mut names: Vec<_> = labels.filter(|(_, label)| label.is_set()).map(|(component, _)| component.name).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_table() {
    let all = "driver device-plugin metric-exporter npu-feature-discovery";
    let unchanged = |words: &str| names(&Decision { deploy: node(words).deploy, ..Decision::default() });
    let cases: &[(&str, Policy, Vec<&str>, &str)] = &[
        ("container", NO_DEFAULT, CONTAINER.to_vec(), "a mode needs no discovery"),
        ("vm-passthrough npu", NO_DEFAULT, VM.to_vec(), "the other mode"),
        ("npu", NO_DEFAULT, vec![], "no mode, no default: left alone"),
        ("npu", DEFAULT_VM, VM.to_vec(), "the default mode"),
        ("container npu", DEFAULT_VM, CONTAINER.to_vec(), "the node's own mode wins over the default"),
        ("", DEFAULT_VM, vec![], "the default is for nodes with NPUs only"),
        (
            &format!("vm-passthrough {all}"),
            NO_DEFAULT,
            VM.to_vec(),
            "a mode switch removes what the mode does not need",
        ),
        ("vm-passthrough driver!", NO_DEFAULT, VM.to_vec(), "whoever wrote it"),
        ("mode=contianer driver npu", DEFAULT_VM, vec!["driver"], "a typo changes nothing"),
        ("mode= npu", DEFAULT_VM, vec![], "an empty value is a typo"),
        (&format!("npu {all}"), NO_DEFAULT, vec![], "a mode that was taken away takes our labels along"),
        ("npu driver!", NO_DEFAULT, vec!["driver"], "without a mode, labels of others stay"),
        (&format!("container {all}"), Policy::Nothing, vec![], "no config: none of our labels"),
        ("container driver! device-plugin", Policy::Nothing, vec!["driver"], "no config: labels of others stay"),
        ("container driver", Policy::Frozen, vec!["driver"], "an unreadable config changes nothing"),
        ("container skip driver", NO_DEFAULT, vec!["driver"], "a skipped node stays as it is"),
        ("vm-passthrough skip driver", Policy::Nothing, vec!["driver"], "even without a config"),
    ];
    for (words, policy, expected, why) in cases {
        assert_eq!(deployed(words, *policy), *expected, "{why}: {words:?} under {policy:?}");
    }
    assert_eq!(deployed(&format!("container {all}"), NO_DEFAULT), unchanged(all));
}

#[test]
fn foreign_values_are_neither_overwritten_nor_removed() {
    for policy in [NO_DEFAULT, Policy::Nothing] {
        for words in ["container driver=false", "vm-passthrough driver=paused-for-driver-upgrade", "container driver="]
        {
            let node = node(words);
            let decision = decide(&node, policy, None, HOLD_DOWN);
            let touched = decision.changes(&node).into_iter().any(|change| matches!(change, Change::Label(0, _)));
            assert!(!touched, "{words}");
        }
    }
    assert_eq!(
        deployed("container driver=false", NO_DEFAULT),
        ["device-plugin", "metric-exporter", "npu-feature-discovery"]
    );
}

#[test]
fn lost_discovery_takes_effect_only_after_the_hold_down() {
    let lost = node("npu-feature-discovery vfio-manager");
    let at = |missing| decide(&lost, DEFAULT_VM, missing, HOLD_DOWN);
    assert_eq!(names(&at(None)), VM);
    assert_eq!(names(&at(Some(HOLD_DOWN / 2))), VM);
    assert_eq!(names(&at(Some(HOLD_DOWN))), Vec::<&str>::new());
    assert!([None, Some(HOLD_DOWN / 2), Some(HOLD_DOWN)].into_iter().all(|missing| at(missing).is_npu_missing));
    assert!(!decide(&node("npu driver"), DEFAULT_VM, None, HOLD_DOWN).is_npu_missing);
    // The default going away is the admin's word, not discovery's.
    assert_eq!(names(&decide(&lost, NO_DEFAULT, None, HOLD_DOWN)), Vec::<&str>::new());
}

#[test]
fn the_patch_is_the_difference_and_for_what_was_looked_at() {
    let patch = |words| {
        let node = NodeView { uid: "u".into(), version: 7, ..node(words) };
        super::patch(&node, &decide(&node, NO_DEFAULT, None, HOLD_DOWN).changes(&node))
    };
    assert_eq!(
        patch("vm-passthrough"),
        json!({"metadata": {
            "uid": "u",
            "labels": {
                "rebellions.ai/npu.deploy.npu-feature-discovery": "true",
                "rebellions.ai/npu.deploy.vfio-manager": "true",
            },
            "annotations": {"petasus.io/owned-deploy-labels": "vfio-manager,npu-feature-discovery"},
        }})
    );
    assert_eq!(
        patch("vm-passthrough driver device-plugin=false npu-feature-discovery metric-exporter!"),
        json!({"metadata": {
            "resourceVersion": "7",
            "labels": {
                "rebellions.ai/npu.deploy.driver": null,
                "rebellions.ai/npu.deploy.metric-exporter": null,
                "rebellions.ai/npu.deploy.vfio-manager": "true",
            },
            "annotations": {"petasus.io/owned-deploy-labels": "vfio-manager,npu-feature-discovery"},
        }})
    );
}

/// A record on the node, and what is written of it: `None` when the node is not written, an empty text when it goes.
#[test]
fn the_record_is_written_with_the_labels_and_alone_only_when_it_is_wrong_or_about_to_be_lost() {
    let all = "driver device-plugin metric-exporter npu-feature-discovery";
    let names = "driver,device-plugin,metric-exporter,npu-feature-discovery";
    let written = |words: &str, record: &str, policy: Policy, is_due: bool| {
        let recorded = COMPONENTS.map(|component| record.split(',').any(|name| name == component.name));
        let mut node = NodeView { recorded, is_record_due: is_due, ..node(words) };
        for (label, recorded) in node.deploy.iter_mut().zip(recorded) {
            if recorded && *label == DeployLabel::Foreign {
                *label = DeployLabel::Paused;
            }
        }
        let changes = decide(&node, policy, None, HOLD_DOWN).changes(&node);
        let patch = (!changes.is_empty()).then(|| patch(&node, &changes))?;
        let annotation = patch["metadata"]["annotations"].get("petasus.io/owned-deploy-labels").cloned();
        Some(annotation.unwrap_or_else(|| "as it was".into()).as_str().unwrap_or_default().to_owned())
    };
    let cases = [
        (
            format!("container {all}"),
            "",
            NO_DEFAULT,
            false,
            None,
            "a release before this one: not for the record alone",
        ),
        (format!("container {all}"), names, NO_DEFAULT, false, None, "all is well"),
        (format!("npu {all}"), names, NO_DEFAULT, false, Some(""), "it goes with the last label"),
        (format!("npu {all}"), "", NO_DEFAULT, false, Some("as it was"), "there was none"),
        ("container driver device-plugin".into(), "", NO_DEFAULT, false, Some(names), "the next write takes over"),
        ("npu driver=paused".into(), "driver", NO_DEFAULT, false, None, "a pause keeps it"),
        ("npu".into(), "driver", NO_DEFAULT, false, Some(""), "somebody removed the label, and it is not wanted"),
        ("npu".into(), "driver", Policy::Frozen, false, None, "frozen"),
        ("skip".into(), "driver", NO_DEFAULT, false, None, "skipped"),
        ("mode=typo".into(), "driver", NO_DEFAULT, false, None, "a typo"),
        (format!("container {all}"), "", NO_DEFAULT, true, Some(names), "about to be lost"),
        (format!("container skip {all}"), "", NO_DEFAULT, true, None, "about to be lost, but skipped"),
    ];
    for (words, record, policy, is_due, expected, why) in cases {
        let written = written(&words, record, policy, is_due);
        assert_eq!(written.as_deref(), expected, "{why}: {words:?} with the record {record:?}");
    }
}

#[test]
fn a_node_that_is_as_it_should_be_is_not_written() {
    let node = node("container driver device-plugin metric-exporter npu-feature-discovery");
    assert_eq!(decide(&node, NO_DEFAULT, None, HOLD_DOWN).changes(&node), []);
}

#[test]
fn every_node_has_a_state() {
    let state = |words, policy| decide(&node(words), policy, None, HOLD_DOWN).state;
    assert_eq!(state("container", NO_DEFAULT), NodeState::InMode(Workload::Container));
    assert_eq!(state("npu", DEFAULT_VM), NodeState::InMode(Workload::VmPassthrough));
    assert_eq!(state("npu", NO_DEFAULT), NodeState::WithoutMode);
    assert_eq!(state("mode=x npu", NO_DEFAULT), NodeState::InvalidMode);
    assert_eq!(state("skip container", NO_DEFAULT), NodeState::Skipped);
    assert_eq!(state("", NO_DEFAULT), NodeState::Unrelated);
    assert_eq!(state("npu-feature-discovery vfio-manager", DEFAULT_VM), NodeState::InMode(Workload::VmPassthrough));
}
