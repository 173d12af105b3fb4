//! Compute resources of a container, with the rules that the API server has for them in a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Quantity;
use crate::null::null_is_empty;

/// Names of resources that a container may have. An extended resource's name has to leave room for `requests.`, under which
/// quotas count it.
const NAMES: &str = "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || (k.startsWith('hugepages-') ? isQuantity(k.substring(10)) && !format.qualifiedName().validate(k).hasValue() : k.contains('/') && !k.startsWith('requests.') && !format.qualifiedName().validate('requests.' + k).hasValue()))";

/// Huge pages come in pieces. What is no name of a resource is told by another rule.
const PAGES: &str = "self.all(k, !k.startsWith('hugepages-') || !isQuantity(k.substring(10)) || (quantity(k.substring(10)).isInteger() && quantity(string(self[k])).isInteger() && quantity(k.substring(10)).asInteger() > 0 && quantity(string(self[k])).asInteger() > 0 && quantity(string(self[k])).asInteger() % quantity(k.substring(10)).asInteger() == 0))";

/// Compute resources of a container, as in a pod. When given, they replace the default limits
/// and requests as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, kube::KubeSchema)]
#[x_kube(validation = Rule::new(
    "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) || quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)"
).message("requests must not exceed limits").field_path(".requests"))]
#[x_kube(validation = Rule::new(
    "!has(self.requests) || self.requests.all(k, !(k.startsWith('hugepages-') || k.contains('/')) || has(self.limits) && k in self.limits && quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) == 0)"
).message("huge pages and extended resources need a limit, and the request must equal it").field_path(".requests"))]
#[x_kube(validation = Rule::new(
    "!(has(self.limits) && self.limits.exists(k, k.startsWith('hugepages-'))) || (has(self.limits) && ('cpu' in self.limits || 'memory' in self.limits)) || (has(self.requests) && ('cpu' in self.requests || 'memory' in self.requests))"
).message("huge pages need cpu or memory beside them").field_path(".limits"))]
pub struct ResourceRequirements {
    /// The most that the container may use, by resource: `memory: 200Mi`.
    #[x_kube(validation = Rule::new(NAMES)
        .message("a key must be cpu, memory, ephemeral-storage, hugepages-SIZE or a qualified name, such as example.com/device"))]
    #[x_kube(validation = Rule::new("self.all(k, !k.contains('/') || quantity(string(self[k])).isInteger())")
        .message("an extended resource must be a whole number"))]
    #[x_kube(validation = Rule::new(PAGES).message("huge pages must be a positive multiple of their size"))]
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
    /// What a node must have free for the container, by resource: `cpu: 100m`.
    #[x_kube(validation = Rule::new(NAMES)
        .message("a key must be cpu, memory, ephemeral-storage, hugepages-SIZE or a qualified name, such as example.com/device"))]
    #[schemars(extend("maxProperties" = 32))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
}
