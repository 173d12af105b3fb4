//! The spec of an AcceleratorConfig. Doc comments here are what `kubectl explain` prints: they say what a field does, its
//! default and whether changing it restarts pods.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::null::null_is_empty;
use crate::{
    AcceleratorConfigStatus, ComponentSpec, DaemonSets, DevicePluginSpec, DriverSpec, FeatureDiscoverySpec,
    MetricExporterSpec,
};

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
    printcolumn(
        name = "Generation",
        type_ = "integer",
        json_path = ".metadata.generation",
        description = "The generation of the spec; Ready speaks of it when Observed is the same"
    ),
    printcolumn(
        name = "Observed",
        type_ = "integer",
        json_path = ".status.observedGeneration",
        description = "The generation of the spec that Ready speaks of"
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
    /// Kernel driver and user-mode libraries, on nodes in mode container. Its pods are replaced only as upgradePolicy says,
    /// or when somebody deletes them (update strategy OnDelete), because replacing one reloads the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverSpec>,
    /// Advertises NPUs to the kubelet, on nodes in mode container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_plugin: Option<DevicePluginSpec>,
    /// Serves NPU metrics to Prometheus, on nodes in mode container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric_exporter: Option<MetricExporterSpec>,
    /// NPU feature discovery: labels nodes with the properties of their NPUs, in both modes. It writes a feature file
    /// that Node Feature Discovery turns into node labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfd: Option<FeatureDiscoverySpec>,
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
