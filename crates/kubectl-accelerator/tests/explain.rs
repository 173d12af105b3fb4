//! Situations and what is said of them. Each is the healthy cluster of `base.yaml` with a few changes; the texts beside them read
//! like documentation. `UPDATE_GOLDEN=1` rewrites them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use kubectl_accelerator::explain::{Subject, explain, render};
use kubectl_accelerator::facts::{CrdFact, Facts, Kind, Unread};
use kubectl_accelerator::style::Style;
use serde::Deserialize;
use serde_json::{Value, json};

/// The time at which every situation is looked at.
const NOW: &str = "2026-01-01T12:00:00Z";

/// All that can be read.
const KINDS: [Kind; 11] = [
    Kind::AcceleratorConfigs,
    Kind::Nodes,
    Kind::DaemonSets,
    Kind::Deployments,
    Kind::Leases,
    Kind::CustomResourceDefinition,
    Kind::Pods,
    Kind::Events,
    Kind::ResourceQuotas,
    Kind::Namespaces,
    Kind::PodDisruptionBudgets,
];

/// A situation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is the matter, as the heading of its text.
    title: String,
    /// What is asked about.
    subject: String,
    /// Merge patches of objects of the healthy cluster, by kind and name.
    #[serde(default)]
    change: BTreeMap<String, Value>,
    /// Conditions of the AcceleratorConfig `default` that are other than in the healthy cluster, by type.
    #[serde(default)]
    conditions: BTreeMap<String, Value>,
    /// Objects that are not in the healthy cluster.
    #[serde(default)]
    add: Vec<Value>,
    /// Objects of the healthy cluster that are not there, by kind and the beginning of their name.
    #[serde(default)]
    remove: Vec<String>,
    /// Kinds that could not be read.
    #[serde(default)]
    unread: Vec<Kind>,
    /// Words that the text must contain, whatever the golden says.
    #[serde(default)]
    says: Vec<String>,
    /// Whether the definition in the cluster is older (`missing`) or newer (`unknown`) than this program.
    #[serde(default)]
    crd: Option<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/explain")
}

fn objects() -> Vec<Value> {
    static HEALTHY: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let text = std::fs::read_to_string(folder().join("base.yaml")).expect("the healthy cluster");
        serde_saphyr::from_multiple(&text).expect("objects")
    });
    let mut objects = HEALTHY.clone();
    // Its schema is compared in a test of its own; here it is as new as this program, or not there.
    objects.push(json!({"kind": "CustomResourceDefinition", "metadata": {"name": "acceleratorconfigs.petasus.io"}}));
    objects
}

fn key(object: &Value) -> String {
    format!(
        "{}/{}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}

/// A JSON merge patch: RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn set_condition(config: &mut Value, kind: &str, change: &Value) {
    let conditions = config["status"]["conditions"].as_array_mut().expect("conditions");
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(condition) if change.is_null() => *condition = Value::Null,
        Some(condition) => merge(condition, change),
        None => {
            let mut new = json!({"type": kind, "status": "True", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T11:30:00Z"});
            merge(&mut new, change);
            conditions.push(new);
        }
    }
    conditions.retain(|condition| !condition.is_null());
}

fn facts(case: &Case) -> Facts {
    let mut objects = objects();
    for (name, patch) in &case.change {
        let matches: Vec<_> = objects.iter_mut().filter(|object| key(object).starts_with(name.as_str())).collect();
        assert_eq!(matches.len(), 1, "{}: {name} is not one object", case.title);
        for object in matches {
            merge(object, patch);
        }
    }
    for (kind, change) in &case.conditions {
        let config = objects.iter_mut().find(|object| key(object) == "AcceleratorConfig/default").expect("a config");
        set_condition(config, kind, change);
    }
    for name in &case.remove {
        let before = objects.len();
        objects.retain(|object| !key(object).starts_with(name.as_str()));
        assert!(objects.len() < before, "{}: there is no {name}", case.title);
    }
    let mut facts = Facts::new(NOW.parse().expect("a time"), "rebellions", "accelerator-system");
    facts.read = KINDS.into_iter().filter(|kind| !case.unread.contains(kind)).collect();
    let refused = case.unread.iter().map(|kind| Unread { kind: *kind, why: "forbidden".into() });
    facts.unread = refused.collect();
    for object in objects.into_iter().chain(case.add.clone()) {
        let name = key(&object);
        if object["kind"] == "CustomResourceDefinition" {
            facts.crd = Some(CrdFact::default());
            continue;
        }
        facts.add(object).unwrap_or_else(|error| panic!("{}: {name}: {error}", case.title));
    }
    if let (Some(which), Some(crd)) = (&case.crd, &mut facts.crd) {
        let fields = vec!["status.components.pools".to_owned()];
        if which == "missing" { crd.missing = fields } else { crd.unknown = fields }
    }
    facts
}

fn text(case: &Case, facts: &Facts) -> String {
    let subject: Subject = case.subject.parse().unwrap_or_else(|why| panic!("{}: {why}", case.title));
    render(&explain(facts, &subject), facts.at, Style::plain())
}

fn areas() -> Vec<(PathBuf, Vec<Case>)> {
    let files = std::fs::read_dir(folder()).expect("situations").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    files.retain(|path| !path.ends_with("base.yaml"));
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a file");
        let cases = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, cases)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_situation_is_explained() {
    let mut count = 0;
    let (mut stale, mut silent) = (vec![], vec![]);
    for (path, cases) in areas() {
        let mut page = String::new();
        for case in &cases {
            let text = text(case, &facts(case));
            for words in &case.says {
                if !text.contains(words.as_str()) {
                    silent.push(format!("{}: does not say {words:?}:\n{text}", case.title));
                }
            }
            let _ = write!(page, "## {}\n\n{text}\n", case.title);
            count += 1;
        }
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &page).expect("a golden");
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != page {
            stale.push(golden.display().to_string());
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    assert!(stale.is_empty(), "not what the code makes of them; look at `git diff` after UPDATE_GOLDEN=1: {stale:?}");
    assert!(count >= 60, "{count} situations");
}

/// Facts are written as they are read: what a bundle says is what the cluster said.
#[test]
fn facts_that_were_written_are_explained_alike() {
    for (_, cases) in areas() {
        for case in &cases {
            let facts = facts(case);
            let again: Facts = serde_json::from_str(&serde_json::to_string(&facts).expect("JSON")).expect("facts");
            assert_eq!(again, facts, "{}", case.title);
            assert_eq!(text(case, &again), text(case, &facts), "{}", case.title);
        }
    }
}

/// An explanation with a cause says what to do, or that it goes on by itself; a healthy subject has no cause.
#[test]
fn every_cause_says_what_to_do() {
    for (_, cases) in areas() {
        for case in &cases {
            let facts = facts(case);
            let explanation = explain(&facts, &case.subject.parse().expect("a subject"));
            let Some(cause) = explanation.cause else { continue };
            let passes = cause.weight < kubectl_accelerator::explain::Weight::Blocks;
            assert!(passes || !cause.todo.is_empty(), "{}: {}", case.title, cause.what);
        }
    }
}
