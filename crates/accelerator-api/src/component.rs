//! Settings of one component, and of its further containers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::amount::{SOME, SOME_MESSAGE};
use crate::contract::{NOT_OURS_MESSAGE, not_ours};
use crate::label::LabelValue;
use crate::null::null_is_empty;
use crate::{Affinity, Image, LabelSet, ResourceRequirements, Toleration};

/// What can be set of any container, and between `{}` what else the struct has. `$container` is the container, in the
/// descriptions that `kubectl explain` shows.
macro_rules! container_settings {
    ($(#[$doc:meta])* $name:ident, $container:literal, {$($first:tt)*}, {$($last:tt)*}) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($first)*
            #[doc = concat!("Image of ", $container, ". Each part that is absent or empty keeps its default.")]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub image: Option<Image>,
            #[doc = concat!("Compute resources of ", $container, ". When given, they replace the default limits and requests\nas a whole.")]
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub resources: Option<ResourceRequirements>,
            #[doc = concat!("Environment variables of ", $container, ". They are added to the default ones; one with the name\nof a default replaces it.")]
            #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
            #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
            pub env: Vec<EnvVar>,
            $($last)*
        }
    };
}

container_settings! {
    /// One component: whether it is deployed and what its pods look like. Every setting that is absent or empty keeps its
    /// default, which is in the component's manifest.
    ComponentSpec, "the component's main container",
    {
        /// Whether the component is deployed. Setting it to false removes the component's DaemonSet; node labels stay.
        pub enabled: bool,
    },
    {
        /// Arguments of the component's main container. When given, they replace the default ones as a whole.
        #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
        pub args: Vec<String>,
        /// Labels that a node must have to run the component, besides its deploy label, which decides as before. A node with the deploy
        /// label and without these has no pod, and counts as missing: to keep a component off a node on purpose, set its deploy label
        /// there to `false`. Where a node's labels no longer match, its pod ends.
        #[x_kube(validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())")
            .message("a key must be a qualified name, such as example.com/rack"))]
        #[x_kube(validation = Rule::new(concat!("self.all(k, ", not_ours!("k"), ")")).message(NOT_OURS_MESSAGE))]
        #[schemars(with = "BTreeMap<String, LabelValue>", extend("maxProperties" = 64))]
        #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
        pub node_selector: BTreeMap<String, String>,
        /// The same as nodeSelector with more to say: `In`, `NotIn`, `Exists` and `DoesNotExist`. Both must allow a node. Affinity to pods and
        /// preferences are not here, because a DaemonSet looks at neither.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub affinity: Option<Affinity>,
        /// Tolerations of the component's pods, added to those of daemonsets.tolerations and to the one for `rebellions.ai/npu`.
        #[schemars(length(max = 256))]
        #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
        pub tolerations: Vec<Toleration>,
    }
}

impl ComponentSpec {
    /// The setting that keeps the component off a node with these labels, and what it asks for: `nodeSelector: zone=a`. `None` when
    /// it may run there.
    #[must_use]
    pub fn rejection(&self, labels: &LabelSet) -> Option<String> {
        let missing = self.node_selector.iter().find(|(key, value)| !labels.contains(key, value));
        let by_selector = missing.map(|(key, value)| format!("nodeSelector: {key}={value}"));
        by_selector.or_else(|| {
            let is_rejected = self.affinity.as_ref().is_some_and(|affinity| !affinity.allows(labels));
            is_rejected.then(|| "affinity".to_owned())
        })
    }

    /// Whether it may reject nodes at all.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        !self.node_selector.is_empty() || self.affinity.is_some()
    }
}

container_settings! {
    /// One further container of a component's pods. Every setting that is absent or empty keeps its default, which is in the
    /// component's manifest.
    ContainerSpec, "the container", {}, {}
}

/// A section of a component with settings of its own: what every component has, and these.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),+ }) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        $(#[$doc])*
        pub struct $name {
            /// What every component has.
            #[serde(flatten)]
            pub component: ComponentSpec,
            $(
                $(#[$field_doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$kind>,
            )+
        }

        impl AsRef<ComponentSpec> for $name {
            fn as_ref(&self) -> &ComponentSpec {
                &self.component
            }
        }

        impl From<ComponentSpec> for $name {
            fn from(component: ComponentSpec) -> Self {
                Self { component, ..Self::default() }
            }
        }
    };
}

impl AsRef<Self> for ComponentSpec {
    fn as_ref(&self) -> &Self {
        self
    }
}

section! {
    /// The device plugin: whether it is deployed and what its pods look like.
    DevicePluginSpec {
        /// The container that gives NPUs back to their native driver before the plugin looks for them. Without an image of
        /// its own it runs that of vfioManager.
        give_back: ContainerSpec
    }
}

section! {
    /// The metric exporter: whether it is deployed and what its pods look like.
    #[x_kube(validation = Rule::new("!has(self.hostNetwork) || !self.hostNetwork || !has(self.hostPort) || self.hostPort != 50051")
        .message("must not be 50051, where rbln-daemon listens, when hostNetwork is true").field_path(".hostPort"))]
    MetricExporterSpec {
        /// The vendor's daemon that the exporter asks about NPUs (container rbln-daemon). Its version has to fit the driver.
        daemon: ContainerSpec,
        /// Whether the pods use the node's network: metrics are served at the node's address, at hostPort or else at 9090. rbln-daemon is
        /// then at port 50051 of the node as well, where whoever reaches it can reset NPUs without a password: hostPort alone does not do
        /// that. Default: false.
        host_network: bool,
        /// Port of the node at which metrics are served, 1 to 65535. Absent: none, but 9090 when hostNetwork is true. A node on which
        /// something else has the port runs no pod, and is named.
        #[schemars(range(min = 1, max = 65535))]
        host_port: i32
    }
}

section! {
    /// NPU feature discovery: whether it is deployed and what its pods look like.
    FeatureDiscoverySpec {
        /// How its pods are replaced. In place of daemonsets.updateStrategy.maxUnavailable.
        update_strategy: SurgeStrategy
    }
}

/// How pods are replaced of which two may be on a node for a while. No other component has it: their pods hold a socket, a device or a lock
/// of the node, and the second would wait for the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SurgeStrategy {
    /// On how many nodes the new pod may start before the old one ends: a number, or a percentage of the nodes that it was assigned to,
    /// rounded up. Absent: the old one ends first, as daemonsets.updateStrategy.maxUnavailable says.
    #[x_kube(validation = Rule::new(SOME).message(SOME_MESSAGE))]
    #[schemars(extend("maxLength" = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
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
