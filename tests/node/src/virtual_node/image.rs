//! The disk of a virtual node: the root that nodes in namespaces have, with the kernel's modules and all that the node is
//! given.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use testbed::ControlPlane;
use testbed::programs::shipped_binary;
use vm_suite::fetch::Fetched;

use super::first_process::GATEWAY;
use crate::node::config::{self, FOLDER, Server};
use crate::node::{init, root};
use crate::{NODE_PROCESS, Software};

/// Its file.
pub const DISK: &str = "disk";

/// How large it is; what is not used takes no room here.
const SIZE: &str = "3G";

/// The addresses of its pods, which nobody outside sees.
const PODS: &str = "10.244.0.0/24";

/// What is on the disk of a node.
pub struct Content<'a> {
    pub software: &'a Software,
    /// The kernel.
    pub fetched: &'a Fetched,
    pub control_plane: &'a ControlPlane,
    /// The node's name.
    pub name: &'a str,
    /// Images that its containerd imports.
    pub images: &'a [PathBuf],
}

/// Makes the disk in `folder`.
pub fn make(content: &Content<'_>, folder: &Path) -> anyhow::Result<()> {
    let Content { software, fetched, control_plane, name, images } = *content;
    let target = folder.join("root");
    copy(&software.root.path(""), &target)?;
    root::make_files(name, 0, &target)?;
    copy(&fetched.modules_folder(), &target.join("usr/lib/modules").join(&fetched.release))?;
    let at = |path: &str| target.join(path.trim_start_matches('/'));
    let programs = at("/opt/node/programs");
    // Static: whatever this machine's libraries are, the node has others.
    for program in [software.programs.join("kubelet"), shipped_binary(NODE_PROCESS)?] {
        fs::copy(&program, programs.join(program.file_name().context("a program without a name")?))?;
    }
    for (number, image) in images.iter().enumerate() {
        fs::copy(image, at(init::IMAGES).join(format!("{number}.tar")))?;
    }
    configure(control_plane, name, &at(FOLDER))?;
    let mut command = software.root.command("usr/sbin/mke2fs");
    command.env("MKE2FS_CONFIG", at("/etc/mke2fs.conf")).args(["-q", "-F", "-t", "ext4", "-d"]);
    let output = command.arg(&target).arg(folder.join(DISK)).arg(SIZE).output()?;
    ensure!(output.status.success(), "could not make a disk: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(fs::remove_dir_all(&target)?)
}

fn configure(control_plane: &ControlPlane, name: &str, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("cni"))?;
    let server = Server { address: GATEWAY, port: control_plane.port };
    config::write_identities(name, control_plane, &server, folder)?;
    // The machine is all its own.
    fs::write(folder.join("kubelet.yaml"), config::kubelet("/").to_string())?;
    fs::write(folder.join("cni/10-pods.conflist"), config::pod_network(PODS).to_string())?;
    Ok(fs::write(folder.join("containerd.toml"), config::containerd())?)
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new("cp").args(["--archive", "--no-target-directory"]).arg(from).arg(to).status()?;
    ensure!(status.success(), "could not copy {}", from.display());
    Ok(())
}
