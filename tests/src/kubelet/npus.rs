//! The NPUs that a machine's kubelet advertises: those that its device plugin has told it of. Pure.

use accelerator_api::contract::{DEVICE_PLUGIN, DRIVER};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::status::is_ready;
use crate::nodes::{HOST_DRIVER, NPUS};

/// The patch of a machine's status that makes its NPUs what its pods make them; `None` when they are. As with a kubelet,
/// NPUs of a plugin that has left stay in the capacity and are not allocatable.
pub fn patch<'a>(node: &Node, pods: &(impl Iterator<Item = &'a Pod> + Clone)) -> Option<Value> {
    let (resource, count) = node.annotations().get(NPUS)?.split_once('=')?;
    let serves = |operand: &str| {
        pods.clone().any(|pod| {
            let name = pod.labels().get("app.kubernetes.io/name").map(String::as_str);
            name == Some(operand) && is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
        })
    };
    let has_driver = node.annotations().contains_key(HOST_DRIVER) || serves(DRIVER.operand);
    let are_served = has_driver && serves(DEVICE_PLUGIN.operand);
    let wanted = if are_served { count } else { "0" };
    let now = allocatable(node, resource);
    match (now.as_deref(), are_served) {
        // Nothing was ever advertised.
        (None, false) => None,
        (Some(now), _) if now == wanted => None,
        (_, true) => Some(json!({"status": {"capacity": {resource: wanted}, "allocatable": {resource: wanted}}})),
        (Some(_), false) => Some(json!({"status": {"allocatable": {resource: wanted}}})),
    }
}

fn allocatable(node: &Node, resource: &str) -> Option<String> {
    Some(node.status.as_ref()?.allocatable.as_ref()?.get(resource)?.0.clone())
}
