//! The list of images that an installation pulls is what its manifests name, no more and no less.

use std::collections::BTreeSet;

use accelerator_api::contract::{COMPONENTS, DRIVER, NODE_LABELER};
use serde_json::{Value, json};
use testbed::image_list::{image_list, kind};
use testbed::repository::{assets, operands};

use crate::files::{names, yaml};

/// The images in a golden.
fn images(golden: &Value) -> Vec<String> {
    let pod = &golden["spec"]["template"]["spec"];
    let containers = ["containers", "initContainers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
    containers.map(|one| one["image"].as_str().expect("an image").to_owned()).collect()
}

/// A Deployment as `deploy/` has one for each controller.
fn deployment(controller: &str) -> Value {
    json!({"kind": "Deployment", "metadata": {"name": "prefixed", "labels": {"app.kubernetes.io/name": controller}},
           "spec": {"template": {"spec": {"containers": [{"image": format!("ours/{controller}:v1")}]}}}})
}

/// A driver's image without a kernel in its tag is for no node: it begins the tag that each node's has.
fn with_variables(component: &str, case: &str, mut images: Vec<String>) -> Vec<String> {
    if component == DRIVER.name && case != "tag-and-env" {
        images[0].push_str("-{kernel}-{os}");
    }
    images
}

#[test]
fn the_list_is_exactly_the_images_of_the_goldens() {
    let mut cases = 0;
    for operand in operands() {
        let (name, folder) = (operand.component.name, assets(operand).join("testdata"));
        for case in names(&folder).iter().filter_map(|name| name.strip_suffix(".expected.yaml")) {
            let config = match case {
                "default" => None,
                case => Some(yaml(&folder.join(format!("{case}.config.yaml")))),
            };
            let objects: Vec<_> = config.into_iter().chain([deployment(operand.component.controller)]).collect();
            let golden = images(&yaml(&folder.join(format!("{case}.expected.yaml"))));
            let mut expected: BTreeSet<_> = with_variables(name, case, golden).into_iter().collect();
            expected.insert(format!("ours/{}:v1", operand.component.controller));
            assert_eq!(image_list(&objects, &[]).expect("a list").images, expected, "{name} {case}");
            cases += 1;
        }
    }
    assert!(cases > COMPONENTS.len(), "every default and more");
}

#[test]
fn without_controllers_every_operand_counts() {
    let list = image_list(&[], &[]).expect("a list");
    let goldens = operands().map(|operand| {
        let golden = yaml(&assets(operand).join("testdata/default.expected.yaml"));
        with_variables(operand.component.name, "default", images(&golden))
    });
    assert_eq!(list.images, goldens.concat().into_iter().collect());
    assert_eq!(list.notes, ["the driver's image is another one for each kind of node: say which there are"]);
}

#[test]
fn a_component_that_is_not_asked_for_pulls_nothing() {
    let config = |section: Value| {
        json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "c"},
                                         "spec": {"providers": {"rebellions": section}}})
    };
    let controllers = || COMPONENTS.iter().map(|component| deployment(component.controller));
    let ours: BTreeSet<_> = COMPONENTS.iter().map(|component| format!("ours/{}:v1", component.controller)).collect();
    let off = config(json!({"nfd": {"enabled": false}, "driver": {"enabled": true, "mode": "preinstalled"}}));
    let objects = json!({"kind": "List", "items": controllers().chain([off]).collect::<Vec<_>>()});
    assert_eq!(image_list(&[objects], &[]).expect("a list").images, ours);
    let labeler = deployment(NODE_LABELER);
    assert_eq!(image_list(&[labeler], &[]).expect("a list").images, ["ours/node-labeler:v1".to_owned()].into());
    let unreadable = config(json!({"nfd": {"enabled": "perhaps"}}));
    let error = image_list(&[unreadable], &[]).expect_err("unreadable").to_string();
    assert!(error.starts_with("AcceleratorConfig c: ") && error.contains("perhaps"), "{error}");
}

fn node(name: &str, mode: Option<&str>, kernel: &str) -> Value {
    let labels = mode.map(|mode| json!({"rebellions.ai/npu.workload.config": mode}));
    json!({"kind": "Node", "metadata": {"name": name, "labels": labels.unwrap_or_else(|| json!({}))},
           "status": {"nodeInfo": {"kernelVersion": kernel, "osImage": "Ubuntu 22.04.5 LTS", "architecture": "amd64"}}})
}

#[test]
fn nodes_say_which_drivers_there_have_to_be() {
    let nodes = json!({"apiVersion": "v1", "kind": "List", "items": [
        node("a", Some("container"), "5.15.0-1-generic"),
        node("b", Some("container"), "5.15.0-1-generic"),
        node("c", Some("container"), "6.8.0-60-generic"),
        node("for machines", Some("vm-passthrough"), "6.8.0-1"),
        node("without NPUs", None, "6.8.0-2"),
        node("d", Some("container"), ""),
    ]});
    let drivers = |objects: &[Value], kinds: &[_]| -> (Vec<_>, Vec<_>) {
        let list = image_list(objects, kinds).expect("a list");
        let drivers = list.images.into_iter().filter_map(|image| Some(image.split_once("/rbln-driver:")?.1.to_owned()));
        (drivers.collect(), list.notes)
    };
    let (images, unknown) = drivers(std::slice::from_ref(&nodes), &[]);
    assert_eq!(images, ["3.0.0-5.15.0-1-generic-ubuntu22.04", "3.0.0-6.8.0-60-generic-ubuntu22.04"]);
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].starts_with("no image for the driver of node d: its kernel, "), "{unknown:?}");
    let rhel = kind(|variable| (variable.placeholder() == "{os}").then(|| "rhel9.4".to_owned()));
    let (images, _) = drivers(&[nodes], std::slice::from_ref(&rhel));
    assert_eq!(images.last().expect("an image"), "3.0.0-{kernel}-rhel9.4");
    assert_eq!(drivers(&[], &[rhel]), (vec!["3.0.0-{kernel}-rhel9.4".to_owned()], vec![]));
}
