//! One component is one path in three trees, and nothing else knows its name but its row in the contract.

use accelerator_api::contract::COMPONENTS;
use serde_json::json;
use testbed::repository::{operands, programs, root};

use crate::files::{names, yaml};

#[test]
fn operands_are_the_contracts_components() {
    let contract: Vec<_> = COMPONENTS.iter().map(|component| component.name).collect();
    let operands: Vec<_> = operands().iter().map(|operand| operand.component.name).collect();
    assert_eq!(contract, operands);
}

#[test]
fn assets_crates_and_bases_are_the_contracts_components() {
    let mut components: Vec<_> = COMPONENTS.iter().map(|component| component.name).collect();
    components.sort_unstable();
    assert_eq!(names(&root().join("assets/rebellions")), components);

    let mut programs: Vec<_> = programs().collect();
    programs.sort_unstable();
    let controllers = |tree: &str| -> Vec<_> {
        let all = names(&root().join(tree)).into_iter();
        all.filter(|name| name == "node-labeler" || name.ends_with("-controller") && name != "component-controller")
            .collect()
    };
    assert_eq!(controllers("crates"), programs);
    assert_eq!(controllers("deploy/base"), programs);
    assert!(root().join("deploy/base/component-controller").is_dir());
}

#[test]
fn the_default_overlay_is_everything() {
    let overlay = yaml(&root().join("deploy/overlays/default/kustomization.yaml"));
    let mut expected: Vec<_> = programs().map(|program| format!("../../base/{program}")).collect();
    expected.extend(["../../base/namespaces".into(), "../../crds".into()]);
    let resources = overlay["resources"].as_array().expect("resources");
    let mut resources: Vec<_> = resources.iter().filter_map(|one| one.as_str()).collect();
    resources.sort_unstable();
    expected.sort();
    assert_eq!(resources, expected);
}

/// Folder = package = binary = image = Deployment. A base passes that and nothing else.
#[test]
fn each_base_has_one_name_and_this_version() {
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    for program in programs() {
        let base = yaml(&root().join("deploy/base").join(program).join("kustomization.yaml"));
        let image = format!("ghcr.io/petasus-ai/{program}");
        assert_eq!(base["images"], json!([{"name": "controller", "newName": image, "newTag": version}]), "{program}");
        let passed: Vec<_> = base.as_object().expect("fields").keys().map(String::as_str).collect();
        if let Some(operand) = program.strip_suffix("controller") {
            assert_eq!(base["namePrefix"], operand, "{program}");
            let all = ["apiVersion", "kind", "namePrefix", "resources", "transformers", "images"];
            assert!(passed.iter().all(|field| all.contains(field)), "{program}: {passed:?}");
        }
    }
    for folder in ["crds", "base/namespaces"] {
        let labels = &yaml(&root().join("deploy").join(folder).join("kustomization.yaml"))["labels"][0]["pairs"];
        assert_eq!(labels["app.kubernetes.io/version"], version, "{folder}");
    }
}
