//! What a test sees of a cluster, and what it waits for.

use std::collections::BTreeMap;

use accelerator_api::contract::{SKIP_LABEL, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{AcceleratorConfig, ObservedConfig};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::access::OPERANDS;
use crate::nodes::DEPLOY_PREFIX;
use crate::wait::{Wait, eventually};
use crate::{Access, repository};

fn find_condition<'a>(config: &'a Value, kind: &str) -> Option<&'a Value> {
    config["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// A condition as `Status/Reason: message`.
fn in_words(condition: &Value) -> String {
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    format!("{}/{}: {}", text("status"), text("reason"), text("message"))
}

impl Access {
    /// All labels of a node.
    pub async fn labels(&self, node: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let node = self.all::<Node>().get_metadata(node).await?;
        Ok(node.metadata.labels.unwrap_or_default())
    }

    /// The deploy labels of a node, as `component=value`, in order.
    pub async fn deploy_labels(&self, node: &str) -> Vec<String> {
        let labels = self.labels(node).await.unwrap_or_default();
        labels.iter().filter_map(|(key, value)| Some(format!("{}={value}", key.strip_prefix(DEPLOY_PREFIX)?))).collect()
    }

    /// Waits until a node has exactly these deploy labels, each `true`.
    pub async fn expect_deployed(&self, node: &str, components: &[&str]) {
        let mut expected: Vec<_> = components.iter().map(|name| format!("{name}=true")).collect();
        expected.sort();
        eventually(&format!("{node} to have the labels {expected:?}"), async || {
            Wait::until(self.deploy_labels(node).await, |labels| *labels == expected)
        })
        .await;
    }

    /// All AcceleratorConfigs.
    pub async fn configs(&self) -> Vec<ObservedConfig> {
        let api = self.all::<ObservedConfig>();
        api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
    }

    /// An AcceleratorConfig as JSON.
    pub async fn config(&self, name: &str) -> Value {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &ApiResource::erase::<AcceleratorConfig>(&()));
        serde_json::to_value(api.get_opt(name).await.ok().flatten()).unwrap_or(Value::Null)
    }

    /// A condition of an AcceleratorConfig as `Status/Reason: message`; empty when there is none.
    pub async fn condition(&self, config: &str, kind: &str) -> String {
        find_condition(&self.config(config).await, kind).map(in_words).unwrap_or_default()
    }

    /// Waits until a condition begins with these words, such as `True/AllComponentsReady`. Returns all of it.
    pub async fn expect_condition(&self, config: &str, kind: &str, words: &str) -> String {
        eventually(&format!("condition {kind} of {config} to be {words}"), async || {
            Wait::until(self.condition(config, kind).await, |condition| condition.starts_with(words))
        })
        .await
    }

    /// Waits until the whole AcceleratorConfig is ready as it is now, and node-labeler has heard of every mode that nodes
    /// have now: `Ready` cannot speak of a label of which the news has not arrived.
    pub async fn expect_ready(&self, config: &str) {
        eventually(&format!("{config} to be ready"), async || {
            let nodes = self.all::<Node>().list_metadata(&ListParams::default()).await;
            let nodes = nodes.map(|list| list.items).unwrap_or_default();
            // Counts and Ready are written together.
            let object = self.config(config).await;
            let heard = &object["status"]["nodes"];
            let modes = [("container", "container"), ("vm-passthrough", "vmPassthrough")];
            let unheard = modes.iter().filter(|(mode, count)| {
                let in_mode = nodes.iter().filter(|node| {
                    let label = |key| node.labels().get(key).map(String::as_str);
                    label(WORKLOAD_CONFIG_LABEL) == Some(mode) && label(SKIP_LABEL) != Some("true")
                });
                heard[count].as_u64().unwrap_or_default() < in_mode.count() as u64
            });
            let unheard: Vec<_> = unheard.map(|(mode, _)| *mode).collect();
            let condition = find_condition(&object, "Ready");
            let observed = condition.map(|condition| &condition["observedGeneration"]);
            let is_current = observed == Some(&object["metadata"]["generation"]);
            let ready = condition.map(in_words).unwrap_or_default();
            Wait::until((unheard, is_current, ready), |(unheard, is_current, ready)| {
                unheard.is_empty() && *is_current && ready.starts_with("True/")
            })
        })
        .await;
    }

    /// The DaemonSets in the operands' namespace.
    pub async fn daemon_sets(&self) -> Vec<DaemonSet> {
        let api = self.namespaced::<DaemonSet>(OPERANDS);
        api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default()
    }

    /// The components that have DaemonSets in the operands' namespace, in order. The driver has one per pool.
    pub async fn operands(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.daemon_sets().await.iter().map(|one| component_of(one.labels(), &one.name_any())).collect();
        names.dedup();
        names
    }

    /// Waits until exactly these operands exist.
    pub async fn expect_operands(&self, components: &[&str]) {
        let mut expected: Vec<_> = components.to_vec();
        expected.sort_unstable();
        eventually(&format!("the operands {expected:?}"), async || {
            Wait::until(self.operands().await, |operands| *operands == expected)
        })
        .await;
    }

    /// A component's DaemonSet as JSON; null when there is none.
    pub async fn daemon_set(&self, component: &str) -> Value {
        let api = self.namespaced::<DaemonSet>(OPERANDS);
        let daemon_set = api.get_opt(&format!("rebellions-{component}")).await.ok().flatten();
        serde_json::to_value(daemon_set).unwrap_or(Value::Null)
    }

    /// The operand pods as `component@node`, in order, each with its uid.
    pub async fn pods(&self) -> BTreeMap<String, String> {
        let api = self.namespaced::<Pod>(OPERANDS);
        let pods = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        living
            .map(|pod| {
                let component = component_of(pod.labels(), "?");
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
                (format!("{component}@{node}"), pod.uid().unwrap_or_default())
            })
            .collect()
    }

    /// Events about an object, as `Reason: note`.
    pub async fn events(&self, about: &str) -> Vec<String> {
        let api = self.namespaced::<Event>("default");
        let events = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let ours = events.into_iter().filter(|event| {
            event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(about)
                && event
                    .reporting_controller
                    .as_deref()
                    .is_some_and(|name| repository::programs().any(|one| one == name))
        });
        ours.map(|event| format!("{}: {}", event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    /// Waits until an event about an object begins with these words.
    pub async fn expect_event(&self, about: &str, words: &str) -> String {
        eventually(&format!("an event about {about}: {words}"), async || {
            let events = self.events(about).await;
            match events.iter().find(|event| event.starts_with(words)) {
                Some(event) => Wait::Done(event.clone()),
                None => Wait::NotYet(format!("{events:?}")),
            }
        })
        .await
    }
}

/// The component that an object belongs to by its labels, without the provider; `otherwise` if they do not say.
fn component_of(labels: &BTreeMap<String, String>, otherwise: &str) -> String {
    let name = labels.get("app.kubernetes.io/name").or_else(|| labels.get("name"));
    name.map_or(otherwise, String::as_str).trim_start_matches("rebellions-").to_owned()
}
