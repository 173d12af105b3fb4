//! Simulated nodes.

mod machines;

use std::collections::BTreeMap;

use accelerator_api::contract::WORKLOAD_CONFIG_LABEL;
use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

pub use machines::{ATOM, HOST_DRIVER, Machines, NPUS, SUFFIX, system_labels};

/// Node Feature Discovery's sign that there is an NPU.
pub const DISCOVERED: &str = "feature.node.kubernetes.io/pci-1200_1eff.present";

/// Every deploy label begins with this.
pub const DEPLOY_PREFIX: &str = "rebellions.ai/npu.deploy.";

/// Requests under way at once: more gains nothing on two cores.
pub const IN_FLIGHT: usize = 16;

/// Labels of a node with NPUs, as Node Feature Discovery would set them.
#[must_use]
pub fn npu_labels() -> BTreeMap<String, String> {
    let mut labels = system_labels("6.8.0-60-generic", "ubuntu", "22.04");
    labels.insert(DISCOVERED.into(), "true".into());
    labels
}

/// Labels of a node with NPUs in this mode.
#[must_use]
pub fn npu_labels_with_mode(mode: &str) -> BTreeMap<String, String> {
    let mut labels = npu_labels();
    labels.insert(WORKLOAD_CONFIG_LABEL.into(), mode.into());
    labels
}

/// A node that is ready from its first moment, so that nobody else needs to write it.
fn node(name: &str, labels: &BTreeMap<String, String>) -> anyhow::Result<Node> {
    // All that others would add, so that nobody else changes the labels.
    let given = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", "amd64"),
    ];
    let mut all: BTreeMap<_, _> = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    all.extend(labels.clone());
    let capacity = json!({"cpu": "64", "memory": "512Gi", "pods": "110"});
    let node = json!({
        "metadata": {"name": name, "labels": all},
        "spec": {"providerID": format!("kwok://{name}")},
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [{"type": "Ready", "status": "True", "reason": "SimulatedUp", "message": "up",
                            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "nodeInfo": {"architecture": "amd64", "bootID": "1", "containerRuntimeVersion": "containerd://2.1.0",
                         "kernelVersion": "6.8.0-60-generic", "kubeProxyVersion": "", "kubeletVersion": "v1.36.3",
                         "machineID": name, "operatingSystem": "linux", "osImage": "Ubuntu 22.04.5 LTS", "systemUUID": name},
        },
    });
    serde_json::from_value(node).context("a node")
}

/// Creates nodes of these names, all with the same labels.
pub async fn create(
    client: &Client,
    names: impl IntoIterator<Item = String>,
    labels: &BTreeMap<String, String>,
) -> anyhow::Result<()> {
    create_with(client, names, labels, |_| {}).await
}

/// Creates nodes of these names, all with the same labels and changed in the same way.
pub async fn create_with(
    client: &Client,
    names: impl IntoIterator<Item = String>,
    labels: &BTreeMap<String, String>,
    change: impl Fn(&mut Node),
) -> anyhow::Result<()> {
    let api = Api::<Node>::all(client.clone());
    let create = |name: String| {
        let (api, node) = (api.clone(), node(&name, labels));
        let node = node.map(|mut node| {
            change(&mut node);
            node
        });
        async move {
            api.create(&PostParams::default(), &node?).await?;
            anyhow::Ok(())
        }
    };
    futures::stream::iter(names).map(create).buffer_unordered(IN_FLIGHT).try_collect().await
}

/// Sets labels of a node; `None` removes one.
pub async fn label(client: &Client, name: &str, labels: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
    let labels: Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), value.map_or(Value::Null, Value::from))).collect();
    let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
    Api::<Node>::all(client.clone()).patch_metadata(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Sets the mode of many nodes.
pub async fn set_modes(client: &Client, names: &[String], mode: &str) -> anyhow::Result<()> {
    let change = [(WORKLOAD_CONFIG_LABEL, Some(mode))];
    let set: Vec<_> = names.iter().map(|name| label(client, name, &change)).collect();
    futures::stream::iter(set).buffer_unordered(IN_FLIGHT).try_collect().await
}
