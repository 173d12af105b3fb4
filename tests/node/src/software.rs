//! What a node is made of: Debian's packages, kubelet and kube-proxy.

use std::path::{Path, PathBuf};

use testbed::debian::{self, Packages, Unpacked};
use testbed::programs::node_binary;

/// All that runs on a node but Kubernetes itself, and the tools to look into one.
const PACKAGES: Packages = Packages {
    name: "nodes",
    what: "containerd, runc, the CNI plugins and a root for nodes",
    suites: &["trixie"],
    packages: &[
        ("trixie", "base-files"),
        ("trixie", "bash"),
        ("trixie", "containerd"),
        ("trixie", "containernetworking-plugins"),
        ("trixie", "coreutils"),
        ("trixie", "e2fsprogs"),
        ("trixie", "findutils"),
        ("trixie", "grep"),
        ("trixie", "iproute2"),
        ("trixie", "kmod"),
        ("trixie", "mount"),
        ("trixie", "nftables"),
        ("trixie", "procps"),
        ("trixie", "runc"),
        ("trixie", "sed"),
        ("trixie", "util-linux"),
    ],
};

/// What every node of this machine shares.
#[derive(Clone, Debug)]
pub struct Software {
    /// The root that every node begins with.
    pub root: Unpacked,
    /// The folder with kubelet and kube-proxy.
    pub programs: PathBuf,
}

impl Software {
    /// Gets everything, which takes minutes the first time. The inner error is a reason to skip: this machine cannot do it.
    pub fn get() -> anyhow::Result<Result<Self, String>> {
        if let Err(reason) = requirements() {
            return Ok(Err(reason));
        }
        let root = match debian::unpack(&PACKAGES, false)? {
            Ok(root) => root,
            Err(reason) => return Ok(Err(reason)),
        };
        let kubelet = node_binary("kubelet")?;
        Ok(Ok(Self { root, programs: kubelet.parent().unwrap_or(Path::new("/")).into() }))
    }

    /// Versions, for people.
    #[must_use]
    pub fn versions(&self) -> String {
        format!("{}, {}", self.root.version("containerd"), self.root.version("runc"))
    }
}

/// Why no node can run here, if so.
fn requirements() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("nodes are made of packages for amd64 alone".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("a node needs root: namespaces, mounts and control groups are made for it".into());
    }
    let hierarchies = testbed::control_group::hierarchies().map_err(|error| format!("{error:#}"))?;
    let Some(first) = hierarchies.first() else {
        return Err("no control groups are mounted".into());
    };
    let probe = first.join(format!("node-suite-probe-{}", std::process::id()));
    std::fs::create_dir(&probe)
        .map_err(|error| format!("no control group can be made in {}: {error}", first.display()))?;
    std::fs::remove_dir(&probe).map_err(|error| format!("could not remove {}: {error}", probe.display()))?;
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let missing = ["overlay", "tmpfs"].into_iter().find(|name| !filesystems.lines().any(|line| line.ends_with(name)));
    missing.map_or(Ok(()), |name| Err(format!("this kernel has no file system {name}")))
}
