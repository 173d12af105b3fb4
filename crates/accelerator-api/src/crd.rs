//! The CustomResourceDefinition, as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::AcceleratorConfig;

/// The CRD derived from the types, without what a derive adds and an admin would trip over:
/// - defaults: the server would write them into stored objects, which GitOps tools then report as drift;
/// - `nullable`: `null` means nothing that leaving the field out does not;
/// - `spec` as a required field: the predecessor's sample has none.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = AcceleratorConfig::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema.required = None;
            if let Ok(mut value) = serde_json::to_value(&*schema) {
                strip(&mut value);
                if let Ok(stripped) = serde_json::from_value(value) {
                    *schema = stripped;
                }
            }
        }
    }
    crd
}

/// Removes `default` and `nullable` from a schema and everything below it. A property that is itself called so has a
/// schema, an object, as its value and stays.
fn strip(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.retain(|key, value| !(key == "nullable" && value.is_boolean() || key == "default" && !is_schema(value)));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn is_schema(value: &Value) -> bool {
    value.get("type").is_some_and(Value::is_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).expect("a CRD is JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn the_server_defaults_nothing() {
        let text = schema().to_string();
        assert!(!text.contains("\"nullable\""), "{text}");
        let default = &schema()["properties"]["spec"]["properties"]["providers"]["properties"]["rebellions"]["properties"]
            ["workload"]["properties"]["default"];
        assert_eq!(default["type"], "string", "the field called default is kept");
        assert_eq!(text.matches("\"default\"").count(), 1);
    }

    /// `kubectl explain` must teach at every step.
    #[test]
    fn every_field_is_described() {
        fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
            if let Some(properties) = schema["properties"].as_object() {
                for (name, property) in properties {
                    let path = format!("{path}.{name}");
                    if property["description"].as_str().is_none_or(str::is_empty) {
                        missing.push(path.clone());
                    }
                    walk(&path, property, missing);
                    walk(&path, &property["items"], missing);
                    walk(&path, &property["additionalProperties"], missing);
                }
            }
        }
        let mut missing = vec![];
        walk("", &schema(), &mut missing);
        missing.retain(|path| path != ".spec" && path != ".status");
        assert_eq!(missing, Vec::<String>::new());
    }
}
