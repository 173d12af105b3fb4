//! The Helm chart: `deploy/chart`, with what kustomize makes of `deploy/overlays/default` beside it. What a component of
//! `deploy/components` adds to, changes of and removes from that overlay is a file of its own, so that it is a switch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{install, repository};

/// Components that are no switches of the chart, and what is in their place.
pub const NO_SWITCHES: &[(&str, &str)] = &[
    ("controller-namespace", "nothing: another namespace takes kustomize"),
    ("controllers-only", "the values crd.install and namespaces.install"),
    ("crd-only", "the value crd.install"),
    ("operand-namespace", "nothing: another namespace takes kustomize"),
    ("private-registry", "the values image.repository and image.pullSecrets"),
];

/// What a component makes of the default overlay. Objects are told apart as the chart's template does.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Delta {
    /// Objects that it brings.
    pub added: Vec<Value>,
    /// A merge patch for each that it changes.
    pub changed: BTreeMap<String, Value>,
    /// Those that it takes away.
    pub removed: Vec<String>,
}

/// Names of the components that are switches.
pub fn switches() -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(repository::root().join("deploy/components"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
    names.retain(|name| NO_SWITCHES.iter().all(|(other, _)| other != name));
    names.sort();
    Ok(names)
}

/// Writes the chart into a folder that is there and empty.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    ensure!(fs::read_dir(folder)?.next().is_none(), "{} is not empty", folder.display());
    let sources = repository::root().join("deploy/chart");
    fs::create_dir_all(folder.join("templates"))?;
    for name in ["values.yaml", "values.schema.json"] {
        fs::copy(sources.join(name), folder.join(name))?;
    }
    for entry in fs::read_dir(sources.join("templates"))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join("templates").join(entry.file_name()))?;
    }
    let about = fs::read_to_string(sources.join("Chart.yaml"))?;
    fs::write(folder.join("Chart.yaml"), about.replace("VERSION", env!("CARGO_PKG_VERSION")))?;

    let parts = folder.join("files/components");
    fs::create_dir_all(&parts)?;
    let objects = install::render("overlays/default")?;
    fs::write(folder.join("files/objects.json"), json!({"objects": objects}).to_string())?;
    for name in switches()? {
        let with = install::render_own(&["overlays/default"], &[&name], &json!({}))?;
        let delta = delta(&objects, &with).with_context(|| format!("the component {name}"))?;
        fs::write(parts.join(format!("{name}.json")), serde_json::to_string(&delta)?)?;
    }
    Ok(())
}

/// As the template has it.
fn identity(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let parts = [&object["apiVersion"], &object["kind"], &metadata["namespace"], &metadata["name"]];
    parts.map(text).join(" ")
}

fn delta(before: &[Value], after: &[Value]) -> anyhow::Result<Delta> {
    let by_identity = |objects: &[Value]| -> BTreeMap<String, Value> {
        objects.iter().map(|object| (identity(object), object.clone())).collect()
    };
    let (before, after) = (by_identity(before), by_identity(after));
    let mut delta = Delta::default();
    for (identity, new) in &after {
        match before.get(identity) {
            None => delta.added.push(new.clone()),
            Some(old) if old != new => drop(delta.changed.insert(identity.clone(), merge_patch(old, new)?)),
            Some(_) => {}
        }
    }
    delta.removed = before.into_keys().filter(|identity| !after.contains_key(identity)).collect();
    Ok(delta)
}

/// What makes `new` of `old`, as RFC 7386 has it.
fn merge_patch(old: &Value, new: &Value) -> anyhow::Result<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Ok(new.clone()) };
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        ensure!(!value.is_null(), "a merge patch cannot set {name} to null");
        match old.get(name) {
            Some(same) if same == value => {}
            Some(other) => drop(patch.insert(name.clone(), merge_patch(other, value)?)),
            None => drop(patch.insert(name.clone(), value.clone())),
        }
    }
    Ok(patch.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn a_delta_has_what_comes_what_changes_and_what_goes() {
        let before = [object("same", &json!({})), object("gone", &json!({}))];
        let before = [&before[..], &[object("changed", &json!({"a": {"b": 1, "c": [1]}, "d": 2}))]].concat();
        let changed = object("changed", &json!({"a": {"b": 1, "c": [2]}, "e": 3}));
        let after = [object("same", &json!({})), object("new", &json!({})), changed];
        let found = delta(&before, &after).expect("a delta");
        assert_eq!(found.added, [object("new", &json!({}))]);
        assert_eq!(found.removed, ["v1 X  gone"]);
        let patch = json!({"spec": {"a": {"c": [2]}, "d": null, "e": 3}});
        assert_eq!(found.changed, BTreeMap::from([("v1 X  changed".to_owned(), patch)]));
    }
}
