//! The spec of an AcceleratorConfig. Doc comments here are what `kubectl explain` prints: they say what a field does, its
//! default and whether changing it restarts pods.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::null::null_is_empty;
use crate::{AcceleratorConfigStatus, Image, ResourceRequirements, Toleration};

/// Describes, once for the whole cluster, which accelerator software runs on nodes and how. Which node runs what is said
/// by the node label `rebellions.ai/npu.workload.config` (`container` or `vm-passthrough`). When there are several
/// AcceleratorConfigs, the oldest counts and the others wait with the condition Accepted=False.
#[allow(clippy::duplicated_attributes, reason = "one group of keys per printer column")]
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize)]
#[kube(
    group = "petasus.io",
    version = "v1beta1",
    kind = "AcceleratorConfig",
    plural = "acceleratorconfigs",
    shortname = "ac",
    shortname = "accelconfig",
    shortname = "accelconf",
    doc = "Which accelerator software runs on which nodes, and how. One per cluster counts: the oldest.",
    status = "AcceleratorConfigStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether every enabled component runs on every node that it was assigned to"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is ready or not"
    ),
    printcolumn(
        name = "Container",
        type_ = "integer",
        json_path = ".status.nodes.container",
        description = "Nodes whose NPUs go to pods"
    ),
    printcolumn(
        name = "VM-Passthrough",
        type_ = "integer",
        json_path = ".status.nodes.vmPassthrough",
        description = "Nodes whose NPUs go to virtual machines"
    ),
    printcolumn(
        name = "No-Mode",
        type_ = "integer",
        json_path = ".status.nodes.withoutMode",
        description = "Nodes that have NPUs and no mode",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "What is missing",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AcceleratorConfigSpec {
    /// One section per vendor. A vendor without a section is not managed.
    pub providers: Providers,
}

/// An object without a spec configures nothing; the predecessor's sample is one. Read as an option, because that is how
/// serde tells a missing field from a wrong one.
impl<'de> Deserialize<'de> for AcceleratorConfigSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        struct Fields {
            #[serde(default, deserialize_with = "null_is_empty")]
            providers: Providers,
        }
        let Fields { providers } = Option::<Fields>::deserialize(deserializer)?.unwrap_or_default();
        Ok(Self { providers })
    }
}

/// One section per vendor. A vendor without a section is not managed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Providers {
    /// Software for Rebellions NPUs (PCI vendor 1eff). Absent: none of its components is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebellions: Option<Rebellions>,
}

/// Software for Rebellions NPUs. A component without a section is not deployed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebellions {
    /// What nodes are for when they do not say so themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadDefaults>,
    /// Settings common to the pods of every component. Changing one restarts the pods that it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemonsets: Option<DaemonSets>,
    /// Kernel driver and user-mode libraries, on nodes in mode container. Its pods are replaced only when somebody
    /// deletes them (update strategy OnDelete), because replacing one reloads the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<ComponentSpec>,
    /// Advertises NPUs to the kubelet, on nodes in mode container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_plugin: Option<ComponentSpec>,
    /// Serves NPU metrics to Prometheus, on nodes in mode container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_exporter: Option<ComponentSpec>,
    /// NPU feature discovery: labels nodes with the properties of their NPUs, in both modes. It writes a feature file
    /// that Node Feature Discovery turns into node labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfd: Option<ComponentSpec>,
    /// Binds NPUs to the driver vfio-pci, on nodes in mode vm-passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfio_manager: Option<ComponentSpec>,
}

/// What nodes are for when they do not say so themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadDefaults {
    /// Mode of a node that has NPUs but no label `rebellions.ai/npu.workload.config`: `container` or `vm-passthrough`.
    /// Absent: such nodes are left alone. A node's own label always wins.
    #[schemars(extend("enum" = ["container", "vm-passthrough"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

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
    #[schemars(extend("maxProperties" = 256))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Tolerations for the pods of every component, added to the one for `rebellions.ai/npu` that they always have.
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
    /// How pods are replaced when a component changes. The driver is not affected: its pods are replaced only when
    /// somebody deletes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// Schema of a label's value.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
struct LabelValue(
    #[schemars(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    #[expect(dead_code, reason = "only its schema is used")]
    String,
);

/// How pods are replaced when a component changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// How many nodes may be without a running pod of a component while it is updated: a number, or a percentage of the
    /// nodes that it was assigned to, rounded up. Default: 10%. Nodes that are down count, so a small number can stall
    /// an update.
    #[x_kube(validation = Rule::new(
        "type(self) == int ? self >= 1 : self.matches('^[0-9]+%$') && int(self.replace('%', '')) >= 1 && int(self.replace('%', '')) <= 100"
    ).message("must be a number of at least 1, or a percentage from 1% to 100%"))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// One component: whether it is deployed and what its pods look like. Every setting that is absent or empty keeps its
/// default, which is in the component's manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentSpec {
    /// Whether the component is deployed. Setting it to false removes the component's DaemonSet; node labels stay.
    pub enabled: bool,
    /// Image of the component's main container. Each part that is absent or empty keeps its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Compute resources of the component's main container. When given, they replace the default limits and requests
    /// as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Environment variables of the component's main container. They are added to the default ones; one with the name
    /// of a default replaces it.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Arguments of the component's main container. When given, they replace the default ones as a whole.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// An environment variable with a literal value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnvVar {
    /// Name of the variable: any printable ASCII characters but `=`, as for a container.
    #[schemars(length(min = 1), regex(pattern = r"^[ -<>-~]+$"))]
    pub name: String,
    /// Value of the variable. `$(OTHER)` is replaced by the value of an earlier variable, as for a container. Default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}
