//! The component device-plugin, as a value.

use accelerator_api::{Rebellions, contract};
use accelerator_operand::Operand;
use k8s_openapi::api::apps::v1::DaemonSet;

/// Advertises NPUs to the kubelet.
pub static OPERAND: Operand = Operand {
    component: &contract::DEVICE_PLUGIN,
    manifest: include_str!("../../../assets/rebellions/device-plugin/daemonset.yaml"),
    customize: register_where_the_kubelet_looks,
};

/// The volume of the folder in which the kubelet looks for plugins, and where the plugin takes it to be on the host.
const PLUGINS_REGISTRY: (&str, &str) = ("plugins-registry", "/var/lib/kubelet/plugins_registry");

/// The plugin registers through the folder `plugins_registry` when it has it, and then tells the kubelet a path of its own
/// container. That is right only where the kubelet has its default root; elsewhere the plugin goes without the folder, and
/// registers at the kubelet's socket in `device-plugins`, by a name without a path.
fn register_where_the_kubelet_looks(daemon_set: &mut DaemonSet, _: &Rebellions) {
    let Some(pod) = daemon_set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) else {
        return;
    };
    let (volume, path) = PLUGINS_REGISTRY;
    let is_default =
        |one: &k8s_openapi::api::core::v1::Volume| one.host_path.as_ref().is_some_and(|host| host.path == path);
    if pod.volumes.iter().flatten().any(|one| one.name == volume && !is_default(one)) {
        pod.volumes.get_or_insert_default().retain(|one| one.name != volume);
        for container in &mut pod.containers {
            container.volume_mounts.get_or_insert_default().retain(|mount| mount.name != volume);
        }
    }
}
