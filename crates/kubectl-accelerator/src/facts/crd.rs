//! The definition of AcceleratorConfigs, compared with the one that this version would install.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How many fields are kept by name: one is enough to tell, and a definition has hundreds.
const NAMED: usize = 20;

/// The installed definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrdFact {
    /// Fields of this version that it does not have: the API server drops them.
    pub missing: Vec<String>,
    /// Fields that it has and this version does not know.
    pub unknown: Vec<String>,
    /// Whether it is being deleted.
    pub is_deleted: bool,
}

impl CrdFact {
    /// Reads a definition.
    #[must_use]
    pub fn of(crd: &Value) -> Self {
        let own = serde_json::to_value(accelerator_api::crd()).unwrap_or_default();
        let (installed, own) = (fields(crd), fields(&own));
        let named =
            |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).take(NAMED).cloned().collect();
        Self {
            missing: named(&own, &installed),
            unknown: named(&installed, &own),
            is_deleted: crd["metadata"]["deletionTimestamp"].is_string(),
        }
    }
}

/// Paths of every field of every served version.
fn fields(crd: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
        walk("", &version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

fn walk(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        walk(&path, property, found);
        walk(&path, &property["items"], found);
        walk(&path, &property["additionalProperties"], found);
        found.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_definition_misses_fields_and_a_newer_one_has_unknown_ones() {
        let mut crd = serde_json::to_value(accelerator_api::crd()).expect("a CRD");
        assert_eq!(CrdFact::of(&crd), CrdFact::default());
        let status = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        status.as_object_mut().expect("fields").remove("nodes");
        status["weather"] = serde_json::json!({"type": "string"});
        let read = CrdFact::of(&crd);
        assert_eq!(read.missing.first().map(String::as_str), Some("status.nodes"));
        assert_eq!(read.unknown, ["status.weather"]);
    }
}
