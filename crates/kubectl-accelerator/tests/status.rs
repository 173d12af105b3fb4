//! The table of a large cluster, and what it costs to make.

#![allow(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

use std::path::{Path, PathBuf};

use accelerator_api::contract::COMPONENTS;
use kubectl_accelerator::args::Mode;
use kubectl_accelerator::facts::{Facts, Kind, NodeFact, PodFact};
use kubectl_accelerator::status::{Filter, Summary, summarise, table};
use kubectl_accelerator::style::Style;
use serde_json::{Value, json};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// A cluster of so many nodes in mode container and as many thousandths of that in mode vm-passthrough, all well. Pods were not
/// read, as of a settled cluster.
fn large(nodes: usize) -> Facts {
    let text = std::fs::read_to_string(testdata().join("explain/base.yaml")).expect("the healthy cluster");
    let mut facts = Facts::new("2026-01-01T12:00:00Z".parse().expect("a time"), "rebellions", "accelerator-system");
    facts.read = [Kind::AcceleratorConfigs, Kind::Nodes, Kind::DaemonSets, Kind::Deployments, Kind::Leases].into();
    for object in serde_saphyr::from_multiple::<Value>(&text).expect("objects") {
        facts.add(object).expect("a fact");
    }
    facts.pods.clear();
    facts.pods_not_read = COMPONENTS.map(|component| component.operand.to_owned()).into();
    let (container, vm) = (facts.nodes[0].clone(), facts.nodes[1].clone());
    let named = |node: &NodeFact, name: String| {
        let mut node = node.clone();
        node.metadata.name = name;
        node
    };
    facts.nodes = (0..nodes).map(|number| named(&container, format!("npu-{number:04}"))).collect();
    facts.nodes.extend((0..nodes / 1000).map(|number| named(&vm, format!("vm-{number}"))));
    facts
}

/// What three nodes lack, each for another cause.
fn with_exceptions(mut facts: Facts) -> Facts {
    let node =
        |name: &str, facts: &mut Facts| facts.nodes.iter().position(|node| node.metadata.name == name).expect("a node");
    let index = node("npu-0017", &mut facts);
    facts.nodes[index].status.allocatable = [("rebellions.ai/ATOM".into(), "6".into())].into();
    facts.nodes[index].status.capacity = facts.nodes[index].status.allocatable.clone();
    let index = node("npu-0100", &mut facts);
    facts.nodes[index].metadata.labels.insert("rebellions.ai/npu.workload.config".into(), "contaner".into());
    let index = node("npu-4000", &mut facts);
    let ready = &mut facts.nodes[index].status.conditions[0];
    ready.status = "Unknown".into();
    ready.reason = Some("NodeStatusUnknown".into());
    ready.message = Some("Kubelet stopped posting node status.".into());
    // One pod of the exporter crashes; so all of its pods were read.
    facts.pods_not_read.remove("rebellions-metric-exporter");
    facts.read.extend([Kind::Pods, Kind::Events, Kind::ResourceQuotas]);
    let pod = |node: &str, status: Value| -> PodFact {
        let labels = json!({"name": "rebellions-metric-exporter"});
        let pod = json!({"metadata": {"name": format!("rebellions-metric-exporter-{node}"), "namespace": "rebellions", "labels": labels},
            "spec": {"nodeName": node}, "status": status});
        serde_json::from_value(pod).expect("a pod")
    };
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let crashes = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{
        "name": "metric-exporter", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2, "finishedAt": "2026-01-01T11:59:00Z"}}}]});
    let names: Vec<_> =
        facts.nodes.iter().map(|node| node.metadata.name.clone()).filter(|name| name.starts_with("npu")).collect();
    facts.pods =
        names.iter().map(|name| pod(name, if name == "npu-2000" { crashes.clone() } else { ready.clone() })).collect();
    facts
}

fn shown(summary: &Summary) -> String {
    table(summary, false, Style::plain())
}

fn assert_golden(name: &str, text: &str) {
    let path = testdata().join("status").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a golden");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "{}: UPDATE_GOLDEN=1 rewrites it", path.display());
}

#[test]
fn five_thousand_nodes_that_are_well_are_a_row_per_mode() {
    let summary = summarise(&large(5000), Filter::default());
    assert!(summary.ready, "{}", shown(&summary));
    assert_golden("healthy.txt", &shown(&summary));
}

#[test]
fn exceptions_have_names_and_the_rest_is_a_row() {
    let facts = with_exceptions(large(5000));
    let summary = summarise(&facts, Filter::default());
    assert_golden("exceptions.txt", &shown(&summary));
    assert_eq!((summary.nodes, summary.not_ready, summary.ready), (5005, 4, false));
    let only = summarise(&facts, Filter { not_ready: true, ..Filter::default() });
    let names: Vec<_> = only.groups.iter().flat_map(|group| &group.nodes).cloned().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let vm = summarise(
        &facts,
        Filter { mode: Some(Mode::VmPassthrough), component: Some("vfio-manager"), ..Filter::default() },
    );
    assert_eq!((vm.nodes, vm.groups.len(), vm.groups[0].row.components.len()), (5, 1, 1));
}

/// Nobody reads more than a screen, also when every node has a trouble of its own.
#[test]
fn a_screen_is_enough_whatever_is_wrong() {
    let mut facts = large(1000);
    for (number, node) in facts.nodes.iter_mut().enumerate() {
        node.status.node_info.kernel_version = format!("6.8.0-{number}");
        node.status.conditions[0].status = "False".into();
    }
    let text = shown(&summarise(&facts, Filter::default()));
    assert!(text.lines().count() <= 40, "{text}");
    assert!(text.contains("more rows: -o wide shows them"), "{text}");
}
