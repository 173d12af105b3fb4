//! What the labeler keeps of a node: everything that its rules need and nothing else, so that thousands fit.

use std::collections::BTreeMap;

use accelerator_api::contract::{
    COMPONENTS, DEPLOY, NODE_LABELER, PCI_VENDOR, SKIP_LABEL, WORKLOAD_CONFIG_LABEL, Workload,
};
use accelerator_runtime::Stored;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One value per component, in the order of [`COMPONENTS`].
pub type PerComponent<T> = [T; COMPONENTS.len()];

/// A node, as the rules see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its identity: a node made anew under the same name has another.
    pub uid: Box<str>,
    /// Its version.
    pub version: u64,
    /// Its label `rebellions.ai/npu.workload.config`.
    pub workload: WorkloadLabel,
    /// Whether the admin asked to leave the node as it is.
    pub skip: bool,
    /// Whether an NPU has been discovered on it.
    pub has_npu: bool,
    /// Its deploy labels.
    pub deploy: PerComponent<DeployLabel>,
}

/// The admin's label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WorkloadLabel {
    /// Not there.
    #[default]
    Absent,
    /// A mode.
    Mode(Workload),
    /// Something else, such as a typo.
    Unknown(Box<str>),
}

/// A deploy label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeployLabel {
    /// Not there.
    #[default]
    Absent,
    /// `true`, written by us.
    Ours,
    /// `true`, written by somebody else, such as an admin who works without us.
    Theirs,
    /// Any other value: an admin's `false`, or a driver manager's pause. Honoured: neither overwritten nor removed.
    Foreign,
}

impl DeployLabel {
    /// Whether the component's DaemonSet selects the node by it.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::Ours | Self::Theirs)
    }
}

impl Stored for NodeView {
    fn version(&self) -> u64 {
        self.version
    }
}

impl NodeView {
    /// Reads a node's metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        let empty = BTreeMap::new();
        let labels = meta.labels.as_ref().unwrap_or(&empty);
        let workload = match labels.get(WORKLOAD_CONFIG_LABEL) {
            None => WorkloadLabel::Absent,
            Some(value) => Workload::parse(value)
                .map_or_else(|| WorkloadLabel::Unknown(value.as_str().into()), WorkloadLabel::Mode),
        };
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: accelerator_runtime::version_of(meta),
            workload,
            skip: labels.get(SKIP_LABEL).is_some_and(|value| value == "true"),
            has_npu: labels.iter().any(|(key, value)| value == "true" && names_npu(key)),
            deploy: COMPONENTS.map(|component| match labels.get(component.deploy_label).map(String::as_str) {
                None => DeployLabel::Absent,
                Some(DEPLOY) if is_ours(meta, component.deploy_label) => DeployLabel::Ours,
                Some(DEPLOY) => DeployLabel::Theirs,
                Some(_) => DeployLabel::Foreign,
            }),
        }
    }
}

/// Whether the API server has us down as the label's writer.
fn is_ours(meta: &ObjectMeta, label: &str) -> bool {
    let entries = meta.managed_fields.iter().flatten();
    entries.filter(|entry| entry.manager.as_deref() == Some(NODE_LABELER)).any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:labels"]);
        fields.is_some_and(|labels| labels.get(format!("f:{label}")).is_some())
    })
}

/// Whether a label key is Node Feature Discovery's sign of a PCI device of our vendor, whatever fields of the device the
/// cluster's discovery was told to put into the label: `pci-1eff.present`, `pci-1200_1eff.present`,
/// `pci-1200_1eff_1250.present`, … Source: NFD's `deviceLabelFields`, of which class and vendor are the default.
fn names_npu(key: &str) -> bool {
    let device = key.strip_prefix("feature.node.kubernetes.io/pci-").and_then(|rest| rest.strip_suffix(".present"));
    let mut fields = device.into_iter().flat_map(|device| device.split('_'));
    let (first, second) = (fields.next(), fields.next());
    // A vendor is the first field, or the second after a class: a device of another vendor may have our vendor's number.
    first == Some(PCI_VENDOR) || (second == Some(PCI_VENDOR) && first.is_some_and(is_pci_class))
}

/// Whether four hexadecimal digits are a PCI class code and not a vendor: base classes end at 13, subclasses at 80.
/// Source: PCI Code and ID Assignment Specification.
fn is_pci_class(field: &str) -> bool {
    u16::from_str_radix(field, 16).is_ok_and(|code| field.len() == 4 && code >> 8 <= 0x13 && code & 0xff <= 0x80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
    use serde_json::json;

    #[test]
    fn an_npu_is_found_in_any_label_format_that_names_the_vendor() {
        for device in ["1eff", "1200_1eff", "1200_1eff_1250", "1eff_1250", "0880_1eff", "1200_1eff_1250_1eff_0001"] {
            assert!(names_npu(&format!("feature.node.kubernetes.io/pci-{device}.present")), "{device}");
        }
        for device in ["10de", "0302_10de", "10de_1eff", "0302_10de_1eff", "11eff", "1200_1eff0", ""] {
            assert!(!names_npu(&format!("feature.node.kubernetes.io/pci-{device}.present")), "{device}");
        }
        assert!(!names_npu("feature.node.kubernetes.io/pci-1200_1eff.sriov.capable"));
        assert!(!names_npu("example.com/pci-1eff.present"));
    }

    #[test]
    fn a_label_is_ours_when_the_api_server_says_so() {
        let label = |name: &str| format!("rebellions.ai/npu.deploy.{name}");
        let meta = ObjectMeta {
            resource_version: Some("42".into()),
            labels: Some(
                [("driver", "true"), ("device-plugin", "true"), ("metric-exporter", "false")]
                    .map(|(name, value)| (label(name), value.to_owned()))
                    .into(),
            ),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some("node-labeler".into()),
                fields_v1: Some(FieldsV1(json!({"f:metadata": {"f:labels": {format!("f:{}", label("driver")): {}}}}))),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        };
        let view = NodeView::of(&meta);
        assert_eq!(view.version, 42);
        assert_eq!(
            view.deploy,
            [DeployLabel::Ours, DeployLabel::Theirs, DeployLabel::Foreign, DeployLabel::Absent, DeployLabel::Absent]
        );
    }
}
