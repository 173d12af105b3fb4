//! The metric families that the programs register, read from their source: a registry does not tell of families that have no
//! sample yet.

use std::collections::BTreeMap;

use testbed::repository::root;

use crate::files::{below, read};

/// By name, as a scrape has it: the kind and the labels.
pub fn of_the_code() -> BTreeMap<String, String> {
    let files = below(&root().join("crates"), ".rs").into_iter().map(|path| read(&path));
    files.filter(|text| text.contains("sub_registry_with_prefix(")).flat_map(|text| of_a_file(&text)).collect()
}

fn of_a_file(text: &str) -> Vec<(String, String)> {
    let (_, rest) = text.split_once("sub_registry_with_prefix(\"").expect("a prefix that is written here");
    let prefix = until(rest, "\"");
    assert!(!rest.contains("sub_registry_with_prefix("), "{prefix}: two prefixes in one file are not understood");
    let registered: Vec<_> =
        rest.split(".register(").skip(1).map(|call| family(text, prefix, until(call, ");"))).collect();
    assert!(!registered.is_empty(), "{prefix}: nothing is registered");
    registered
}

/// A call's arguments: the name in quotes, the help, and at last the family.
fn family(text: &str, prefix: &str, arguments: &str) -> (String, String) {
    let name = arguments.split('"').nth(1).unwrap_or_else(|| panic!("{prefix}: no name in {arguments}"));
    let variable = arguments.trim_end_matches(".clone()").rsplit([',', '.', ' ']).next().unwrap_or_default();
    let places = [format!("{variable}: Family<"), format!("{variable} = Family::<")];
    let by_labels = places.iter().find_map(|place| text.split_once(place.as_str()));
    let (labels, kind) = if let Some((_, rest)) = by_labels {
        until(rest, ">").split_once(", ").expect("labels and kind")
    } else {
        let (_, rest) = text.split_once(&format!("{variable}: ")).unwrap_or_else(|| panic!("{prefix}_{name}: no type"));
        ("", until(rest, ","))
    };
    let ending = match kind {
        "Counter" => "_total",
        "Gauge" | "Histogram" => "",
        other => panic!("{prefix}_{name}: the kind {other} is not understood"),
    };
    let mut meaning = kind.to_lowercase();
    if !labels.is_empty() {
        meaning = format!("{meaning} by {}", fields(text, labels).join(", "));
    }
    (format!("{prefix}_{name}{ending}"), meaning)
}

/// Names of the fields of a struct.
fn fields<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (_, rest) = text.split_once(&format!("struct {name} {{")).unwrap_or_else(|| panic!("no struct {name}"));
    let fields = until(rest, "}").lines().filter_map(|line| line.trim().split_once(": "));
    fields.filter(|(name, _)| !name.starts_with('/')).map(|(name, _)| name.trim_start_matches("pub ")).collect()
}

fn until<'a>(text: &'a str, end: &str) -> &'a str {
    text.split(end).next().unwrap_or_default()
}

#[test]
fn each_metric_is_documented_under_its_name() {
    let pages = ["metrics.md", "vfio-manager.md"].map(|page| read(&root().join("docs/reference").join(page)));
    for name in of_the_code().into_keys() {
        assert!(pages.iter().any(|page| page.contains(&name)), "docs/reference: {name}");
    }
}
