//! An AcceleratorConfig as it is stored, whoever wrote it.

use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Rebellions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Meta;

/// An AcceleratorConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigFact {
    /// Its metadata.
    pub metadata: Meta,
    /// What is asked for, as it is written.
    pub spec: Value,
    /// What the controllers report, as it is written.
    pub status: Value,
}

impl ConfigFact {
    /// As the controllers of this version read it.
    #[must_use]
    pub fn observed(&self) -> ObservedConfig {
        let read = serde_json::from_value(json!({"metadata": {}, "spec": self.spec, "status": self.status}));
        let mut observed: ObservedConfig = read.unwrap_or_else(|error| ObservedConfig {
            metadata: self.metadata.object_meta(),
            spec: Err(error.to_string()),
            status: AcceleratorConfigStatus::default(),
        });
        observed.metadata = self.metadata.object_meta();
        observed
    }

    /// The section of our provider, if there is one and this version can read it.
    #[must_use]
    pub fn rebellions(&self) -> Option<Rebellions> {
        self.observed().spec.ok()?.providers.rebellions
    }
}
