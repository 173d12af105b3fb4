//! An image reference in parts, so that a mirror registry or a digest can be set alone.

use serde::{Deserialize, Serialize};

use crate::null::null_is_empty;

/// What a registry may look like: a host, with a port and a path if it has them, or nothing.
pub(crate) const REGISTRY: &str =
    r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*)?$";

/// What a repository may look like: with a host in front and a tag or a digest behind if it has them, or nothing.
pub(crate) const NAME: &str = r"^(([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[a-f0-9]{64})?)?$";

/// Image of a container. Each part that is absent or empty keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, kube::KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.name) || !self.name.matches('[:][^/]*$|@') || !has(self.tag) || self.tag == ''")
    .message("name already ends in a tag or digest; give either that or tag")
    .field_path(".tag"))]
pub struct Image {
    /// Registry host, with a port and a path if it has them: `registry.example.com:5000/mirror`.
    #[schemars(
        length(max = 255),
        regex(pattern = REGISTRY)
    )]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// Repository: `rebellions/k8s-device-plugin`. When it begins with a host (`registry.example.com/device-plugin`) and
    /// registry is not given, the image comes from that host.
    #[schemars(length(max = 255), regex(pattern = NAME))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Tag. Ignored when digest is given.
    #[schemars(regex(pattern = r"^([A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// Digest, such as `sha256:` and 64 hexadecimal digits. It wins over tag.
    #[schemars(regex(pattern = r"^(sha256:[a-f0-9]{64})?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// When the kubelet pulls the image: Always, IfNotPresent or Never. Default: IfNotPresent.
    #[schemars(extend("enum" = ["", "Always", "IfNotPresent", "Never"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_pull_policy: String,
    /// Names of secrets in the operands' namespace that hold registry credentials. They are added to the default ones.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
}
