//! What the labeler keeps of a node: everything that its rules need and nothing else, so that thousands fit.

use std::collections::BTreeMap;

use accelerator_api::LabelSet;
use accelerator_api::contract::{
    COMPONENTS, Component, DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DEPLOY, NODE_LABELER, OWNED_LABELS_ANNOTATION,
    PAUSED_PREFIX, PCI_VENDOR, SKIP_LABEL, WORKLOAD_CONFIG_LABEL, Workload,
};
use accelerator_runtime::Stored;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use crate::exclusion::tainted_at;

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
    /// The components whose deploy labels are ours by our own record on the node.
    pub recorded: PerComponent<bool>,
    /// Whether a label is ours only because it was when we saw the node before: nothing on the node says so any more.
    pub is_record_due: bool,
    /// The components on whose labels a driver manager's pause is, whoever's they are.
    pub paused: PerComponent<bool>,
    /// The driver controller's annotation that asks components which use the driver to step aside.
    pub paused_until: Option<Box<str>>,
    /// Who else wrote the node when we had last written it or later, by its field manager.
    pub other_writer: Option<Box<str>>,
    /// When its taints were last changed, if it has any.
    pub tainted_at: Option<Timestamp>,
    /// All its labels, which settings of components may ask for.
    pub labels: LabelSet,
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
    /// `true`, and ours.
    Ours,
    /// `true`, and somebody else's, such as an admin's who works without us.
    Theirs,
    /// Any other value on a label that was ours: a driver manager's pause, or an admin's `false`. Honoured: neither
    /// overwritten nor removed. When it is `true` again it is ours again.
    Paused,
    /// An empty value on a label that was ours, of a component that uses the driver. Driver managers write it over a label
    /// that was not there, as when the component had stepped aside. It says nothing: as good as not there.
    Emptied,
    /// Any other value on a label that never was ours. Honoured as well.
    Foreign,
    /// Of a decision only: not there while the driver is replaced, and ours when it comes back.
    SteppedAside,
}

impl DeployLabel {
    /// Whether the component's DaemonSet selects the node by it.
    #[must_use]
    pub fn is_set(self) -> bool {
        matches!(self, Self::Ours | Self::Theirs)
    }

    /// Whether we may remove it once it is `true`.
    #[must_use]
    pub fn is_owned(self) -> bool {
        matches!(self, Self::Ours | Self::Paused | Self::Emptied | Self::SteppedAside)
    }

    /// The same label, as ours.
    fn owned(self) -> Self {
        match self {
            Self::Theirs => Self::Ours,
            Self::Foreign => Self::Paused,
            same => same,
        }
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
        let recorded = recorded(meta);
        let label = |component: &Component| match labels.get(component.deploy_label).map(String::as_str) {
            None => DeployLabel::Absent,
            Some(DEPLOY) if wrote(meta, component.deploy_label) => DeployLabel::Ours,
            Some(DEPLOY) => DeployLabel::Theirs,
            Some(_) => DeployLabel::Foreign,
        };
        let is_paused = |component: &Component| {
            labels.get(component.deploy_label).is_some_and(|value| value.starts_with(PAUSED_PREFIX))
        };
        let is_empty = |component: &Component| labels.get(component.deploy_label).is_some_and(String::is_empty);
        let annotation = |key: &str| meta.annotations.as_ref()?.get(key).map(|value| value.as_str().into());
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: accelerator_runtime::version_of(meta),
            workload,
            skip: labels.get(SKIP_LABEL).is_some_and(|value| value == "true"),
            has_npu: labels.iter().any(|(key, value)| value == "true" && names_npu(key)),
            deploy: std::array::from_fn(|index| {
                let component = COMPONENTS[index];
                match label(component) {
                    _ if recorded[index] && component.uses_driver && is_empty(component) => DeployLabel::Emptied,
                    label if recorded[index] => label.owned(),
                    label => label,
                }
            }),
            recorded,
            is_record_due: false,
            paused: COMPONENTS.map(is_paused),
            paused_until: annotation(DEPENDENTS_PAUSED_UNTIL_ANNOTATION),
            other_writer: other_writer(meta),
            tainted_at: tainted_at(meta),
            labels: LabelSet::from(labels),
        }
    }

    /// Keeps what was ours when this node was seen before, in case that nothing on it says so any more: a release before
    /// this one left no record, and the API server's book-keeping ends when somebody else writes the label or wipes it.
    pub fn inherit(&mut self, before: &Self) {
        if self.uid != before.uid {
            return;
        }
        for (label, before) in self.deploy.iter_mut().zip(before.deploy) {
            if before.is_owned() && !label.is_owned() && *label != DeployLabel::Absent {
                *label = label.owned();
                self.is_record_due = true;
            }
        }
    }
}

/// The components that our record names.
fn recorded(meta: &ObjectMeta) -> PerComponent<bool> {
    let record = meta.annotations.iter().flatten().find(|(key, _)| *key == OWNED_LABELS_ANNOTATION);
    let names: Vec<_> = record.into_iter().flat_map(|(_, names)| names.split(',')).collect();
    COMPONENTS.map(|component| names.contains(&component.name))
}

/// The record that names these components.
#[must_use]
pub fn record(components: PerComponent<bool>) -> String {
    let named = COMPONENTS.iter().zip(components).filter(|(_, is_named)| *is_named);
    named.map(|(component, _)| component.name).collect::<Vec<_>>().join(",")
}

/// Whether the API server has us down as the label's writer. That is all that there is on nodes that a release before this
/// one labelled.
fn wrote(meta: &ObjectMeta, label: &str) -> bool {
    let entries = meta.managed_fields.iter().flatten();
    entries.filter(|entry| entry.manager.as_deref() == Some(NODE_LABELER)).any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:labels"]);
        fields.is_some_and(|labels| labels.get(format!("f:{label}")).is_some())
    })
}

/// Programs of Kubernetes itself that write nodes all the time and have nothing to do with labels that are not theirs, and
/// what the API server calls those that do not say who they are.
const BYSTANDERS: [&str; 3] = ["kubelet", "kube-controller-manager", "unknown"];

/// The field manager, other than ours, that wrote the node last, if that was when we last did or later. A manager that only
/// removes fields leaves no trace.
fn other_writer(meta: &ObjectMeta) -> Option<Box<str>> {
    let entries = meta.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
    let writers = entries.filter_map(|entry| Some((entry.time.as_ref()?.0, entry.manager.as_deref()?)));
    let (ours, others): (Vec<_>, Vec<_>) = writers.partition(|(_, manager)| *manager == NODE_LABELER);
    let last = ours.into_iter().map(|(time, _)| time).max()?;
    let others = others.into_iter().filter(|(time, manager)| *time >= last && !BYSTANDERS.contains(manager));
    others.max().map(|(_, manager)| manager.into())
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

    /// A node with these values of the deploy labels of the first components, and with a record of ours, the API server's
    /// word that we wrote those named, or neither.
    fn node(values: [&str; 3], record: Option<&str>, wrote: &[&str]) -> NodeView {
        let label = |name: &str| format!("rebellions.ai/npu.deploy.{name}");
        let names = ["driver", "device-plugin", "metric-exporter"];
        let labels = names.iter().zip(values).filter(|(_, value)| !value.is_empty());
        let fields: serde_json::Map<_, _> =
            wrote.iter().map(|name| (format!("f:{}", label(name)), json!({}))).collect();
        NodeView::of(&ObjectMeta {
            resource_version: Some("42".into()),
            labels: Some(labels.map(|(name, value)| (label(name), value.to_owned())).collect()),
            annotations: record.map(|names| [(OWNED_LABELS_ANNOTATION.to_owned(), names.to_owned())].into()),
            managed_fields: Some(vec![ManagedFieldsEntry {
                manager: Some("node-labeler".into()),
                fields_v1: Some(FieldsV1(json!({"f:metadata": {"f:labels": fields}}))),
                ..ManagedFieldsEntry::default()
            }]),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn who_wrote_the_node_after_us_is_known_unless_it_is_a_bystander() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
        let entry = |(manager, second, subresource): &(&str, i64, &str)| ManagedFieldsEntry {
            manager: Some((*manager).into()),
            time: Some(Time(k8s_openapi::jiff::Timestamp::constant(*second, 0))),
            subresource: Some((*subresource).to_owned()).filter(|name| !name.is_empty()),
            ..ManagedFieldsEntry::default()
        };
        let writer = |entries: &[(&str, i64, &str)]| {
            let managed_fields = Some(entries.iter().map(entry).collect());
            NodeView::of(&ObjectMeta { managed_fields, ..ObjectMeta::default() }).other_writer
        };
        let us = ("node-labeler", 5, "");
        assert_eq!(writer(&[us, ("early", 4, ""), ("kubelet", 9, ""), ("scheduler", 9, "status")]), None);
        assert_eq!(writer(&[us, ("first", 5, ""), ("last", 6, "")]).as_deref(), Some("last"));
        assert_eq!(writer(&[("label-syncer", 6, "")]), None, "we have not written it");
    }

    #[test]
    fn a_label_is_ours_by_our_record_or_when_the_api_server_says_so() {
        use DeployLabel::{Absent, Foreign, Ours, Paused, Theirs};
        let first = |view: NodeView| [view.deploy[0], view.deploy[1], view.deploy[2]];
        let values = ["true", "true", "false"];
        assert_eq!(node(values, None, &["driver"]).version, 42);
        assert_eq!(first(node(values, None, &["driver"])), [Ours, Theirs, Foreign]);
        assert_eq!(first(node(values, Some("driver,metric-exporter"), &[])), [Ours, Theirs, Paused]);
        assert_eq!(first(node(values, Some("driver"), &["device-plugin"])), [Ours, Ours, Foreign]);
        assert_eq!(first(node(["", "true", ""], Some("driver"), &[])), [Absent, Theirs, Absent]);
        assert_eq!(first(node(values, Some("unheard-of"), &[])), [Theirs, Theirs, Foreign]);
    }

    #[test]
    fn an_empty_value_says_nothing_on_a_label_of_ours_that_a_driver_manager_may_have_found_missing() {
        let emptied = |record| {
            let keys =
                ["driver", "device-plugin"].map(|name| (format!("rebellions.ai/npu.deploy.{name}"), String::new()));
            let annotations = [(OWNED_LABELS_ANNOTATION.to_owned(), String::from(record))];
            let meta = ObjectMeta {
                labels: Some(keys.into()),
                annotations: Some(annotations.into()),
                ..ObjectMeta::default()
            };
            NodeView::of(&meta).deploy[..2].to_vec()
        };
        assert_eq!(emptied("driver,device-plugin"), [DeployLabel::Paused, DeployLabel::Emptied]);
        assert_eq!(emptied(""), [DeployLabel::Foreign, DeployLabel::Foreign]);
    }

    #[test]
    fn what_was_ours_stays_ours_whatever_the_api_server_forgets() {
        use DeployLabel::{Absent, Foreign, Ours, Paused, Theirs};
        let seen = |before: &NodeView, values: [&str; 3]| {
            let mut now = node(values, None, &[]);
            now.inherit(before);
            now
        };
        let before = node(["true", "true", ""], None, &["driver"]);
        let paused = seen(&before, ["paused-for-driver-upgrade", "true", ""]);
        assert_eq!(paused.deploy[..3], [Paused, Theirs, Absent]);
        assert_eq!(paused.paused[..3], [true, false, false]);
        assert!(paused.is_record_due);
        assert_eq!(seen(&paused, ["true", "true", "true"]).deploy[..3], [Ours, Theirs, Theirs]);
        assert_eq!(seen(&paused, ["", "true", ""]).deploy[..3], [Absent, Theirs, Absent]);
        let mut another = NodeView { uid: "another".into(), ..node(["false", "", ""], None, &[]) };
        another.inherit(&before);
        assert_eq!(another.deploy[0], Foreign, "a node made anew");
    }
}
