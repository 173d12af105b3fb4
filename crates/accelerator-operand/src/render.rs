//! Lays an admin's settings over a default manifest.

use accelerator_api::contract::{Component, RENDERED_ANNOTATION};
use accelerator_api::{ComponentSpec, DaemonSets, EnvVar, Rebellions};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{
    self, Container, LocalObjectReference, PodSpec, PodTemplateSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sha2::{Digest, Sha256};

use crate::{Operand, image};

/// Where an operand goes and whom it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Namespace of the DaemonSet.
    pub namespace: String,
    /// Its owners. Garbage collection ends it when the last of them is gone.
    pub owners: Vec<OwnerReference>,
}

/// A default manifest that settings can be laid over.
#[derive(Clone, Debug)]
pub struct Template {
    operand: &'static Operand,
    daemon_set: DaemonSet,
}

impl Template {
    /// Checks once what rendering relies on, so that rendering cannot fail.
    pub(crate) fn new(operand: &'static Operand, daemon_set: DaemonSet) -> Result<Self, &'static str> {
        let name = daemon_set.metadata.name.as_deref();
        if name != Some(operand.component.operand) {
            return Err("its name is not that of the component");
        }
        let spec = daemon_set.spec.as_ref().ok_or("it has no spec")?;
        let pod = spec.template.spec.as_ref().ok_or("its pods have no spec")?;
        pod.containers.first().ok_or("its pods have no container")?;
        Ok(Self { operand, daemon_set })
    }

    /// The component that this is the template of.
    #[must_use]
    pub fn component(&self) -> &'static Component {
        self.operand.component
    }

    /// The DaemonSet that these settings ask for.
    ///
    /// | setting | rule |
    /// |---|---|
    /// | image | part by part: component, else default |
    /// | resources, args | component as a whole, else default |
    /// | env | merged by name, component wins |
    /// | labels, annotations | merged into the pods', settings win; what the selector names stays |
    /// | tolerations, image pull secrets | added to the default ones |
    /// | priority class, max unavailable | settings, else default |
    /// | everything else | the default alone |
    #[must_use]
    pub fn render(&self, rebellions: &Rebellions, section: &ComponentSpec, placement: &Placement) -> DaemonSet {
        let mut daemon_set = self.daemon_set.clone();
        daemon_set.metadata.namespace = Some(placement.namespace.clone());
        if !placement.owners.is_empty() {
            daemon_set.metadata.owner_references = Some(placement.owners.clone());
        }
        if let Some(spec) = &mut daemon_set.spec {
            if let Some(common) = &rebellions.daemonsets {
                lay_common(spec, common);
            }
            if let Some(pod) = &mut spec.template.spec {
                lay_component(pod, section);
            }
        }
        (self.operand.customize)(&mut daemon_set);
        let rendered = digest(&daemon_set);
        daemon_set.metadata.annotations.get_or_insert_default().insert(RENDERED_ANNOTATION.into(), rendered);
        daemon_set
    }
}

/// A digest of anything that serialises the same way each time: SHA-256 in hexadecimal.
#[must_use]
pub fn digest(value: &impl serde::Serialize) -> String {
    // Our values are built from maps with string keys, which always serialise.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn lay_common(spec: &mut DaemonSetSpec, common: &DaemonSets) {
    let selected = spec.selector.match_labels.clone().unwrap_or_default();
    let PodTemplateSpec { metadata, spec: pod } = &mut spec.template;
    let metadata = metadata.get_or_insert_default();
    if !common.labels.is_empty() {
        let labels = metadata.labels.get_or_insert_default();
        labels.extend(common.labels.clone());
        labels.extend(selected);
    }
    if !common.annotations.is_empty() {
        metadata.annotations.get_or_insert_default().extend(common.annotations.clone());
    }
    if let Some(pod) = pod {
        if !common.priority_class_name.is_empty() {
            pod.priority_class_name = Some(common.priority_class_name.clone());
        }
        for toleration in &common.tolerations {
            push_new(pod.tolerations.get_or_insert_default(), core_toleration(toleration));
        }
        if pod.tolerations.as_ref().is_some_and(Vec::is_empty) {
            pod.tolerations = None;
        }
    }
    let limit = common.update_strategy.as_ref().and_then(|strategy| strategy.max_unavailable.clone());
    if let (Some(limit), Some(strategy)) = (limit, &mut spec.update_strategy)
        && strategy.type_.as_deref() == Some("RollingUpdate")
    {
        strategy.rolling_update = Some(RollingUpdateDaemonSet { max_unavailable: Some(limit), max_surge: None });
    }
}

fn lay_component(pod: &mut PodSpec, section: &ComponentSpec) {
    if let Some(image) = &section.image {
        for name in image.image_pull_secrets.iter().filter(|name| !name.is_empty()) {
            push_new(pod.image_pull_secrets.get_or_insert_default(), LocalObjectReference { name: name.clone() });
        }
    }
    let Some(main) = pod.containers.first_mut() else { return };
    if let Some(image) = &section.image {
        main.image = main.image.as_deref().map(|default| image::reference(default, image));
        if !image.image_pull_policy.is_empty() {
            main.image_pull_policy = Some(image.image_pull_policy.clone());
        }
    }
    if let Some(resources) = &section.resources
        && !(resources.limits.is_empty() && resources.requests.is_empty())
    {
        let quantities = |map: &std::collections::BTreeMap<String, accelerator_api::Quantity>| {
            (!map.is_empty()).then(|| map.iter().map(|(key, quantity)| (key.clone(), quantity.into())).collect())
        };
        main.resources = Some(ResourceRequirements {
            limits: quantities(&resources.limits),
            requests: quantities(&resources.requests),
            ..ResourceRequirements::default()
        });
    }
    if !section.args.is_empty() {
        main.args = Some(section.args.clone());
    }
    merge_env(main, &section.env);
}

/// Adds variables; one with the name of a default takes its place, so that later ones may still refer to it.
fn merge_env(container: &mut Container, env: &[EnvVar]) {
    if env.is_empty() {
        return;
    }
    let variables = container.env.get_or_insert_default();
    for EnvVar { name, value } in env {
        let variable = v1::EnvVar { name: name.clone(), value: Some(value.clone()), value_from: None };
        match variables.iter_mut().find(|default| default.name == *name) {
            Some(default) => *default = variable,
            None => variables.push(variable),
        }
    }
}

fn core_toleration(toleration: &accelerator_api::Toleration) -> v1::Toleration {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    v1::Toleration {
        key: given(&toleration.key),
        operator: given(&toleration.operator),
        value: given(&toleration.value),
        effect: given(&toleration.effect),
        toleration_seconds: toleration.toleration_seconds,
    }
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
