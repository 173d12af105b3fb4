//! The container as the default manifest has it, in short, for a runtime that knows only this.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use rebellions_vfio_manager_controller::OPERAND;
use serde_json::{Value, json};

/// Arguments, environment, mounts and privileges.
pub fn in_short() -> anyhow::Result<Value> {
    let value: Value = serde_saphyr::from_str(OPERAND.manifest)?;
    let daemon_set: DaemonSet = serde_json::from_value(value)?;
    let pod = daemon_set.spec.and_then(|spec| spec.template.spec).context("no pods")?;
    let container = pod.containers.first().context("no container")?;
    ensure!(container.command.is_none(), "the image's own program is meant to run");
    let path_of = |name: &str| {
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == name);
        volume.and_then(|volume| volume.host_path.as_ref()).map(|host| host.path.clone())
    };
    let mut mounts = vec![];
    for mount in container.volume_mounts.iter().flatten() {
        let host = path_of(&mount.name).with_context(|| format!("{} is no path of the host", mount.name))?;
        let read_only = mount.read_only.unwrap_or(false);
        mounts.push(json!({"host": host, "container": mount.mount_path, "readOnly": read_only}));
    }
    let env: Vec<_> = container.env.iter().flatten().map(|one| json!([one.name, one.value])).collect();
    let security = container.security_context.as_ref();
    Ok(json!({
        "args": container.args,
        "env": env,
        "mounts": mounts,
        "privileged": security.and_then(|one| one.privileged).unwrap_or(false),
        "hostNetwork": pod.host_network.unwrap_or(false),
        "hostPID": pod.host_pid.unwrap_or(false),
        "probe": container.readiness_probe.as_ref().and_then(|probe| probe.exec.as_ref()).map(|exec| &exec.command),
    }))
}
