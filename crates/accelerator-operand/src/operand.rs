//! An operand is a value: a row of the contract and a default manifest.

use accelerator_api::Rebellions;
use accelerator_api::contract::Component;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::Value;

use crate::Template;

/// What one component controller deploys.
#[derive(Debug)]
pub struct Operand {
    /// Its row in the contract.
    pub component: &'static Component,
    /// Its default DaemonSet as YAML, embedded so that a controller and its defaults cannot differ in version.
    pub manifest: &'static str,
    /// What this operand alone does with settings, and changes that no setting can express, made last. Most operands make none.
    pub customize: fn(&mut DaemonSet, &Rebellions),
}

/// A default manifest that is no DaemonSet, or not one that the settings can be laid over. It cannot happen in a release:
/// a test parses every manifest.
#[derive(Debug, thiserror::Error)]
#[error("could not read the default manifest of {component}")]
pub struct ManifestError {
    component: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Operand {
    /// Reads the default manifest.
    pub fn template(&'static self) -> Result<Template, ManifestError> {
        let error =
            |source: Box<dyn std::error::Error + Send + Sync>| ManifestError { component: self.component.name, source };
        // By way of JSON, which DaemonSets are read from anyway: reading them from YAML as well costs 1 MB of code.
        let yaml: Value = serde_saphyr::from_str(self.manifest).map_err(|source| error(Box::new(source)))?;
        let json = serde_json::to_vec(&yaml).map_err(|source| error(Box::new(source)))?;
        let daemon_set: DaemonSet = serde_json::from_slice(&json).map_err(|source| error(Box::new(source)))?;
        Template::new(self, daemon_set).map_err(|missing| error(missing.into()))
    }
}
