//! The CustomResourceDefinition, as it is installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::AcceleratorConfig;

/// The CRD derived from the types, but for what a derive does and an admin would trip over:
/// - Its spec has no defaults: the server would write them into stored objects, which GitOps tools then report as drift. The
///   status begins with `observedGeneration: -1`, so that they do not take an object for healthy that nobody has looked at.
/// - `spec` is not required: the predecessor's sample has none.
/// - Every object, map and list of the spec may be null, which means what leaving it out means. Server-side apply turns a
///   map that it empties into null and would then be refused its own result.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = AcceleratorConfig::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            schema.required = None;
            for (name, property) in schema.properties.iter_mut().flatten() {
                adapt(property, name == "spec");
                if name == "status" {
                    begin_unobserved(property);
                }
            }
        }
    }
    crd
}

/// The file in `deploy/crds`.
pub fn crd_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(&crd())?;
    Ok(format!("# Generated from crates/accelerator-api by `just generate`. Do not edit.\n{yaml}"))
}

/// Before anybody has looked, the observed generation is none that an object can have.
fn begin_unobserved(status: &mut JSONSchemaProps) {
    const FIELD: &str = "observedGeneration";
    status.default = Some(JSON(serde_json::json!({FIELD: -1})));
    if let Some(field) = status.properties.as_mut().and_then(|properties| properties.get_mut(FIELD)) {
        field.default = Some(JSON((-1).into()));
    }
}

/// Adapts a schema and everything below it.
fn adapt(schema: &mut JSONSchemaProps, may_be_null: bool) {
    schema.default = None;
    // Lines end where they did in the source; `kubectl explain` breaks them by itself.
    schema.description = schema.description.take().map(|text| text.replace('\n', " "));
    let is_container = matches!(schema.type_.as_deref(), Some("object" | "array"));
    schema.nullable = (may_be_null && is_container).then_some(true);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        adapt(property, may_be_null);
    }
    // The items of a list and the values of a map are there or not; null is no third way.
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        adapt(items, may_be_null);
        items.nullable = None;
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        adapt(values, may_be_null);
        values.nullable = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn schema() -> Value {
        let crd = serde_json::to_value(crd()).expect("a CRD is JSON");
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[test]
    fn the_server_defaults_nothing_but_that_nobody_has_looked() {
        assert_eq!(schema()["properties"]["status"]["default"], serde_json::json!({"observedGeneration": -1}));
        let text = schema()["properties"]["spec"].to_string();
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
