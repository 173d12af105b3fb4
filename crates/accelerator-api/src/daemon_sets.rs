//! Settings common to the pods of every component.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::Toleration;
use crate::amount::{SOME, SOME_MESSAGE};
use crate::image::REGISTRY;
use crate::label::LabelValue;
use crate::null::null_is_empty;

/// Settings common to the pods of every component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSets {
    /// Labels for the pods of every component. The label that a DaemonSet selects its pods by (`name`) stays as it is.
    #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())")
        .message("a key must be a qualified name, such as example.com/team"))]
    #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 256))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the pods of every component.
    #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k.lowerAscii()).hasValue())")
        .message("a key must be a qualified name, such as example.com/owner"))]
    #[x_kube(validation = Rule::new("self.map(k, size(k) + size(self[k])).sum() <= 250000")
        .message("must not have more than 250000 characters in all"))]
    #[schemars(extend("maxProperties" = 256))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Tolerations for the pods of every component, added to the one for `rebellions.ai/npu` that they always have. A component's own
    /// are added to these.
    #[schemars(length(max = 256))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Priority class for the pods of every component. Empty or absent: system-node-critical.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    )]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub priority_class_name: String,
    /// How pods are replaced when a component changes. The driver's pods are replaced only when somebody deletes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Where the images of every container of every component come from. An image setting of a component or of one of
    /// its containers wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// Root folder of the kubelets, as their option --root-dir says. Empty or absent: /var/lib/kubelet. Changing it
    /// restarts the pods that talk to the kubelet.
    #[schemars(length(max = 1024), regex(pattern = r"^((/\.?[A-Za-z0-9_-][-A-Za-z0-9_.]*)+)?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubelet_root_dir: String,
}

/// Where images come from: a mirror of the registries, and how it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// Registry host, with a port and a path if it has them: `registry.example.com:5000/mirror`. It takes the place of the
    /// host of every default image: `docker.io/rebellions/k8s-device-plugin` becomes
    /// `registry.example.com:5000/mirror/rebellions/k8s-device-plugin`.
    #[schemars(length(max = 255), regex(pattern = REGISTRY))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// When the kubelet pulls images: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[schemars(extend("enum" = ["", "Always", "IfNotPresent", "Never"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_pull_policy: String,
    /// Names of secrets in the operands' namespace that hold registry credentials. They are added to those of each component.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
}

/// How pods are replaced when a component changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// How many nodes may be without a running pod of a component while it is updated: a number, or a percentage of the
    /// nodes that it was assigned to, rounded up. Default: 10%. The driver ignores it. Nodes that are down count, so a small number can stall
    /// an update.
    #[x_kube(validation = Rule::new(SOME).message(SOME_MESSAGE))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// How many seconds a pod must have been ready without interruption to count as available: 0 to 3600. A version that
    /// crashes within this time stops an update after maxUnavailable nodes. Default: 10. Changing it restarts nothing.
    #[schemars(range(min = 0, max = 3600))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
}
