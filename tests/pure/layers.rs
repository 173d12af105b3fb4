//! Dependencies point one way: api <- operand <- runtime <- binaries; process is below whatever runs. What decides cannot
//! reach a cluster.

use std::process::Command;

use serde::Deserialize;
use testbed::repository::{operands, root};

use crate::files::{below, read};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// None for what ships; `dev` and `build` otherwise.
    kind: Option<String>,
    features: Vec<String>,
    /// Set for packages of this workspace.
    path: Option<String>,
}

/// What ships with a package, directly.
fn dependencies(package: &str) -> Vec<Dependency> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Metadata = serde_json::from_slice(&out.stdout).expect("cargo's metadata");
    let found = metadata.packages.into_iter().find(|one| one.name == package).expect("a package of the workspace");
    found.dependencies.into_iter().filter(|dependency| dependency.kind.is_none()).collect()
}

/// Packages of this workspace that one depends on directly.
fn ours(package: &str) -> Vec<String> {
    let ours = dependencies(package).into_iter().filter(|dependency| dependency.path.is_some());
    let mut names: Vec<_> = ours.map(|dependency| dependency.name).collect();
    names.sort();
    names
}

#[test]
fn each_layer_knows_only_those_below() {
    assert!(ours("accelerator-api").is_empty());
    assert!(ours("accelerator-process").is_empty());
    assert_eq!(ours("accelerator-operand"), ["accelerator-api"]);
    assert_eq!(ours("accelerator-runtime"), ["accelerator-api", "accelerator-operand", "accelerator-process"]);
    // What runs on nodes knows nothing of Kubernetes.
    assert_eq!(ours("rebellions-vfio-manager"), ["accelerator-process"]);
    // The admin's window decides with what the controllers decide with; nothing depends on it.
    let decisions = [
        "accelerator-api",
        "accelerator-operand",
        "accelerator-process",
        "node-labeler",
        "rebellions-driver-controller",
    ];
    assert_eq!(ours("kubectl-accelerator"), decisions);
    let all = ["accelerator-api", "accelerator-operand", "accelerator-runtime"];
    assert_eq!(ours("node-labeler"), all);
    for operand in operands() {
        let mut names = ours(operand.component.controller);
        // It is below whatever runs.
        names.retain(|name| name != "accelerator-process");
        assert_eq!(names, all);
    }
}

/// What the admin's window explains is decided apart from what it reads, and it never writes.
#[test]
fn the_plugin_reads_and_what_explains_cannot_reach_a_cluster() {
    let sources = root().join("crates/kubectl-accelerator/src");
    for path in below(&sources, ".rs") {
        let text = read(&path);
        let writes =
            ["Patch", "PostParams", "DeleteParams", ".create(", "Request::post", "Request::put", "Request::delete"];
        let inside = path.strip_prefix(&sources).expect("below it").to_string_lossy().into_owned();
        // The bundle is a file; nothing else is made.
        let found = writes.iter().find(|word| text.contains(**word) && !inside.starts_with("collect/"));
        assert_eq!(found, None, "{inside} writes");
        let is_pure = ["explain", "facts", "status"].iter().any(|pure| inside.starts_with(pure));
        let reaches =
            ["kube::", "tokio::", "std::fs", "crate::read"].iter().find(|word| is_pure && text.contains(**word));
        assert_eq!(reaches, None, "{inside} reaches out");
    }
}

/// Their only tie to kube are its derives and traits; every feature that could open a connection is off.
#[test]
fn what_decides_has_no_means_to_act() {
    for package in ["accelerator-api", "accelerator-operand"] {
        for dependency in dependencies(package) {
            if dependency.name == "kube" {
                assert_eq!(dependency.features, ["derive"], "{package}");
            }
            let means = ["tokio", "hyper", "hyper-util", "tower", "futures", "reqwest"];
            assert!(!means.contains(&dependency.name.as_str()), "{package} depends on {}", dependency.name);
        }
    }
}
