//! Settings of one component, and of its further containers.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::null::null_is_empty;
use crate::{Image, ResourceRequirements};

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
    }
}

container_settings! {
    /// One further container of a component's pods. Every setting that is absent or empty keeps its default, which is in the
    /// component's manifest.
    ContainerSpec, "the container", {}, {}
}

/// A section of a component with further containers: what every component has, and a field per container.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// What every component has.
            #[serde(flatten)]
            pub component: ComponentSpec,
            $(
                $(#[$field_doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<ContainerSpec>,
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
        give_back
    }
}

section! {
    /// The metric exporter: whether it is deployed and what its pods look like.
    MetricExporterSpec {
        /// The vendor's daemon that the exporter asks about NPUs (container rbln-daemon). Its version has to fit the driver.
        daemon
    }
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
