//! Tolerations, with the rules that the API server has for them in a pod.

use serde::{Deserialize, Serialize};

/// Lets pods run on a node that has a matching taint, as in a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, kube::KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')")
    .message("operator must be Exists when key is empty").field_path(".operator"))]
#[x_kube(validation = Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''")
    .message("value must be empty when operator is Exists").field_path(".value"))]
#[x_kube(validation = Rule::new("!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')")
    .message("effect must be NoExecute when tolerationSeconds is set").field_path(".effect"))]
pub struct Toleration {
    /// Key of the taint. Empty or absent, with operator Exists: every taint.
    #[x_kube(validation = Rule::new("self == '' || !format.qualifiedName().validate(self).hasValue()")
        .message("must be a qualified name, such as example.com/dedicated"))]
    #[schemars(length(max = 317))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Exists (any value) or Equal (this value). Empty or absent: Equal.
    #[schemars(extend("enum" = ["", "Exists", "Equal"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operator: String,
    /// Value of the taint, with operator Equal.
    #[schemars(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Effect of the taint: NoSchedule, PreferNoSchedule or NoExecute. Empty or absent: every effect.
    #[schemars(extend("enum" = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
    /// With effect NoExecute: how many seconds a pod stays on a node after the taint appeared. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}
