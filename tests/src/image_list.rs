//! Every image that an installation can pull: what a registry that is to serve it has to have.

use std::collections::BTreeSet;
use std::time::Duration;

use accelerator_api::contract::{COMPONENTS, DRIVER};
use accelerator_api::{AcceleratorConfig, DriverSpec, ObservedConfig, active};
use accelerator_operand::{Desired, Operand, PlanContext, desire};
use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Resource, ResourceExt};
use node_labeler::rules::{Policy, decide};
use rebellions_driver_controller::image_tag::Variable;
use rebellions_driver_controller::node::{Node, NodeView};
use rebellions_driver_controller::pools::{Request, Target, pools};
use serde_json::{Value, json};

use crate::Access;
use crate::access::OPERANDS;
use crate::repository::{operands, programs};

/// What is pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageList {
    /// References, in order. A variable of the driver's image of which no value is known is still in braces: `{kernel}`.
    pub images: BTreeSet<String>,
    /// What is not known, for people.
    pub notes: Vec<String>,
}

/// The images of these objects: of every workload among them, and of the operands that AcceleratorConfigs ask for and for which
/// there is a controller. Without any program of ours among them, every operand counts, without an AcceleratorConfig each with its
/// defaults. Nodes among them, and `kinds` of further nodes, say which drivers there have to be.
pub fn image_list(objects: &[Value], kinds: &[NodeView]) -> anyhow::Result<ImageList> {
    let objects = flatten(objects);
    let mut list = ImageList::default();
    list.images.extend(objects.iter().flat_map(|object| workload_images(object)));
    let mut configs: Vec<_> =
        objects.iter().copied().filter(|object| is_config(object)).map(observed).collect::<Result<_, _>>()?;
    if configs.is_empty() {
        configs.push(observed(&defaults())?);
    }
    let configs: Vec<_> = configs.iter().collect();
    let programs: BTreeSet<_> = objects.iter().filter_map(|object| program(object)).collect();
    for operand in operands() {
        if programs.is_empty() || programs.contains(operand.component.controller) {
            add_operand(&mut list, operand, &configs, &objects, kinds)?;
        }
    }
    Ok(list)
}

/// Objects, and those in lists of them.
fn flatten(objects: &[Value]) -> Vec<&Value> {
    let is_list = |object: &Value| object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    let items = objects.iter().flat_map(|object| match object["items"].as_array() {
        Some(items) if is_list(object) => items.iter().collect(),
        _ => vec![object],
    });
    items.filter(|object| object.is_object()).collect()
}

/// The images of a workload that runs pods; none of any other object.
fn workload_images(object: &Value) -> Vec<String> {
    let pod = ["/spec/jobTemplate/spec/template/spec", "/spec/template/spec"];
    let pod = pod.iter().find_map(|path| object.pointer(path)).unwrap_or(&Value::Null);
    let containers = ["containers", "initContainers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
    containers.filter_map(|container| container["image"].as_str().map(str::to_owned)).collect()
}

/// The program of ours that a Deployment runs, whatever an overlay put in front of its name.
fn program(object: &Value) -> Option<&'static str> {
    let name = object["metadata"]["labels"]["app.kubernetes.io/name"].as_str();
    name.filter(|_| object["kind"] == "Deployment").and_then(|name| programs().find(|program| *program == name))
}

fn is_config(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().and_then(|version| version.split('/').next());
    group == Some(&AcceleratorConfig::group(&())) && object["kind"] == *AcceleratorConfig::kind(&())
}

fn observed(object: &Value) -> anyhow::Result<ObservedConfig> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    serde_json::from_value(object.clone()).with_context(|| format!("could not read AcceleratorConfig {name}"))
}

/// An AcceleratorConfig that asks for everything.
fn defaults() -> Value {
    json!({"metadata": {"name": "default"}, "spec": {"providers": {"rebellions": Access::enable_all()}}})
}

fn add_operand(
    list: &mut ImageList,
    operand: &'static Operand,
    configs: &[&ObservedConfig],
    objects: &[&Value],
    kinds: &[NodeView],
) -> anyhow::Result<()> {
    let (daemon_set, rebellions) = match desire(&operand.template()?, PlanContext::of(OPERANDS), configs).desired {
        Desired::Present(daemon_set, rebellions) => (*daemon_set, rebellions),
        Desired::Absent(_) | Desired::Unknown => return Ok(()),
        Desired::Unreadable(why) => {
            let name = active(configs.iter().map(|config| &config.metadata)).map(|index| configs[index].name_any());
            bail!("AcceleratorConfig {}: {why}", name.unwrap_or_default());
        }
    };
    let mut images = workload_images(&serde_json::to_value(&daemon_set)?);
    if operand.component.name == DRIVER.name {
        let Some(section) = rebellions.driver.as_ref().filter(|section| !section.is_preinstalled()) else {
            return Ok(());
        };
        // Of its main container, which comes first, each pool has another image.
        images.remove(0);
        let nodes = driver_nodes(configs, objects)?;
        let kinds = if nodes.is_empty() && kinds.is_empty() { vec![kind(|_| None)] } else { kinds.to_vec() };
        add_drivers(list, section, &daemon_set, &nodes);
        // A kind has no labels by which it could be left out.
        let mut anywhere = section.clone();
        (anywhere.component.node_selector, anywhere.component.affinity) = Default::default();
        add_drivers(list, &anywhere, &daemon_set, &kinds);
    }
    list.images.extend(images);
    Ok(())
}

/// The nodes among these objects that are to have the driver.
fn driver_nodes(configs: &[&ObservedConfig], objects: &[&Value]) -> anyhow::Result<Vec<NodeView>> {
    let active = active(configs.iter().map(|config| &config.metadata)).map(|index| configs[index].spec.as_ref());
    let policy = Policy::of(active);
    let driver = COMPONENTS.iter().position(|component| component.name == DRIVER.name);
    let mut nodes = vec![];
    for object in objects.iter().filter(|object| object["kind"] == "Node") {
        let node: Node = serde_json::from_value((*object).clone()).context("could not read a Node")?;
        let labels = node_labeler::view::NodeView::of(node.meta());
        let deploy = decide(&labels, policy, None, Duration::ZERO).deploy;
        if driver.is_some_and(|driver| deploy[driver].is_set()) {
            nodes.push(NodeView { deploys_driver: true, ..NodeView::of(node) });
        }
    }
    Ok(nodes)
}

/// The driver's images for these nodes, as the driver's controller pools them; its template for one of which nothing is known.
fn add_drivers(list: &mut ImageList, section: &DriverSpec, daemon_set: &DaemonSet, nodes: &[NodeView]) {
    let Some(request) = Request::of(section, daemon_set) else { return };
    if !request.is_uniform() && nodes.iter().any(|node| *node == kind(|_| None)) {
        list.notes.push("the driver's image is another one for each kind of node: say which there are".into());
    }
    let pools = pools(Some(&request), &nodes.iter().collect::<Vec<_>>(), &[], &[]);
    list.images.extend(pools.wanted.into_iter().map(|pool| pool.history.current.image));
    for (node, target) in pools.targets {
        if let Target::Unknown(_, why) = target {
            list.notes.push(format!("no image for the driver of node {node}: {why}"));
        }
    }
}

/// A node of which only these values are known; the others stay variables.
#[must_use]
pub fn kind(value: impl Fn(Variable) -> Option<String>) -> NodeView {
    let value = |variable: Variable| value(variable).unwrap_or_else(|| variable.placeholder().to_owned());
    NodeView {
        name: Variable::ALL.map(value).join(" "),
        deploys_driver: true,
        kernel: Some(value(Variable::Kernel)),
        os: Some(value(Variable::Os)),
        arch: Some(value(Variable::Arch)),
        families: vec![value(Variable::Family)],
        ..NodeView::default()
    }
}
