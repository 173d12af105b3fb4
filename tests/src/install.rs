//! Installs what is in `deploy/`, the way that the README tells an admin to.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::programs::control_plane_binary;
use crate::repository;

/// `kustomize build`: the objects of a folder below `deploy/`.
pub fn render(folder: &str) -> anyhow::Result<Vec<Value>> {
    let path = repository::root().join("deploy").join(folder);
    let output = Command::new(control_plane_binary("kustomize")?)
        .arg("build")
        .arg(&path)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "could not render {}:\n{errors}",
        path.display()
    );
    let text = String::from_utf8(output.stdout)?;
    serde_saphyr::from_multiple(&text).with_context(|| format!("could not read what {} renders to", path.display()))
}

/// `kubectl apply --server-side -f -`
pub fn apply(kubeconfig: &Path, objects: &[Value]) -> anyhow::Result<String> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let input = serde_json::to_vec(&list)?;
    kubectl(kubeconfig, &["apply", "--server-side", "-f", "-"], &input)
}

/// Runs kubectl; returns what it printed.
pub fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &[u8]) -> anyhow::Result<String> {
    let mut command = Command::new(control_plane_binary("kubectl")?);
    // A cache of its own: another control plane may have had the same port a minute ago.
    command
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl"))
        .args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("could not run kubectl")?;
    // kubectl may refuse before it has read everything; what it then says is the error, not the broken pipe.
    let _ = child
        .stdin
        .take()
        .context("kubectl has no standard input")?
        .write_all(input);
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether an object is a controller's Deployment: on the test bed the controllers are processes, not pods.
#[must_use]
pub fn is_deployment(object: &Value) -> bool {
    object["kind"] == "Deployment"
}
