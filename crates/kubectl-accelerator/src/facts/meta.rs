//! Metadata without what nobody asks for: annotations of others, hundreds of discovery's labels, most managed fields.

use std::collections::BTreeMap;

use accelerator_api::contract::{NPU_RESOURCE_PREFIX, PCI_VENDOR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

/// What annotations of ours begin with.
const OURS: &str = "petasus.io/";

/// What labels of Node Feature Discovery begin with.
const DISCOVERY: &str = "feature.node.kubernetes.io/";

/// Metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Its namespace; empty without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Generation of its spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Time>,
    /// When its grace period ends, once somebody deleted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    /// Its labels, without those of discovery that say nothing of NPUs, kernel or system.
    #[serde(deserialize_with = "labels", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours and of the vendor.
    #[serde(deserialize_with = "annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Who owns it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Who wrote labels and annotations of ours, taints and the cordon.
    #[serde(deserialize_with = "managed_fields", skip_serializing_if = "Vec::is_empty")]
    pub managed_fields: Vec<ManagedFieldsEntry>,
}

impl Meta {
    /// As the API's own type, for functions of the controllers.
    #[must_use]
    pub fn object_meta(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            creation_timestamp: self.creation_timestamp.clone(),
            deletion_timestamp: self.deletion_timestamp.clone(),
            labels: Some(self.labels.clone()),
            annotations: Some(self.annotations.clone()),
            managed_fields: Some(self.managed_fields.clone()),
            ..ObjectMeta::default()
        }
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Who set a label, and when: the field manager that the API server has down for it.
    #[must_use]
    pub fn label_writer(&self, key: &str) -> Option<Writer<'_>> {
        self.writer(|fields| fields["f:metadata"]["f:labels"].get(format!("f:{key}")).is_some())
    }

    /// Who set a field of the spec, such as `taints`, and when.
    #[must_use]
    pub fn spec_writer(&self, field: &str) -> Option<Writer<'_>> {
        self.writer(|fields| fields["f:spec"].get(format!("f:{field}")).is_some())
    }

    fn writer(&self, wrote: impl Fn(&Value) -> bool) -> Option<Writer<'_>> {
        let entries = self.managed_fields.iter();
        let ours = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| wrote(&fields.0)));
        let last = ours.max_by_key(|entry| entry.time.as_ref().map(|time| time.0))?;
        Some(Writer { manager: last.manager.as_deref()?, at: last.time.as_ref() })
    }
}

/// Who wrote a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Writer<'a> {
    /// Its field manager.
    pub manager: &'a str,
    /// When it last wrote something of the object.
    pub at: Option<&'a Time>,
}

fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut all = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    all.retain(|key, _| match key.strip_prefix(DISCOVERY) {
        Some(rest) if rest.starts_with("pci-") => rest.contains(PCI_VENDOR),
        Some(rest) => rest == "kernel-version.full" || rest.starts_with("system-os_release."),
        None => true,
    });
    Ok(all)
}

fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let mut all = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
    all.retain(|key, _| key.starts_with(OURS) || key.starts_with(NPU_RESOURCE_PREFIX));
    Ok(all)
}

/// Managed fields are the larger half of a node. Of each entry what is asked for is kept, and no entry without any.
fn managed_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ManagedFieldsEntry>, D::Error> {
    let all = Option::<Vec<ManagedFieldsEntry>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(all.into_iter().filter_map(reduced).collect())
}

fn reduced(mut entry: ManagedFieldsEntry) -> Option<ManagedFieldsEntry> {
    let fields = entry.fields_v1.take()?.0;
    let kept = |of: &Value, is_kept: fn(&str) -> bool| -> Map<String, Value> {
        let all = of.as_object().into_iter().flatten();
        let kept = all.filter(|(key, _)| key.strip_prefix("f:").is_some_and(is_kept));
        kept.map(|(key, _)| (key.clone(), json!({}))).collect()
    };
    let is_ours = |key: &str| key.starts_with(NPU_RESOURCE_PREFIX) || key.starts_with(OURS);
    let (metadata, spec) = (&fields["f:metadata"], &fields["f:spec"]);
    let labels = kept(&metadata["f:labels"], is_ours);
    let annotations = kept(&metadata["f:annotations"], is_ours);
    let spec = kept(spec, |key| matches!(key, "taints" | "unschedulable"));
    if labels.is_empty() && annotations.is_empty() && spec.is_empty() {
        return None;
    }
    let mut fields = Map::new();
    let mut metadata = Map::new();
    for (key, part) in [("f:labels", labels), ("f:annotations", annotations)] {
        if !part.is_empty() {
            metadata.insert(key.into(), part.into());
        }
    }
    for (key, part) in [("f:metadata", metadata), ("f:spec", spec)] {
        if !part.is_empty() {
            fields.insert(key.into(), part.into());
        }
    }
    entry.fields_v1 = Some(FieldsV1(fields.into()));
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_is_left_out_and_what_is_left_reads_itself() {
        let meta: Meta = serde_json::from_value(json!({
            "name": "n", "labels": {
                "feature.node.kubernetes.io/cpu-cpuid.AVX": "true",
                "feature.node.kubernetes.io/pci-1200_1eff.present": "true",
                "feature.node.kubernetes.io/kernel-version.full": "6.8"},
            "annotations": {"example.com/token": "secret", "petasus.io/owned-deploy-labels": "driver"},
            "managedFields": [
                {"manager": "kubelet", "fieldsV1": {"f:status": {}}},
                {"manager": "kubectl-label", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:metadata": {"f:labels": {
                    "f:other": {}, "f:rebellions.ai/npu.deploy.driver": {}}}}},
                {"manager": "kubectl-taint", "fieldsV1": {"f:spec": {"f:taints": {}, "f:podCIDR": {}}}}],
        }))
        .expect("metadata");
        assert_eq!(meta.labels.len(), 2);
        assert_eq!(meta.annotations.keys().collect::<Vec<_>>(), ["petasus.io/owned-deploy-labels"]);
        let writer = |key: &str| meta.label_writer(key).map(|writer| writer.manager);
        assert_eq!(writer("rebellions.ai/npu.deploy.driver"), Some("kubectl-label"));
        assert_eq!(writer("other"), None);
        assert_eq!(meta.spec_writer("taints").map(|writer| writer.manager), Some("kubectl-taint"));
        let again: Meta = serde_json::from_value(json!(meta)).expect("what was written");
        assert_eq!(again, meta);
    }
}
