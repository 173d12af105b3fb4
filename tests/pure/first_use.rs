//! The guides and samples that put an NPU into somebody's hand: tables and names come from what the programs use.

use std::fmt::Write;
use std::path::PathBuf;

use accelerator_api::contract::{DEVICE_PLUGIN, NPU_RESOURCE_PREFIX, NPU_TAINT};
use rebellions_vfio_manager::pci::{VENDOR, devices, is_virtual_function, product};
use serde_json::{Value, json};
use testbed::repository::{operands, root};

use crate::files::{assert_golden, read, yaml};

const CONTAINERS: &str = "docs/guides/containers.md";
const KUBEVIRT: &str = "docs/guides/kubevirt.md";
const POD: &str = "deploy/samples/pod.yaml";
const PERMITTED: &str = "deploy/samples/kubevirt/kubevirt.yaml";
const MACHINE: &str = "deploy/samples/kubevirt/virtualmachine.yaml";

fn path(name: &str) -> PathBuf {
    root().join(name)
}

/// Compares what a guide has between `<!-- begin NAME … -->` and `<!-- end NAME -->` with what is made for each name, or rewrites that.
fn assert_blocks(guide: &str, blocks: &[(&str, String)]) {
    let mut text = read(&path(guide));
    for (name, made) in blocks {
        let start = text.find(&format!("<!-- begin {name}:")).unwrap_or_else(|| panic!("{guide}: no {name}"));
        let start = start + text[start..].find("-->\n").expect("an end of the comment") + "-->\n".len();
        let length =
            text[start..].find(&format!("<!-- end {name} -->")).unwrap_or_else(|| panic!("{guide}: no end of {name}"));
        text.replace_range(start..start + length, made);
    }
    assert_golden(&path(guide), &text);
}

/// A sample, as a guide shows it.
fn shown(sample: &str) -> String {
    format!("```yaml\n{}```\n", read(&path(sample)))
}

/// The resources that the default device plugin advertises, and the device ids of each.
fn advertised() -> Vec<(String, Vec<u16>)> {
    let operand = operands().into_iter().find(|one| one.component.name == DEVICE_PLUGIN.name).expect("the plugin");
    let manifest: Value = serde_saphyr::from_str(operand.manifest).expect("a manifest");
    let annotations = &manifest["spec"]["template"]["metadata"]["annotations"];
    let config = annotations["rebellions.ai/device-plugin-config"].as_str().expect("a configuration");
    let config: Value = serde_json::from_str(config).expect("JSON");
    let id = |id: &Value| u16::from_str_radix(id.as_str().expect("an id"), 16).expect("hexadecimal");
    let resource = |one: &Value| {
        let [prefix, name] = ["resourcePrefix", "resourceName"].map(|key| one[key].as_str().expect("a name"));
        let devices = one["selectors"]["devices"].as_array().expect("devices").iter().map(id).collect();
        (format!("{prefix}/{name}"), devices)
    };
    config["resourceList"].as_array().expect("resources").iter().map(resource).collect()
}

fn quoted(names: impl Iterator<Item = String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_guide_to_containers_has_what_the_plugin_advertises_and_the_sample() {
    let mut table = String::from("| resource | products | device ids |\n|---|---|---|\n");
    for (resource, ids) in advertised() {
        assert!(resource.starts_with(NPU_RESOURCE_PREFIX), "{resource}");
        let mut products: Vec<_> = ids.iter().map(|id| product(*id)).collect();
        products.dedup();
        let ids = quoted(ids.iter().map(|id| format!("{id:04x}")));
        writeln!(table, "| `{resource}` | {} | {ids} |", products.join(", ")).expect("text");
    }
    assert_blocks(CONTAINERS, &[("resources", table), ("pod", shown(POD))]);
}

/// Two lists of device ids: that of the plugin's manifest and that of the agent.
#[test]
fn every_product_is_advertised_once() {
    let mut plugin: Vec<_> = advertised().into_iter().flat_map(|(_, ids)| ids).collect();
    let mut agent: Vec<_> = devices().map(|(id, _)| id).collect();
    plugin.sort_unstable();
    agent.sort_unstable();
    assert_eq!(plugin, agent);
}

/// A device as KubeVirt is told of it: its selector, and the name of its resource.
fn permitted() -> impl Iterator<Item = (String, String)> {
    devices().map(|(id, product)| {
        let function = if is_virtual_function(id) { "VF" } else { "PF" };
        (format!("{VENDOR:04X}:{id:04X}"), format!("{NPU_RESOURCE_PREFIX}{product}_{function}"))
    })
}

#[test]
fn the_guide_to_kubevirt_has_the_agents_products_and_the_sample() {
    let mut table = String::from("| product | function | `pciVendorSelector` | `resourceName` |\n|---|---|---|---|\n");
    for ((id, product), (selector, resource)) in devices().zip(permitted()) {
        let function = if is_virtual_function(id) { "VF" } else { "PF" };
        writeln!(table, "| {product} | {function} | `{selector}` | `{resource}` |").expect("text");
    }
    assert_blocks(KUBEVIRT, &[("products", table), ("virtualmachine", shown(MACHINE))]);
}

#[test]
fn what_kubevirt_is_told_is_every_product() {
    let devices =
        permitted().map(|(selector, resource)| json!({"pciVendorSelector": selector, "resourceName": resource}));
    let devices: Vec<_> = devices.collect();
    let toleration = json!({"key": NPU_TAINT, "operator": "Exists", "effect": "NoSchedule"});
    let kubevirt = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
        "spec": {
            "configuration": {
                "developerConfiguration": {"featureGates": ["HostDevices"]},
                "permittedHostDevices": {"pciHostDevices": devices},
            },
            "workloads": {"nodePlacement": {"tolerations": [toleration]}},
        },
    });
    let yaml = serde_saphyr::to_string(&kubevirt).expect("YAML");
    let head = "# What KubeVirt has to know of NPUs. Made from the VFIO manager's list of products (`just generate`): add to your own object what\n\
                # you need of it; to apply this as it is replaces lists that you have. Guide: docs/guides/kubevirt.md\n";
    assert_golden(&path(PERMITTED), &format!("{head}{yaml}"));
}

#[test]
fn samples_ask_for_what_there_is_and_go_where_it_is() {
    let tolerates = |pod: &Value| {
        let tolerations = pod["tolerations"].as_array().expect("tolerations");
        assert!(tolerations.iter().any(|one| one["key"] == NPU_TAINT && one["effect"] == "NoSchedule"), "{pod}");
    };
    let pod = yaml(&path(POD));
    let limits = pod["spec"]["containers"][0]["resources"]["limits"].as_object().expect("limits");
    let resources: Vec<_> = advertised().into_iter().map(|(resource, _)| resource).collect();
    assert!(limits.keys().all(|name| resources.contains(name)) && limits.len() == 1, "{limits:?}");
    tolerates(&pod["spec"]);

    let machine = yaml(&path(MACHINE));
    let wanted = machine["spec"]["template"]["spec"]["domain"]["devices"]["hostDevices"].as_array().expect("devices");
    let names: Vec<_> = permitted().map(|(_, resource)| resource).collect();
    for device in wanted {
        assert!(names.iter().any(|name| device["deviceName"] == **name), "{device}");
    }
    tolerates(&machine["spec"]["template"]["spec"]);
}
