//! Installs what is in `deploy/`, the way that the README tells an admin to.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::programs::control_plane_binary;
use crate::repository;

/// `kustomize build`: the objects of a folder below `deploy/`.
pub fn render(folder: &str) -> anyhow::Result<Vec<Value>> {
    render_of(repository::root(), folder)
}

/// The same of another state of the repository, such as that of a release.
pub fn render_of(repository: &Path, folder: &str) -> anyhow::Result<Vec<Value>> {
    objects(&build(&repository.join("deploy").join(folder))?)
}

/// What a kustomization of somebody's own, beside `deploy`, renders to: resources below `deploy`, components below
/// `deploy/components`, and more fields.
pub fn render_own(resources: &[&str], components: &[&str], more: &Value) -> anyhow::Result<Vec<Value>> {
    let below = |tree: &str, names: &[&str]| names.iter().map(|name| format!("../{tree}/{name}")).collect::<Vec<_>>();
    let mut kustomization = more.clone();
    kustomization["apiVersion"] = "kustomize.config.k8s.io/v1beta1".into();
    kustomization["kind"] = "Kustomization".into();
    kustomization["resources"] = below("deploy", resources).into();
    kustomization["components"] = below("deploy/components", components).into();
    let folder = tempfile::tempdir()?;
    // A resource cannot be named by an absolute path.
    std::os::unix::fs::symlink(repository::root().join("deploy"), folder.path().join("deploy"))?;
    let own = folder.path().join("own");
    std::fs::create_dir(&own)?;
    std::fs::write(own.join("kustomization.yaml"), kustomization.to_string())?;
    objects(&build(&own)?)
}

/// What `kustomize build` prints of a folder.
pub fn build(path: &Path) -> anyhow::Result<String> {
    let output = Command::new(control_plane_binary("kustomize")?).arg("build").arg(path).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "could not render {}:\n{errors}", path.display());
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects in what was rendered.
pub fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    serde_saphyr::from_multiple(text).context("could not read what was rendered")
}

/// Writes each overlay as one file, `install-OVERLAY.yaml`: what a release ships. Returns their paths.
pub fn release_manifests(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut written = vec![];
    for overlay in std::fs::read_dir(repository::root().join("deploy/overlays"))? {
        let overlay = overlay?;
        let path = folder.join(format!("install-{}.yaml", overlay.file_name().to_string_lossy()));
        std::fs::write(&path, build(&overlay.path())?)?;
        written.push(path);
    }
    written.sort();
    Ok(written)
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
    command.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl")).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for us, who then clean up.
    command.process_group(0);
    let mut child = command.spawn().context("could not run kubectl")?;
    // kubectl may refuse before it has read everything; what it then says is the error, not the broken pipe.
    let _ = child.stdin.take().context("kubectl has no standard input")?.write_all(input);
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

/// The current context of whoever runs this, and nothing else of their kubeconfig, credentials included.
pub fn current_kubeconfig() -> anyhow::Result<Value> {
    let mut command = Command::new(control_plane_binary("kubectl")?);
    let output = command.args(["config", "view", "--minify", "--raw", "--flatten", "-o", "json"]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What tells an object from others.
#[must_use]
pub fn identity(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {} {}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// Identities of those objects that exist.
pub fn present(kubeconfig: &Path, objects: &[Value]) -> anyhow::Result<Vec<String>> {
    // Kinds that the cluster does not know cannot be asked for; none of ours is such.
    let input = serde_json::to_vec(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}))?;
    let found = kubectl(kubeconfig, &["get", "-f", "-", "--ignore-not-found", "-o", "json"], &input)?;
    if found.trim().is_empty() {
        return Ok(vec![]);
    }
    let found: Value = serde_json::from_str(&found)?;
    Ok(match found["items"].as_array() {
        Some(items) => items.iter().map(identity).collect(),
        None => vec![identity(&found)],
    })
}

/// Deletes these objects and waits until they are gone.
pub fn delete(kubeconfig: &Path, objects: &[Value]) -> anyhow::Result<String> {
    let input = serde_json::to_vec(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}))?;
    kubectl(kubeconfig, &["delete", "-f", "-", "--ignore-not-found"], &input)
}
