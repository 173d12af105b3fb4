//! The images that an installation pulls: ours from the static release programs, the vendor's played by one stand-in. Which
//! there are, and what is started in them, is read off the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use accelerator_api::contract;
use anyhow::Context;
use images::containerfile::Stage;
use images::oci::{self, Content, Image};
use images::{Architecture, Ours};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, Probe};
use serde_json::Value;
use testbed::programs::{shipped_binary, target_folder};
use testbed::repository::{operands, root};
use testbed::{install, say};

/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:1";

/// The program that is both the vendor's and what holds a pod.
const STAND_IN: &str = "stand-in";

/// Archives of every image that `deploy/overlays/default` and the operands' default manifests name.
pub fn archives(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let ours = ours()?;
    let stand_in = shipped_binary(STAND_IN)?;
    let (mut product, mut vendor) = (vec![], vec![stood_in(&stand_in, PAUSE, ["/pause".to_owned()].into())]);
    for (name, paths) in wanted()? {
        match ours.image(program_of(&name), &name)? {
            Some(image) => product.push(image),
            None => vendor.push(stood_in(&stand_in, &name, paths)),
        }
    }
    let paths = [("product.tar", product), ("vendor.tar", vendor)].map(|(name, images)| (folder.join(name), images));
    for (archive, images) in &paths {
        oci::write(archive, images)?;
    }
    Ok(paths.map(|(archive, _)| archive).into())
}

/// An archive of one of our images under another tag.
pub fn retagged(folder: &Path, program: &str, tag: &str) -> anyhow::Result<PathBuf> {
    let images = wanted()?;
    let name = images.keys().find(|name| program_of(name) == program).context("no image of this program")?;
    let (name, _) = name.rsplit_once(':').context("an image without a tag")?;
    let image = ours()?.image(program, &format!("{name}:{tag}"))?.context("no program of ours")?;
    let archive = folder.join(format!("{program}-{tag}.tar"));
    oci::write(&archive, &[image])?;
    Ok(archive)
}

/// Our images, as they are shipped.
fn ours() -> anyhow::Result<Ours> {
    say("Building the programs as they are shipped; the first time takes about 10 min on two cores ...");
    Ours::build(root(), &target_folder()?, Architecture::here()?, None)
}

/// An image of somebody else, played by a program of ours.
fn stood_in(program: &Path, name: &str, paths: BTreeSet<String>) -> Image {
    // What the image itself would start, if no command is given.
    let own = if paths.is_empty() { vec![format!("/{}", program_of(name))] } else { vec![] };
    let paths: Vec<_> = own.into_iter().chain(paths).collect();
    let config = Stage { entrypoint: paths.iter().take(1).cloned().collect(), ..Stage::default() };
    let content = Content { path: program.into(), is_executable: true };
    let files = paths.into_iter().map(|path| (path, content.clone())).collect();
    Image { name: name.into(), architecture: "amd64", files, config }
}

/// `ghcr.io/petasus-ai/node-labeler:v0.1.0` is `node-labeler`.
fn program_of(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next().unwrap_or_default()
}

/// Images, each with the absolute paths of what is started in it.
fn wanted() -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut wanted = BTreeMap::<String, BTreeSet<String>>::new();
    for object in install::render("overlays/default")?.iter().filter(|object| install::is_deployment(object)) {
        let image = object.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
        wanted.entry(image.context("a Deployment without an image")?.into()).or_default();
    }
    for operand in operands() {
        let value: Value = serde_saphyr::from_str(operand.manifest)?;
        let daemon_set: DaemonSet = serde_json::from_value(value)?;
        let pod = daemon_set.spec.and_then(|spec| spec.template.spec).context("a DaemonSet without pods")?;
        for container in pod.init_containers.iter().flatten().chain(&pod.containers) {
            let image = container.image.clone().context("a container without an image")?;
            wanted.entry(image).or_default().extend(started(container));
        }
        if operand.component.name == contract::DRIVER.name {
            let main = pod.containers.first().context("a DaemonSet without containers")?;
            let image = main.image.clone().context("a container without an image")?;
            wanted.entry(format!("{image}-{}", kernel_and_system()?)).or_default().extend(started(main));
        }
    }
    Ok(wanted)
}

/// What the driver's images are made for: the kernel of this machine, which nodes share, and the system that their root is of.
fn kernel_and_system() -> anyhow::Result<String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{}-debian13", kernel.trim()))
}

/// Absolute paths of what is started in a container, by itself and by its probes. A name without a folder is looked for in
/// the image's PATH.
fn started(container: &Container) -> BTreeSet<String> {
    let probes = [&container.startup_probe, &container.readiness_probe, &container.liveness_probe];
    let exec = |probe: &Probe| probe.exec.as_ref().and_then(|exec| exec.command.clone());
    let commands = probes.into_iter().flatten().filter_map(exec).chain(container.command.clone());
    let first = commands.filter_map(|command| command.first().cloned());
    first.map(|name| if name.starts_with('/') { name } else { format!("/usr/bin/{name}") }).collect()
}
