//! Whether a CRD still takes whatever an older one took: what a schema says is compared word by word, and a word that is not
//! known here and differs counts as narrower.

use serde_json::{Map, Value, json};

/// Words that only people read.
const PROSE: &[&str] = &["description", "title", "example", "externalDocs"];

/// Limits from below: a larger one takes less.
const LOWER_LIMITS: &[&str] = &["minimum", "minLength", "minItems", "minProperties"];

/// Limits from above: a smaller one takes less.
const UPPER_LIMITS: &[&str] = &["maximum", "maxLength", "maxItems", "maxProperties"];

/// What a CRD no longer takes or keeps that an older one did, each with its place.
pub fn narrowed_crd(old: &Value, new: &Value) -> Vec<String> {
    let mut found = vec![];
    for path in ["/spec/group", "/spec/scope", "/spec/names/kind", "/spec/names/plural", "/spec/names/singular"] {
        if old.pointer(path) != new.pointer(path) {
            found.push(format!("{path}: was {}, is {}", show(old.pointer(path)), show(new.pointer(path))));
        }
    }
    for path in ["/spec/names/shortNames", "/spec/names/categories"] {
        found.extend(missing(old.pointer(path), new.pointer(path)).map(|name| format!("{path}: {name} is gone")));
    }
    for version in old.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten() {
        let name = version["name"].as_str().unwrap_or_default();
        let versions = new.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
        match versions.clone().find(|other| other["name"] == version["name"]) {
            Some(other) => narrowed_version(name, version, other, &mut found),
            None => found.push(format!("{name}: the version is gone")),
        }
    }
    found
}

fn narrowed_version(name: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    for what in ["served", "storage"] {
        if old[what] == true && new[what] != true {
            found.push(format!("{name}: is no longer {what}"));
        }
    }
    for (subresource, _) in members(&old["subresources"]) {
        if new["subresources"].get(subresource).is_none() {
            found.push(format!("{name}: the subresource {subresource} is gone"));
        }
    }
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    narrowed(name, &schema(old), &schema(new), found);
}

/// What a schema no longer takes or keeps.
fn narrowed(place: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    let keeps_all = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut words: Vec<_> = members(old).chain(members(new)).map(|(word, _)| word.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    for word in words.into_iter().filter(|word| !PROSE.contains(word)) {
        let (before, after) = (&old[word], &new[word]);
        let told = match word {
            "properties" => {
                for (name, below) in members(before) {
                    let place = format!("{place}.{name}");
                    match after.get(name).or_else(|| new.get("additionalProperties").filter(|any| any.is_object())) {
                        Some(other) => narrowed(&place, below, other, found),
                        None if keeps_all(new) => {}
                        None => found.push(format!("{place}: is dropped")),
                    }
                }
                continue;
            }
            "items" | "additionalProperties" if before.is_object() && after.is_object() => {
                narrowed(&format!("{place}[*]"), before, after, found);
                continue;
            }
            "additionalProperties" if before.is_null() || after == true => continue,
            "required" => {
                let names = missing(Some(after), Some(before));
                let names = names.filter_map(Value::as_str);
                found.extend(names.map(|name| format!("{place}.{name}: has become required")));
                continue;
            }
            "enum" if !before.is_null() && !after.is_null() => {
                let values = missing(Some(before), Some(after));
                found.extend(values.map(|value| format!("{place}: {value} is no longer allowed")));
                continue;
            }
            "x-kubernetes-validations" => {
                let rules = new_rules(before, after);
                found.extend(rules.map(|rule| format!("{place}: has the new rule {rule}")));
                continue;
            }
            _ => is_narrower(word, before, after, new),
        };
        if told {
            found.push(format!("{place}: {word} was {}, is {}", show(Some(before)), show(Some(after))));
        }
    }
}

/// Whether one word that has no schemas below it takes less.
fn is_narrower(word: &str, before: &Value, after: &Value, new: &Value) -> bool {
    if before == after {
        return false;
    }
    match word {
        // An integer is a number, and both are taken by int-or-string; a type that is not said is any.
        "type" => {
            let is_wider = after.is_null() && (new["x-kubernetes-int-or-string"] == true || is_anything(new));
            !(is_wider || before == "integer" && after == "number")
        }
        // Taking null, or whatever is unknown, or both kinds of values, is wider.
        "nullable" | "x-kubernetes-preserve-unknown-fields" | "x-kubernetes-int-or-string" => before == true,
        "uniqueItems" | "exclusiveMinimum" | "exclusiveMaximum" => after == true,
        // A limit that goes is no limit.
        "pattern" | "format" | "enum" | "not" | "multipleOf" => !after.is_null(),
        word if LOWER_LIMITS.contains(&word) => {
            after.as_f64().is_some_and(|after| before.as_f64().is_none_or(|before| after > before))
        }
        word if UPPER_LIMITS.contains(&word) => {
            after.as_f64().is_some_and(|after| before.as_f64().is_none_or(|before| after < before))
        }
        // Alternatives that go are no limit; whatever else becomes of them is not understood here. A default, and how lists are merged,
        // decide what an object means that says nothing.
        "anyOf" | "oneOf" | "allOf" => !after.is_null(),
        _ => true,
    }
}

/// A schema that takes everything and drops nothing.
fn is_anything(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Rules that were not there, but for those that let pass whatever is stored, and so are for new objects alone.
fn new_rules<'a>(before: &'a Value, after: &'a Value) -> impl Iterator<Item = String> + 'a {
    let known = |rule: &Value| before.as_array().into_iter().flatten().any(|other| other["rule"] == rule["rule"]);
    let passes_stored = |rule: &Value| {
        let text = rule["rule"].as_str().unwrap_or_default();
        rule["optionalOldSelf"] == true && text.starts_with("oldSelf.hasValue() || ") && !text.contains("&&")
    };
    let rules = after.as_array().into_iter().flatten();
    rules.filter(move |rule| !known(rule) && !passes_stored(rule)).map(|rule| rule["rule"].to_string())
}

/// Members of one list that another lacks.
fn missing<'a>(of: Option<&'a Value>, from: Option<&'a Value>) -> impl Iterator<Item = &'a Value> {
    let list = |value: Option<&'a Value>| value.and_then(Value::as_array).into_iter().flatten();
    list(of).filter(move |one| !list(from).any(|other| other == *one))
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn show(value: Option<&Value>) -> String {
    value.filter(|value| !value.is_null()).map_or_else(|| "absent".into(), ToString::to_string)
}

/// A change of a schema: its place, what it does, and what is said of it. Nothing is said of what takes more.
type Mutation = (&'static str, fn(&mut Value), &'static [&'static str]);

/// Below the section of our provider in the real CRD.
const MUTATIONS: &[Mutation] = &[
    // Narrower.
    ("", |x| remove(x, "properties", "driver"), &["driver: is dropped"]),
    ("driver.version", |x| x["type"] = json!("integer"), &["driver.version: type was \"string\", is \"integer\""]),
    ("driver", |x| x["nullable"] = json!(false), &["driver: nullable was true, is false"]),
    ("driver", |x| x["required"] = json!(["enabled", "version"]), &["driver.version: has become required"]),
    (
        "workload.default",
        |x| x["enum"] = json!(["container"]),
        &["workload.default: \"vm-passthrough\" is no longer allowed"],
    ),
    ("driver.version", |x| x["enum"] = json!(["3.0.0"]), &["driver.version: enum was absent, is [\"3.0.0\"]"]),
    ("driver.version", |x| x["maxLength"] = json!(1), &["driver.version: maxLength was "]),
    ("daemonsets.tolerations", |x| x["maxItems"] = json!(255), &["daemonsets.tolerations: maxItems was 256, is 255"]),
    ("driver.version", |x| x["minLength"] = json!(999), &["driver.version: minLength was "]),
    ("driver.version", |x| x["pattern"] = json!("^3"), &["driver.version: pattern was "]),
    ("driver.version", |x| x["format"] = json!("uuid"), &["driver.version: format was "]),
    ("driver.version", |x| x["default"] = json!("3.0.0"), &["driver.version: default was absent, is \"3.0.0\""]),
    (
        "driver.version",
        |x| x["x-kubernetes-unheard-of"] = json!(1),
        &["driver.version: x-kubernetes-unheard-of was absent, is 1"],
    ),
    ("driver", |x| x["not"] = json!({"required": ["version"]}), &["driver: not was absent"]),
    ("driver", |x| x["allOf"] = json!([{"required": ["version"]}]), &["driver: allOf was absent"]),
    ("driver.env", |x| x["x-kubernetes-list-type"] = json!("set"), &["driver.env: x-kubernetes-list-type was "]),
    ("driver.env", |x| x["maxItems"] = json!(1), &["driver.env: maxItems was "]),
    ("driver.env", |x| remove(x, "items/properties", "value"), &["driver.env[*].value: is dropped"]),
    (
        "daemonsets.labels",
        |x| x["additionalProperties"] = json!({"type": "integer"}),
        &["daemonsets.labels[*]: type was \"string\""],
    ),
    (
        "daemonsets.labels",
        |x| x["additionalProperties"] = Value::Null,
        &["daemonsets.labels: additionalProperties was "],
    ),
    (
        "driver",
        |x| add_rule(x, json!({"rule": "has(self.version)"})),
        &["driver: has the new rule \"has(self.version)\""],
    ),
    (
        "driver",
        |x| add_rule(x, json!({"rule": "oldSelf.hasValue() || true && self.enabled", "optionalOldSelf": true})),
        &["driver: has the new rule "],
    ),
    // Wider, or of no consequence.
    ("", |x| x["properties"]["driver"]["properties"]["next"] = json!({"type": "string", "maxLength": 3}), &[]),
    ("driver", |x| x["required"] = Value::Null, &[]),
    ("driver", |x| x["description"] = json!("other words"), &[]),
    ("workload.default", |x| x["enum"] = json!(["container", "vm-passthrough", "none"]), &[]),
    ("workload.default", |x| x["enum"] = Value::Null, &[]),
    ("driver.imageTagTemplate", |x| x["maxLength"] = Value::Null, &[]),
    ("driver.version", |x| x["pattern"] = Value::Null, &[]),
    ("driver.version", |x| x["nullable"] = json!(true), &[]),
    ("daemonsets.updateStrategy.minReadySeconds", |x| x["minimum"] = json!(-1), &[]),
    ("daemonsets.tolerations", |x| x["maxItems"] = json!(100_000), &[]),
    ("driver", |x| x["x-kubernetes-validations"] = Value::Null, &[]),
    ("driver", |x| add_rule(x, json!({"rule": "oldSelf.hasValue() || self.enabled", "optionalOldSelf": true})), &[]),
];

fn remove(schema: &mut Value, folder: &str, name: &str) {
    let below = schema.pointer_mut(&format!("/{folder}")).and_then(Value::as_object_mut).expect("a folder");
    assert!(below.remove(name).is_some(), "{name}");
}

fn add_rule(schema: &mut Value, rule: Value) {
    let rules = &mut schema["x-kubernetes-validations"];
    if rules.is_null() {
        *rules = json!([]);
    }
    rules.as_array_mut().expect("rules").push(rule);
}

/// Each change of the real CRD is told as what it is, and no other.
#[test]
fn what_takes_less_is_told_and_what_takes_more_is_not() {
    let old = serde_json::to_value(accelerator_api::crd()).expect("a CRD is JSON");
    assert_eq!(narrowed_crd(&old, &old), Vec::<String>::new());
    let section = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/providers/properties/rebellions";
    for (number, (place, change, told)) in MUTATIONS.iter().enumerate() {
        let mut new = old.clone();
        let names = place.split('.').filter(|name| !name.is_empty());
        let path = names.fold(section.to_owned(), |path, name| format!("{path}/properties/{name}"));
        change(new.pointer_mut(&path).unwrap_or_else(|| panic!("there is no {place}")));
        let found = narrowed_crd(&old, &new);
        assert_eq!(found.len(), told.len(), "{number}, of {place}: {found:?}");
        for (found, told) in found.iter().zip(*told) {
            let told = format!("v1beta1.spec.providers.rebellions.{told}");
            assert!(found.starts_with(&told), "{number}: {found} is not {told}");
        }
    }
}

#[test]
fn a_version_a_name_or_a_subresource_that_goes_is_told() {
    let old = serde_json::to_value(accelerator_api::crd()).expect("a CRD is JSON");
    let told = |path: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(path).expect("a place") = value;
        narrowed_crd(&old, &new)
    };
    assert_eq!(told("/spec/versions", json!([])), ["v1beta1: the version is gone"]);
    assert_eq!(told("/spec/versions/0/served", json!(false)), ["v1beta1: is no longer served"]);
    assert_eq!(told("/spec/versions/0/subresources", json!({})), ["v1beta1: the subresource status is gone"]);
    assert_eq!(
        told("/spec/names/shortNames", json!(["ac", "accelconf"])),
        ["/spec/names/shortNames: \"accelconfig\" is gone"]
    );
    let scope = told("/spec/scope", json!("Namespaced"));
    assert_eq!(scope, ["/spec/scope: was \"Cluster\", is \"Namespaced\""]);
}
