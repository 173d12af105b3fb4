//! The component driver: as a value, and what it does beyond the others, which is pools and upgrades.

pub mod family;
pub mod image_tag;
pub mod install;
pub mod node;
pub mod os;
pub mod pods;
pub mod policy;
pub mod pool;
pub mod selector;
pub mod upgrade;

use accelerator_api::contract;
use accelerator_operand::{Operand, digest};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::EnvVar;

/// Kernel driver and user-mode libraries.
pub static OPERAND: Operand = Operand {
    component: &contract::DRIVER,
    manifest: include_str!("../../../assets/rebellions/driver/daemonset.yaml"),
    customize: tell_digest,
};

/// The driver manager compares this variable with what is loaded, and leaves the driver alone when it is the same.
const DIGEST_VARIABLE: &str = "DRIVER_CONFIG_DIGEST";

/// The init container that compares.
const MANAGER: &str = "k8s-driver-manager";

/// Tells the driver manager, which runs before the driver's container, what that container is going to be: the SHA-256 of
/// the pod's containers as JSON.
fn tell_digest(daemon_set: &mut DaemonSet) {
    let Some(pod) = daemon_set.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()) else {
        return;
    };
    let digest = digest(&pod.containers);
    for manager in pod.init_containers.iter_mut().flatten().filter(|one| one.name == MANAGER) {
        let variable = EnvVar { name: DIGEST_VARIABLE.into(), value: Some(digest.clone()), value_from: None };
        manager.env.get_or_insert_default().push(variable);
    }
}
