//! What a kubelet and a container runtime make of the manifests, beyond what the API server knows.

use accelerator_api::contract::VFIO_MANAGER;
use accelerator_api::{ComponentSpec, DaemonSets, Rebellions};
use accelerator_operand::Placement;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use testbed::repository::{operands, root};

use crate::files::yaml;
use crate::manifests::each;

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.containers.iter().chain(pod.init_containers.iter().flatten())
}

/// Where a container mounts folders of the host: the path in the container, the path on the host, and how.
fn host_mounts<'a>(
    pod: &'a PodSpec,
    container: &'a Container,
) -> impl Iterator<Item = (&'a str, &'a str, Option<&'a str>)> {
    container.volume_mounts.iter().flatten().filter_map(|mount| {
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
        let host = volume.host_path.as_ref()?;
        Some((mount.mount_path.as_str(), host.path.as_str(), mount.mount_propagation.as_deref()))
    })
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| folder == "/" || rest.starts_with('/'))
}

/// The runtime makes a file where the kubelet mounts the termination message. In a folder of the host it would be left
/// there, or could not be made where the folder is read-only; the container would then never start.
#[test]
fn no_mount_point_is_made_in_a_folder_of_the_host() {
    each(|name, _, pod| {
        for container in containers(pod) {
            let message = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
            let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str());
            for made in mounts.chain([message]) {
                // What the kernel has below /sys is there.
                for (folder, host, _) in host_mounts(pod, container).filter(|(_, host, _)| *host != "/sys") {
                    let at =
                        format!("{name}, {}: {made} is below {folder}, which is the host's {host}", container.name);
                    assert!(!is_below(made, folder), "{at}");
                }
            }
        }
    });
}

/// The words of a program that failed are in its log, and reach the status only so.
#[test]
fn the_last_words_of_every_container_are_kept() {
    each(|name, _, pod| {
        for container in containers(pod) {
            let policy = container.termination_message_policy.as_deref();
            assert_eq!(policy, Some("FallbackToLogsOnError"), "{name}, {}", container.name);
        }
    });
    let controller = yaml(&root().join("deploy/base/controller/deployment.yaml"));
    let containers = controller["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
    assert!(containers.iter().all(|one| one["terminationMessagePolicy"] == "FallbackToLogsOnError"));
}

/// A driver mounts over this folder whenever it comes: a mount without propagation sees only what was there before.
#[test]
fn what_the_driver_mounts_is_seen_whenever_it_comes() {
    const DRIVER: &str = "/run/rbln/driver";
    let mut seen = 0;
    each(|name, _, pod| {
        for container in containers(pod) {
            for (_, host, propagation) in host_mounts(pod, container) {
                let at = format!("{name}, {}: {host}", container.name);
                assert!(!is_below(host, DRIVER), "{at}: what is mounted over {DRIVER} hides it");
                if host == DRIVER {
                    seen += 1;
                    assert!(propagation.is_some(), "{at}: start order matters");
                }
            }
        }
    });
    assert_eq!(seen, 2, "the driver itself and the device plugin");
}

/// A pod that counts as available the moment it starts lets a version that crashes replace every working pod.
#[test]
fn a_version_that_crashes_is_not_available() {
    each(|name, value, _| assert_eq!(value["spec"]["minReadySeconds"], 10, "{name}"));
}

#[test]
fn only_who_talks_to_the_api_server_has_a_token() {
    let mut seen = vec![];
    each(|name, value, pod| {
        let account = format!("{}-operand", value["metadata"]["name"].as_str().unwrap_or_default());
        assert_eq!(pod.service_account_name.as_deref(), Some(account.as_str()), "{name}");
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        let tokens = pod.volumes.iter().flatten().filter(|volume| {
            let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
            sources.is_some_and(|sources| sources.iter().any(|source| source.service_account_token.is_some()))
        });
        for volume in tokens {
            let users =
                containers(pod).filter(|one| one.volume_mounts.iter().flatten().any(|it| it.name == volume.name));
            seen.extend(users.map(|one| format!("{name}/{}", one.name)));
        }
    });
    assert_eq!(seen, ["driver/k8s-driver-manager"]);
}

/// Our program writes to volumes alone.
#[test]
fn our_own_containers_cannot_write_their_image() {
    let image = format!("/rebellions-{}:", VFIO_MANAGER.name);
    each(|name, _, pod| {
        for container in containers(pod).filter(|one| one.image.as_deref().is_some_and(|it| it.contains(&image))) {
            let security = container.security_context.as_ref();
            assert_eq!(security.and_then(|it| it.read_only_root_filesystem), Some(true), "{name}, {}", container.name);
        }
    });
}

/// Whoever serves metrics says so.
#[test]
fn pods_with_metrics_can_be_found() {
    let mut found = vec![];
    each(|name, value, pod| {
        let annotations = &value["spec"]["template"]["metadata"]["annotations"];
        let ports = pod.containers.iter().flat_map(|one| one.ports.iter().flatten());
        let serves = ports.filter(|port| matches!(port.name.as_deref(), Some("metrics" | "admin")));
        for port in serves {
            assert_eq!(annotations["prometheus.io/scrape"], "true", "{name}");
            assert_eq!(annotations["prometheus.io/port"], port.container_port.to_string(), "{name}");
            found.push(name.to_owned());
        }
    });
    assert_eq!(found, ["metric-exporter", "vfio-manager"]);
}

/// Not every kubelet has its files in the same folder.
#[test]
fn no_path_of_the_kubelet_is_left_when_it_is_set() {
    let daemonsets = DaemonSets { kubelet_root_dir: "/data/kubelet".into(), ..DaemonSets::default() };
    let rebellions = Rebellions { daemonsets: Some(daemonsets), ..Rebellions::default() };
    let mut moved = 0;
    for operand in operands() {
        let template = operand.template().expect("a manifest");
        let daemon_set = template.render(&rebellions, &ComponentSpec::default(), &Placement::default());
        let pod = daemon_set.spec.and_then(|spec| spec.template.spec).expect("pods");
        for container in containers(&pod) {
            for (inside, host, _) in host_mounts(&pod, container) {
                assert!(!host.starts_with("/var/lib/kubelet"), "{}: {host}", operand.component.name);
                moved += usize::from(host.starts_with("/data/kubelet/") && inside.starts_with("/var/lib/kubelet/"));
            }
            // There the plugin would tell the kubelet a path that only its container has.
            let mut mounts = container.volume_mounts.iter().flatten();
            assert!(mounts.all(|mount| mount.mount_path != "/var/lib/kubelet/plugins_registry"), "{}", container.name);
        }
    }
    assert_eq!(moved, 2, "device-plugins and pod-resources");
}
