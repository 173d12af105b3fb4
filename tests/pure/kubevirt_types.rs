//! The samples for KubeVirt beside its published API types. Those are a package of npm's, made of the document that describes its API; its Go module
//! cannot be had everywhere. A compiler of TypeScript knows every field and refuses those that are none.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testbed::repository::root;

use crate::files::yaml;

/// The types, by name, and what is to be one.
type Typed<'a> = &'a [(&'a str, &'a Value)];

/// A folder with the packages of `tests/kubevirt`.
fn packages() -> PathBuf {
    let folder = root().join("target/kubevirt-types");
    std::fs::create_dir_all(&folder).expect("a folder");
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(root().join("tests/kubevirt").join(file), folder.join(file)).expect("a copy");
    }
    let mut npm = Command::new("npm");
    let out = npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).output();
    let out = out.expect("npm is there: this suite needs Node.js");
    assert!(out.status.success(), "npm ci: {}", String::from_utf8_lossy(&out.stderr));
    folder
}

/// What the compiler says of these values; nothing when they are what they should be.
fn complaints(packages: &Path, values: Typed<'_>) -> String {
    let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    let mut text = format!("import type {{ {} }} from '@kubevirt-ui-ext/kubevirt-api/kubevirt';\n", names.join(", "));
    for (index, (name, value)) in values.iter().enumerate() {
        writeln!(text, "export const value{index}: {name} = {value};").expect("text");
    }
    std::fs::write(packages.join("samples.ts"), text).expect("a file");
    let mut node = Command::new("node");
    node.arg("node_modules/typescript/bin/tsc").args(["--noEmit", "--strict", "--skipLibCheck"]);
    node.args(["--module", "esnext", "--moduleResolution", "bundler", "samples.ts"]).current_dir(packages);
    let out = node.output().expect("node is there");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.success(), said.is_empty(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    said
}

#[test]
#[ignore = "needs Node.js and fetches two packages; run by `just kubevirt-samples`"]
fn kubevirt_takes_the_samples() {
    let folder = root().join("deploy/samples/kubevirt");
    let machine = yaml(&folder.join("virtualmachine.yaml"));
    let kubevirt = yaml(&folder.join("kubevirt.yaml"));
    let spec = kubevirt["spec"].as_object().expect("a spec");
    assert!(spec.keys().all(|key| ["configuration", "workloads"].contains(&key.as_str())), "{spec:?}");
    let packages = packages();
    // The generator of the types renames the field `configuration` of the spec, so its parts are looked at.
    let kubevirt: Typed<'_> =
        &[("V1KubeVirtConfiguration", &spec["configuration"]), ("V1ComponentConfig", &spec["workloads"])];
    assert_eq!(complaints(&packages, kubevirt), "");
    assert_eq!(complaints(&packages, &[("V1VirtualMachine", &machine)]), "");

    // It does look.
    let mut wrong = machine.clone();
    wrong["spec"]["template"]["spec"]["domain"]["devices"]["hostDevices"][0]["resourceName"] = json!("x");
    let said = complaints(&packages, &[("V1VirtualMachine", &wrong)]);
    assert!(said.contains("does not exist in type 'V1HostDevice'"), "{said}");
}
