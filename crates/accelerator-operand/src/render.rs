//! Lays an admin's settings over a default manifest.

use std::collections::BTreeMap;

use accelerator_api::contract::{Component, RENDERED_ANNOTATION};
use accelerator_api::{
    Affinity, ComponentSpec, DaemonSets, EnvVar, Image, ImageSource, Quantity, Rebellions, ResourceRequirements,
    Toleration, UpdateStrategy,
};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{self, Container, LocalObjectReference, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
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
        let further = all_containers(pod).skip(1).map(|container| container.name.as_str());
        if !further.eq(operand.component.containers.iter().map(|row| row.name)) {
            return Err("its containers are not those of the contract");
        }
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
    /// | image | part by part: the container's, else that of the component it takes it from, else the registry for all, else default |
    /// | resources, args | the container's as a whole, else default |
    /// | env | merged by name, the container's wins |
    /// | labels, annotations | merged into the pods', settings win; what the selector names stays |
    /// | tolerations, image pull secrets | those for all and the component's, added to the default ones |
    /// | node selector | added to the default one, which stays |
    /// | affinity | the component's |
    /// | priority class, update strategy, kubelet root | settings, else default |
    /// | surge | the component's, in place of the update strategy |
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
            if let Some(limit) = (self.operand.component.surge)(rebellions).and_then(|surge| surge.max_surge.clone()) {
                // The API server takes one of the two.
                lay_limits(spec, &RollingUpdateDaemonSet { max_unavailable: Some(NONE), max_surge: Some(limit) });
            }
            if let Some(pod) = &mut spec.template.spec {
                lay_scheduling(pod, section);
                lay_containers(pod, self.operand.component, rebellions, section);
            }
        }
        (self.operand.customize)(&mut daemon_set, rebellions);
        stamp(&mut daemon_set);
        daemon_set
    }
}

/// Marks a DaemonSet with the digest of what was rendered. Whoever changes what was rendered does so again.
pub fn stamp(daemon_set: &mut DaemonSet) {
    let annotations = daemon_set.metadata.annotations.get_or_insert_default();
    annotations.remove(RENDERED_ANNOTATION);
    if annotations.is_empty() {
        daemon_set.metadata.annotations = None;
    }
    let rendered = digest(&daemon_set);
    daemon_set.metadata.annotations.get_or_insert_default().insert(RENDERED_ANNOTATION.into(), rendered);
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
        lay_tolerations(pod, &common.tolerations);
        if !common.kubelet_root_dir.is_empty() {
            lay_kubelet_root(pod.volumes.as_deref_mut().unwrap_or_default(), &common.kubelet_root_dir);
        }
    }
    if let Some(strategy) = &common.update_strategy {
        lay_strategy(spec, strategy);
    }
}

fn lay_strategy(spec: &mut DaemonSetSpec, common: &UpdateStrategy) {
    if let Some(seconds) = common.min_ready_seconds {
        // The API server stores no zero, and what it does not store must not be wanted.
        spec.min_ready_seconds = Some(seconds).filter(|seconds| *seconds > 0);
    }
    if let Some(limit) = &common.max_unavailable {
        lay_limits(spec, &RollingUpdateDaemonSet { max_unavailable: Some(limit.clone()), max_surge: None });
    }
}

/// No node, where a number of nodes is asked for.
const NONE: IntOrString = IntOrString::Int(0);

/// Limits a rolling update. What is replaced otherwise has no limits.
fn lay_limits(spec: &mut DaemonSetSpec, limits: &RollingUpdateDaemonSet) {
    if let Some(strategy) = spec.update_strategy.as_mut().filter(|one| one.type_.as_deref() == Some("RollingUpdate")) {
        strategy.rolling_update = Some(limits.clone());
    }
}

/// Where a component's pods may run. What the default manifest selects stays, whatever an admin selects besides.
fn lay_scheduling(pod: &mut PodSpec, section: &ComponentSpec) {
    if !section.node_selector.is_empty() {
        let selector = pod.node_selector.get_or_insert_default();
        let default = std::mem::replace(selector, section.node_selector.clone());
        selector.extend(default);
    }
    if let Some(affinity) = section.affinity.as_ref().and_then(Affinity::to_core) {
        pod.affinity = Some(affinity);
    }
    lay_tolerations(pod, &section.tolerations);
}

fn lay_tolerations(pod: &mut PodSpec, tolerations: &[Toleration]) {
    for toleration in tolerations {
        push_new(pod.tolerations.get_or_insert_default(), core_toleration(toleration));
    }
}

/// Where the default manifests expect the kubelet's files.
const KUBELET_ROOT: &str = "/var/lib/kubelet";

/// Takes the kubelet's files from another folder of the host. Programs find them where they expect them.
fn lay_kubelet_root(volumes: &mut [Volume], root: &str) {
    for host in volumes.iter_mut().filter_map(|volume| volume.host_path.as_mut()) {
        if let Some(below) = host.path.strip_prefix(KUBELET_ROOT)
            && (below.is_empty() || below.starts_with('/'))
        {
            host.path = format!("{root}{below}");
        }
    }
}

/// Settings of one container.
#[derive(Clone, Copy, Default)]
struct Settings<'a> {
    image: Option<&'a Image>,
    resources: Option<&'a ResourceRequirements>,
    env: &'a [EnvVar],
    args: &'a [String],
}

/// The settings of each container of a component's pods, with the container's name; none for the main one.
fn settings<'a>(
    component: &Component,
    rebellions: &'a Rebellions,
    section: &'a ComponentSpec,
) -> Vec<(Option<&'static str>, Settings<'a>)> {
    let main = Settings {
        image: section.image.as_ref(),
        resources: section.resources.as_ref(),
        env: &section.env,
        args: &section.args,
    };
    let further = component.containers.iter().map(|row| {
        let own = (row.section)(rebellions);
        let others = row.image_of.and_then(|other| (other.section)(rebellions)?.image.as_ref());
        let settings = Settings {
            image: own.and_then(|own| own.image.as_ref()).or(others),
            resources: own.and_then(|own| own.resources.as_ref()),
            env: own.map_or(&[], |own| &own.env),
            args: &[],
        };
        (Some(row.name), settings)
    });
    std::iter::once((None, main)).chain(further).collect()
}

fn lay_containers(pod: &mut PodSpec, component: &Component, rebellions: &Rebellions, section: &ComponentSpec) {
    let nothing = ImageSource::default();
    let source = rebellions.daemonsets.as_ref().and_then(|common| common.image.as_ref()).unwrap_or(&nothing);
    let settings = settings(component, rebellions, section);
    let images = settings.iter().filter_map(|(_, settings)| settings.image);
    let secrets = images.flat_map(|image| &image.image_pull_secrets);
    for name in source.image_pull_secrets.iter().chain(secrets).filter(|name| !name.is_empty()) {
        push_new(pod.image_pull_secrets.get_or_insert_default(), LocalObjectReference { name: name.clone() });
    }
    for (name, settings) in settings {
        let container = match name {
            None => pod.containers.first_mut(),
            Some(name) => {
                let mut all = pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten());
                all.find(|container| container.name == name)
            }
        };
        if let Some(container) = container {
            lay_container(container, source, settings);
        }
    }
}

/// Every container, the main one first.
fn all_containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.containers.iter().chain(pod.init_containers.iter().flatten())
}

fn lay_container(container: &mut Container, source: &ImageSource, settings: Settings<'_>) {
    container.image = container.image.as_deref().map(|it| image::reference(it, &source.registry, settings.image));
    let policies = [settings.image.map(|image| &image.image_pull_policy), Some(&source.image_pull_policy)];
    if let Some(policy) = policies.into_iter().flatten().find(|policy| !policy.is_empty()) {
        container.image_pull_policy = Some(policy.clone());
    }
    if let Some(resources) = settings.resources.filter(|it| !(it.limits.is_empty() && it.requests.is_empty())) {
        container.resources = Some(v1::ResourceRequirements {
            limits: quantities(&resources.limits),
            requests: quantities(&resources.requests),
            ..v1::ResourceRequirements::default()
        });
    }
    if !settings.args.is_empty() {
        container.args = Some(settings.args.to_vec());
    }
    merge_env(container, settings.env);
}

fn quantities(
    map: &BTreeMap<String, Quantity>,
) -> Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>> {
    (!map.is_empty()).then(|| map.iter().map(|(key, quantity)| (key.clone(), quantity.into())).collect())
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

fn core_toleration(toleration: &Toleration) -> v1::Toleration {
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
