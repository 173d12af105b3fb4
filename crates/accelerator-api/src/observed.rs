//! An AcceleratorConfig as a controller reads it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::Value;

use crate::{AcceleratorConfig, AcceleratorConfigSpec, AcceleratorConfigStatus};

/// An AcceleratorConfig of this version or any other. A spec that this version cannot read is kept as the parser's words,
/// so that one object never hides the others, and whoever meets it can say why nothing happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Raw")]
pub struct ObservedConfig {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is asked for, or why it cannot be read.
    pub spec: Result<AcceleratorConfigSpec, String>,
    /// What was reported; empty when this version cannot read it.
    pub status: AcceleratorConfigStatus,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl From<Raw> for ObservedConfig {
    fn from(raw: Raw) -> Self {
        Self {
            metadata: raw.metadata,
            spec: serde_json::from_value(raw.spec).map_err(|error| error.to_string()),
            status: serde_json::from_value(raw.status).unwrap_or_default(),
        }
    }
}

/// The same resource as [`AcceleratorConfig`].
impl Resource for ObservedConfig {
    type DynamicType = ();
    type Scope = <AcceleratorConfig as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        AcceleratorConfig::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        AcceleratorConfig::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        AcceleratorConfig::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        AcceleratorConfig::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(object: Value) -> ObservedConfig {
        serde_json::from_value(object).expect("anything with metadata is read")
    }

    #[test]
    fn unknown_fields_of_a_newer_version_are_no_obstacle() {
        let config = read(json!({
            "metadata": {"name": "x"},
            "spec": {"providers": {"rebellions": {"driver": {"enabled": true, "pools": []}}, "other": {}}, "more": 1},
            "status": {"phase": "new", "components": [{"name": "n", "extra": 1}]},
        }));
        let rebellions = config.spec.expect("readable").providers.rebellions.expect("a section");
        assert!(rebellions.driver.expect("a section").component.enabled);
        assert_eq!(config.status.components[0].name, "n");
    }

    #[test]
    fn a_spec_that_cannot_be_read_keeps_its_metadata_and_says_why() {
        let config = read(json!({
            "metadata": {"name": "x"},
            "spec": {"providers": {"rebellions": {"driver": {"enabled": "yes"}}}},
        }));
        assert_eq!(config.metadata.name.as_deref(), Some("x"));
        assert!(config.spec.expect_err("unreadable").contains("expected a boolean"));
    }

    #[test]
    fn null_is_nothing() {
        let spec = json!({"providers": {"rebellions": {
            "workload": null,
            "daemonsets": {"labels": null, "tolerations": null},
            "driver": {"enabled": true, "image": {"imagePullSecrets": null}, "resources": {"limits": null}, "env": null, "args": null},
            "nfd": null,
        }}});
        let rebellions = read(json!({"metadata": {}, "spec": spec})).spec.expect("readable").providers.rebellions;
        assert!(rebellions.expect("a section").nfd.is_none());
        assert_eq!(
            read(json!({"metadata": {}, "spec": {"providers": null}})).spec,
            Ok(AcceleratorConfigSpec::default())
        );
    }

    #[test]
    fn an_object_without_a_spec_configures_nothing() {
        assert_eq!(read(json!({"metadata": {}})).spec, Ok(AcceleratorConfigSpec::default()));
        assert_eq!(read(json!({"metadata": {}, "spec": {}})).spec, Ok(AcceleratorConfigSpec::default()));
    }
}
