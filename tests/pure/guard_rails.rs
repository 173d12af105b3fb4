//! The tables in the policies of `deploy/components/guard-rails` say what the default manifests say, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use serde_json::Value;
use testbed::repository::root;

use crate::files::{read, yaml};
use crate::manifests::each;

/// A variable of the policy for DaemonSets: a CEL literal of lists, maps and text, which is JSON but for its quotes.
fn variable(name: &str) -> Value {
    let text = read(&root().join("deploy/components/guard-rails/policies/operand_daemonsets.yaml"));
    let policies: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let variables = policies[0]["spec"]["variables"].as_array().expect("variables");
    let found = variables.iter().find(|one| one["name"] == name).expect(name);
    serde_json::from_str(&found["expression"].as_str().expect("CEL").replace('\'', "\"")).expect("a literal")
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.containers.iter().chain(pod.init_containers.iter().flatten())
}

fn commands(container: &Container) -> impl Iterator<Item = Vec<String>> {
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    let of = |probe: &Probe| probe.exec.as_ref().and_then(|exec| exec.command.clone()).unwrap_or_default();
    let probes = probes.map(|probe| probe.as_ref().map(of).unwrap_or_default());
    probes.into_iter().chain([container.command.clone().unwrap_or_default()])
}

#[test]
fn the_hosts_paths_are_those_of_the_manifests() {
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    each(|name, _, pod| {
        let paths = pod.volumes.iter().flatten().filter_map(|volume| Some(volume.host_path.as_ref()?.path.clone()));
        expected.insert(name.to_owned(), paths.collect());
    });
    let listed: BTreeMap<String, BTreeSet<String>> = serde_json::from_value(variable("hostPaths")).expect("a table");
    assert_eq!(listed, expected, "operand_daemonsets.yaml, hostPaths");
}

#[test]
fn the_commands_are_those_of_the_manifests() {
    let mut expected = BTreeSet::new();
    each(|_, _, pod| expected.extend(containers(pod).flat_map(commands)));
    let listed: BTreeSet<Vec<String>> = serde_json::from_value(variable("commands")).expect("a list");
    assert_eq!(listed, expected, "operand_daemonsets.yaml, commands");
}

#[test]
fn every_registry_that_is_listed_is_a_default_and_every_default_is_listed() {
    let registries: Vec<String> = serde_json::from_value(variable("registries")).expect("a list");
    let mut used = BTreeSet::new();
    each(|name, _, pod| {
        for image in containers(pod).filter_map(|container| container.image.as_deref()) {
            let of = registries.iter().find(|registry| image.starts_with(&format!("{registry}/")));
            used.insert(of.unwrap_or_else(|| panic!("{name}: {image}")).clone());
        }
    });
    assert_eq!(used, registries.iter().cloned().collect());
}

/// Which program writes which part is spelt out in `status.yaml`: a further part belongs to nobody there.
#[test]
fn the_policy_knows_every_part_of_the_status() {
    let crd = yaml(&root().join("deploy/crds/acceleratorconfigs.yaml"));
    let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    let parts: Vec<_> = status.as_object().expect("a status").keys().collect();
    assert_eq!(parts, ["components", "conditions", "nodes", "observedGeneration"]);
}

#[test]
fn the_threat_model_names_every_container_and_whether_it_is_privileged() {
    let page = read(&root().join("docs/security.md"));
    each(|name, _, pod| {
        for container in containers(pod) {
            let context = container.security_context.as_ref();
            let is_privileged = context.and_then(|context| context.privileged).unwrap_or_default();
            let row = format!("| {name} | `{}` | {} |", container.name, if is_privileged { "yes" } else { "no" });
            assert!(page.contains(&row), "docs/security.md: {row}");
        }
    });
}
