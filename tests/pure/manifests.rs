//! The default manifests: complete, understood to the last field, and in the names of the contract.

use std::collections::BTreeSet;

use accelerator_api::contract::{self, DEPLOY};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::repository::{assets, operands, root};

use crate::files::{read, yaml};

pub fn each(mut check: impl FnMut(&str, &Value, &PodSpec)) {
    for operand in operands() {
        let value = yaml(&assets(operand).join("daemonset.yaml"));
        let daemon_set: DaemonSet = serde_json::from_value(value.clone()).expect("a DaemonSet");
        let pod = daemon_set.spec.and_then(|spec| spec.template.spec).expect("pods");
        check(operand.component.name, &value, &pod);
    }
}

#[test]
fn no_field_is_misspelt() {
    each(|name, value, _| {
        let daemon_set: DaemonSet = serde_json::from_value(value.clone()).expect("a DaemonSet");
        let mut again = serde_json::to_value(daemon_set).expect("it serialises");
        // Written out although empty.
        again["spec"]["template"]["metadata"].as_object_mut().expect("metadata").retain(|_, value| !value.is_null());
        assert_eq!(&again, value, "{name}: a field is unknown to the API and would be dropped");
    });
}

#[test]
fn names_selectors_and_placement_are_those_of_the_contract() {
    for operand in operands() {
        let component = operand.component;
        let value = yaml(&assets(operand).join("daemonset.yaml"));
        assert_eq!(value["metadata"]["name"], component.operand);
        assert_eq!(value["metadata"]["namespace"], OPERANDS);
        assert_eq!(value["metadata"]["labels"]["app"], component.operand);
        assert_eq!(value["spec"]["selector"], json!({"matchLabels": {"name": component.operand}}));
        assert_eq!(value["spec"]["template"]["metadata"]["labels"]["name"], component.operand);
        let pod = &value["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"], json!({component.deploy_label: DEPLOY}));
        let toleration =
            json!({"key": accelerator_api::contract::NPU_TAINT, "operator": "Exists", "effect": "NoSchedule"});
        assert_eq!(pod["tolerations"], json!([toleration]));
    }
}

/// `latest` and unnamed tags make nodes differ by the hour at which they pulled.
#[test]
fn every_image_names_its_registry_and_a_version() {
    each(|name, _, pod| {
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let image = container.image.as_deref().unwrap_or_default();
            let (repository, tag) = image.rsplit_once(':').unwrap_or((image, ""));
            assert!(tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{name}: {image}");
            assert!(repository.split('/').next().is_some_and(|registry| registry.contains('.')), "{name}: {image}");
        }
    });
}

/// A probe or a scrape annotation that names no declared port never works; the vendor's exporter has that defect.
#[test]
fn every_port_that_is_used_is_declared() {
    each(|name, value, pod| {
        let containers = || pod.containers.iter().chain(pod.init_containers.iter().flatten());
        let declared: BTreeSet<_> =
            containers().flat_map(|one| one.ports.iter().flatten()).map(|port| port.container_port).collect();
        for container in containers() {
            let names: BTreeSet<_> = container.ports.iter().flatten().filter_map(|port| port.name.as_deref()).collect();
            let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
            for probe in probes.into_iter().flatten() {
                let http = probe.http_get.as_ref().map(|action| &action.port);
                let tcp = probe.tcp_socket.as_ref().map(|action| &action.port);
                for port in http.into_iter().chain(tcp) {
                    let text = serde_json::to_value(port).expect("a port");
                    assert!(text.as_str().is_some_and(|port| names.contains(port)), "{name}: probe of {text}");
                }
            }
        }
        let annotations = &value["spec"]["template"]["metadata"]["annotations"];
        if let Some(port) = annotations["prometheus.io/port"].as_str() {
            assert!(declared.contains(&port.parse().expect("a number")), "{name}: scraped at {port}");
        }
    });
}

/// The kubelet and the driver have each one place on a node. The vendor's manifests misspell one of them.
#[test]
fn host_paths_are_known_ones() {
    const KNOWN: &[&str] = &[
        "/",
        "/dev",
        "/etc/kubernetes/node-feature-discovery/features.d",
        "/lib/modules",
        "/proc",
        "/run/rbln/driver",
        "/run/rebellions",
        "/sys",
        "/sys/kernel/debug",
        "/usr/bin",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/plugins_registry",
        "/var/lib/kubelet/pod-resources",
        "/var/log",
        "/var/log/rebellions",
        "/var/run",
        "/var/run/k8s.cni.cncf.io/devinfo/dp",
    ];
    each(|name, _, pod| {
        let volumes = || pod.volumes.iter().flatten();
        for path in volumes().filter_map(|volume| volume.host_path.as_ref()).map(|host| host.path.as_str()) {
            assert!(KNOWN.contains(&path), "{name}: {path}");
        }
        let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
        let mounted: BTreeSet<_> =
            containers.flat_map(|one| one.volume_mounts.iter().flatten()).map(|mount| mount.name.as_str()).collect();
        let volumes: BTreeSet<_> = volumes().map(|volume| volume.name.as_str()).collect();
        assert_eq!(mounted, volumes, "{name}: volumes are mounted, and mounts have volumes");
    });
}

/// Those who need NPUs on their native driver take them back by the same program in the same way as the agent binds them.
#[test]
fn npus_are_given_back_by_the_agents_own_image() {
    let agent = |value: &Value| {
        let pod = &value["spec"]["template"]["spec"];
        let all =
            ["initContainers", "containers"].iter().flat_map(|list| pod[list].as_array().cloned().unwrap_or_default());
        all.filter(|one| one["image"].as_str().is_some_and(|image| image.contains("/rebellions-vfio-manager:")))
            .collect::<Vec<_>>()
    };
    let mut seen = vec![];
    each(|name, value, _| seen.extend(agent(value).into_iter().map(|one| (name.to_owned(), one))));
    let (mut manager, others): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|(name, _)| name == contract::VFIO_MANAGER.name);
    let (_, manager) = manager.pop().expect("the agent");
    assert!(!others.is_empty());
    for (name, one) in &others {
        assert_eq!(one["args"], json!(["give-back", "--wait=60", "--wait-in-use=660"]), "{name}");
        for key in ["image", "env", "securityContext"] {
            assert_eq!(one[key], manager[key], "{name}: {key}");
        }
        let paths = |one: &Value| -> Vec<_> {
            one["volumeMounts"].as_array().expect("mounts").iter().map(|mount| mount["mountPath"].clone()).collect()
        };
        let mut expected = paths(&manager);
        expected.retain(|path| path != "/lib/modules");
        assert_eq!(paths(one), expected, "{name}");
    }
}

/// What a README says is pinned is what runs.
#[test]
fn each_has_a_readme_that_names_its_images() {
    for operand in operands() {
        let name = operand.component.name;
        let text = read(&assets(operand).join("README.md"));
        for heading in ["## What it runs", "## Available", "## Stands alone", "## Limits"] {
            assert!(text.contains(heading), "{name}: README without {heading}");
        }
    }
    each(|name, _, pod| {
        let text = read(&root().join("assets/rebellions").join(name).join("README.md"));
        for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
            let image = container.image.as_deref().unwrap_or_default();
            assert!(text.contains(&format!("`{image}`")), "{name}: README does not name {image}");
        }
    });
}
