//! Settings of the driver: which image a node needs, and how the driver of a working node is replaced.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::Schema;
use serde::{Deserialize, Serialize};

use crate::amount::{ANY, ANY_MESSAGE, SOME, SOME_MESSAGE};
use crate::image::NAME;
use crate::{ComponentSpec, ContainerSpec, Duration};

/// One requirement of a label selector: `key`, `!key`, `key=value`, `key!=value`, `key in (value,value)`, `key notin (value)`.
macro_rules! requirement {
    () => {
        concat!(
            "(! *",
            key!(),
            "|",
            key!(),
            "( *(=|==|!=) *",
            value!(),
            "| +(in|notin) +\\( *",
            value!(),
            "( *, *",
            value!(),
            ")* *\\))?)"
        )
    };
}

/// A label's key.
macro_rules! key {
    () => {
        "([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
    };
}

/// A label's value.
macro_rules! value {
    () => {
        "([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
    };
}

/// A label selector as kubectl takes it: requirements with a comma between them, or nothing.
const SELECTOR: &str = concat!("^( *", requirement!(), " *(, *", requirement!(), " *)*)?$");

/// The driver: which driver nodes get, and how it is replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[schemars(transform = allow_family)]
#[serde(rename_all = "camelCase")]
pub struct DriverSpec {
    /// What every component has.
    #[serde(flatten)]
    pub component: ComponentSpec,
    /// Where the driver comes from: managed (a container loads it) or preinstalled (every host has one of its own, and no
    /// driver is deployed). Empty or absent: managed. Changing it to preinstalled removes the driver's DaemonSets.
    #[schemars(extend("enum" = ["", "managed", "preinstalled"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Version of the driver, such as `3.0.0`. It is what `{version}` stands for in imageTagTemplate. Empty or absent: that of
    /// the default image.
    #[schemars(regex(pattern = r"^([A-Za-z0-9_][-A-Za-z0-9_.]{0,62})?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Tag of the driver's image, made for each node: `{version}`, `{kernel}` (release, such as `5.15.0-130-generic`), `{os}` (`ID` and
    /// `VERSION_ID` of os-release, such as `ubuntu22.04`), `{arch}` (such as `amd64`) and `{family}` (of its NPUs, such as `atom`).
    /// Nodes whose values differ get a DaemonSet each. Empty or absent: `{version}-{kernel}-{os}`. An image with a tag or a digest
    /// of its own is taken as it is, and imageTagTemplate and version are ignored.
    #[x_kube(validation = Rule::new(
        "!self.replace('{version}', '').replace('{kernel}', '').replace('{os}', '').replace('{arch}', '').replace('{family}', '').matches('[{}]')"
    ).message("may have the variables {version}, {kernel}, {os}, {arch} and {family}, and no other"))]
    #[schemars(length(max = 128), regex(pattern = r"^([A-Za-z0-9_{][-A-Za-z0-9_.{}]*)?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_tag_template: String,
    /// How the driver of a node is replaced when another one is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_policy: Option<UpgradePolicy>,
    /// The container that gives NPUs back to their native driver before the driver is loaded. Without an image of its own it
    /// runs that of vfioManager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_back: Option<ContainerSpec>,
    /// The vendor's driver manager (container k8s-driver-manager), which unloads a driver that is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<ContainerSpec>,
}

impl AsRef<ComponentSpec> for DriverSpec {
    fn as_ref(&self) -> &ComponentSpec {
        &self.component
    }
}

impl From<ComponentSpec> for DriverSpec {
    fn from(component: ComponentSpec) -> Self {
        Self { component, ..Self::default() }
    }
}

impl DriverSpec {
    /// Whether every host has a driver of its own.
    #[must_use]
    pub fn is_preinstalled(&self) -> bool {
        self.mode == "preinstalled"
    }
}

/// Lets `{family}` stand in the name of the driver's own image, and of no other.
fn allow_family(schema: &mut Schema) {
    if let Some(name) = schema.pointer_mut("/properties/image/properties/name") {
        name["pattern"] = NAME.replace("[a-z0-9]+", r"([a-z0-9]|\{family\})+").into();
        let text = name["description"].as_str().unwrap_or_default();
        name["description"] =
            format!("{text} `{{family}}` stands for the family of a node's NPUs: `rebellions/{{family}}/rbln-driver`.")
                .into();
    }
}

/// How the driver of a node is replaced when another one is wanted: another image, or other arguments or environment
/// variables of the driver's main container. Nothing else replaces a driver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.onFailure) || self.onFailure != 'Rollback' || (has(self.autoUpgrade) && self.autoUpgrade)")
    .message("Rollback needs autoUpgrade: true").field_path(".onFailure"))]
pub struct UpgradePolicy {
    /// Whether drivers are replaced node by node: the node is cordoned, pods that use its NPUs are evicted, the driver is replaced
    /// and tried, and the node is uncordoned. Default: false, a node's driver is replaced when somebody deletes its pod, and the
    /// status says how many wait. Turning it off lifts every cordon that the upgrade made.
    #[serde(default)]
    pub auto_upgrade: bool,
    /// How many nodes are upgraded at once: a number, or a percentage of the driver's nodes, rounded up. Default: 1.
    #[x_kube(validation = Rule::new(SOME).message(SOME_MESSAGE))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<IntOrString>,
    /// How many of the driver's nodes may be unusable at once, whatever the cause: a number, or a percentage of the driver's nodes,
    /// rounded up. No further node is upgraded beyond it but one that is unusable already. Default: 25%.
    #[x_kube(validation = Rule::new(SOME).message(SOME_MESSAGE))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// Pods that are waited for on a node before any is evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_jobs: Option<WaitForJobs>,
    /// How pods that use NPUs leave a node. Disruption budgets are obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionPolicy>,
    /// Whether other pods leave a node too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainPolicy>,
    /// How long a node may take from the end of its old driver until the new one is ready and as many NPUs as before are
    /// allocatable: 1s to 1h. Default: 10m. A node that takes longer has failed.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('1h')")
        .message("must be from 1s to 1h"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_timeout: Option<Duration>,
    /// How many nodes may fail: a number, or a percentage of the nodes that were tried, rounded up. With more, no further node is
    /// upgraded. Default: 10%.
    #[x_kube(validation = Rule::new(ANY).message(ANY_MESSAGE))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<IntOrString>,
    /// What happens when more nodes fail than failureThreshold: Pause (no further node is upgraded) or Rollback (upgraded nodes get
    /// the driver before it again, under the same limits). Empty or absent: Pause.
    #[schemars(extend("enum" = ["", "Pause", "Rollback"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub on_failure: String,
    /// Whether no further node is upgraded for now. Nodes that are being upgraded are finished. Default: false.
    #[serde(default)]
    pub paused: bool,
}

/// Pods that are waited for on a node before any is evicted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitForJobs {
    /// Which pods, of any namespace, by their labels: `app=training,tier in (a,b)`. Empty or absent: none is waited for.
    #[schemars(length(max = 1024), regex(pattern = SELECTOR))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_selector: String,
    /// For how long, at most: up to 720h. Default: 0s, which is for ever. Pods that use NPUs are evicted after it.
    #[x_kube(validation = Rule::new("duration(self) <= duration('720h')").message("must be from 0s to 720h"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// How pods that use NPUs leave a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictionPolicy {
    /// How long pods may take to leave: 1s to 24h. Default: 5m. A node on which they take longer has failed, and is tried again later.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')")
        .message("must be from 1s to 24h"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whether pods are evicted that nothing would make anew. Default: false, a node with such a pod fails.
    #[serde(default)]
    pub force: bool,
    /// Whether pods are evicted that have an emptyDir, whose data is lost. Default: false, a node with such a pod fails.
    #[serde(default)]
    pub delete_empty_dir_data: bool,
}

/// Whether other pods leave a node too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainPolicy {
    /// Whether every pod leaves a node whose driver is replaced, and not only those that use NPUs. Pods of DaemonSets stay.
    /// Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Which of the pods that use no NPU leave, by their labels: `app=training,tier in (a,b)`. Empty or absent: all.
    #[schemars(length(max = 1024), regex(pattern = SELECTOR))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_selector: String,
}
