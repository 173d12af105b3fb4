//! Metrics at the node's address.

use accelerator_api::Rebellions;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, ContainerPort, EnvVar, PodSpec};

/// The port's name, and the variable that tells the exporter where to listen.
const PORT: (&str, &str) = ("metrics", "RBLN_METRICS_EXPORTER_PORT");

/// The annotation that tells Prometheus.
const ANNOTATION: &str = "prometheus.io/port";

/// Lets metrics be served at the node's address, as `hostNetwork` and `hostPort` say. In the node's network there is one port, of
/// the pod and of the node, so the exporter has to listen there; else the runtime passes on what comes to the node's.
pub(crate) fn serve(daemon_set: &mut DaemonSet, rebellions: &Rebellions) {
    let Some(section) = &rebellions.metric_exporter else { return };
    let Some(template) = daemon_set.spec.as_mut().map(|spec| &mut spec.template) else { return };
    let Some(pod) = &mut template.spec else { return };
    if section.host_network != Some(true) {
        if let Some(port) = pod.containers.first_mut().and_then(metrics) {
            port.host_port = section.host_port;
        }
        return;
    }
    pod.host_network = Some(true);
    if let Some(wanted) = section.host_port {
        listen(pod, wanted);
        let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.into(), wanted.to_string());
    }
    let containers = pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten());
    for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
        // The API server wants them to be the same.
        port.host_port = Some(port.container_port);
    }
}

/// Lets the exporter listen at another port.
fn listen(pod: &mut PodSpec, wanted: i32) {
    let Some(main) = pod.containers.first_mut() else { return };
    if let Some(port) = metrics(main) {
        port.container_port = wanted;
    }
    let variables = main.env.get_or_insert_default();
    let variable = EnvVar { name: PORT.1.into(), value: Some(wanted.to_string()), value_from: None };
    match variables.iter_mut().find(|one| one.name == variable.name) {
        Some(default) => *default = variable,
        None => variables.push(variable),
    }
}

fn metrics(main: &mut Container) -> Option<&mut ContainerPort> {
    main.ports.iter_mut().flatten().find(|port| port.name.as_deref() == Some(PORT.0))
}
