//! A real node.

pub mod config;
pub mod enter;
pub mod init;
mod network;
mod processes;
pub mod root;
pub mod spec;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Node as NodeObject;
use testbed::control_group::ControlGroup;
use testbed::programs::own_binary;
use testbed::{Access, ControlPlane, Folder, Process, Wait, eventually_within};

pub use self::processes::NodeProcess;
use self::spec::Spec;
use crate::reservation::Reservation;
use crate::{NODE_PROCESS, Software};

/// How long a node may take to become Ready; it takes 2 s on a quiet machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a pod's containers and the kubelet itself leave in these folders is known and not listed by [`Node::left`].
const KNOWN: [&str; 5] = ["var/log/pods", "var/log/containers", "var/lib/cni", "var/lib/containerd", "var/lib/kubelet"];

/// A node of a control plane with the profile `RealNodes`. Dropping it takes its power away and removes everything of it.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    spec: Spec,
    software: Software,
    process: Option<Process>,
    control_groups: Vec<ControlGroup>,
    folder: Folder,
    /// What an installed machine has before anything was run on it.
    pristine: OnceLock<Vec<String>>,
    _reservation: Reservation,
}

impl Node {
    /// Starts a node on which nothing has run before, with these OCI archives. Returns when it has been started; see
    /// [`Node::ready`].
    pub fn start(
        software: &Software,
        control_plane: &ControlPlane,
        name: &str,
        images: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let (reservation, folder) = (Reservation::make()?, Folder::new()?);
        let spec = Spec {
            name: name.into(),
            number: reservation.number,
            boot_id: String::new(),
            root: software.root.path(""),
            folder: folder.path().into(),
            programs: software.programs.clone(),
            proxy: true,
        };
        config::write(&spec, control_plane, &spec.at("etc"))?;
        std::fs::create_dir_all(spec.at("images"))?;
        for (number, image) in images.iter().enumerate() {
            let target = spec.at("images").join(format!("{number}.tar"));
            std::fs::hard_link(image, &target).or_else(|_| std::fs::copy(image, &target).map(drop))?;
        }
        let mut node = Self {
            name: name.into(),
            software: software.clone(),
            process: None,
            control_groups: vec![],
            folder,
            pristine: OnceLock::new(),
            spec,
            _reservation: reservation,
        };
        node.power_on()?;
        Ok(node)
    }

    /// Boots it. What was on its disk is still there; what was in memory, as below `/run`, is not.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "{} has power already", self.name);
        self.spec.boot_id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().into();
        let spec = self.spec.write()?;
        self.control_groups = ControlGroup::in_every_hierarchy(&self.spec.control_group())?;
        let mut command = Command::new(own_binary(NODE_PROCESS)?);
        let process = Process::start(command.arg("launch").arg(spec), &self.spec.at("node.log"))?;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        let process = self.process.insert(process);
        let begun = Instant::now();
        // Until its namespaces are there, its network is ours.
        while std::fs::read_link(format!("/proc/{}/ns/net", process.id())).ok().is_none_or(|its| its == own) {
            ensure!(process.ended().is_none() && begun.elapsed() < PATIENCE, "no namespaces: {}", process.tail());
            std::thread::sleep(Duration::from_millis(5));
        }
        network::connect(&self.software.root, &self.spec, process.id())
    }

    /// Waits until the kubelet has said since the last boot that the node is Ready.
    ///
    /// # Panics
    /// When that takes longer than two minutes.
    pub async fn ready(&self, access: &Access) {
        ready(access, &self.name, &self.spec.boot_id).await;
        self.pristine.get_or_init(|| self.files().unwrap_or_default());
    }

    /// Takes its power away at once. Nobody is told.
    pub fn power_off(&mut self) {
        self.process = None;
        // Its last processes end a moment later.
        self.control_groups.clear();
        network::disconnect(&self.software.root, &self.spec);
    }

    /// Takes its power away, boots it and waits until it is Ready.
    pub async fn reboot(&mut self, access: &Access) -> anyhow::Result<()> {
        self.power_off();
        self.power_on()?;
        self.ready(access).await;
        Ok(())
    }

    /// Runs a command in it; returns what it printed.
    pub fn run(&self, command: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(own_binary(NODE_PROCESS)?)
            .args(["enter", &self.first_process()?.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} on {}: {}", command.join(" "), self.name, errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a line of shell in it; returns what it printed.
    pub fn shell(&self, line: &str) -> anyhow::Result<String> {
        self.run(&["bash", "-c", line])
    }

    /// Imports an OCI archive.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let name = format!("import-{}.tar", archive.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        std::fs::copy(archive, self.spec.at("images").join(&name))?;
        self.run(&["ctr", "--namespace", "k8s.io", "images", "import", &format!("/opt/node/images/{name}")])?;
        Ok(())
    }

    /// Has containerd ask `server` in place of the registry `host`.
    pub fn redirect_registry(&self, host: &str, server: &str) -> anyhow::Result<()> {
        let folder = format!("{}/{host}", config::REGISTRIES);
        let content = format!("server = \"{server}\"\n[host.\"{server}\"]\n");
        self.shell(&format!("mkdir -p {folder} && cat >{folder}/hosts.toml <<'END'\n{content}END\n"))?;
        Ok(())
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        self.spec.address()
    }

    /// What is on its disk and below its `/run` beyond what it began with and what Kubernetes itself keeps, as absolute
    /// paths in order.
    pub fn left(&self) -> anyhow::Result<Vec<String>> {
        let mut left = self.files()?;
        left.retain(|path| self.pristine.get().is_none_or(|pristine| !pristine.contains(path)));
        Ok(left)
    }

    fn files(&self) -> anyhow::Result<Vec<String>> {
        let mut files = vec![];
        list(&self.spec.at("disk"), Path::new(""), &mut files)?;
        let in_memory = self.shell(
            "find /run /dev -xdev -mindepth 1 ! -path '/run/containerd*' ! -path '/run/cni-ipam*' \
             ! -path '/run/mount*' ! -path '/run/netns*'",
        )?;
        files.extend(in_memory.lines().map(str::to_owned));
        files.sort();
        Ok(files)
    }

    /// The end of a log: `kubelet`, `containerd`, `kube-proxy`.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.spec.at("disk/var/log").join(format!("{program}.log"))
    }

    /// Copies its logs, those of its pods included, to where they outlive it.
    pub fn keep_logs(&self, target: &Path) -> anyhow::Result<()> {
        let target = target.join(&self.name);
        std::fs::create_dir_all(&target)?;
        for source in [self.spec.at("disk/var/log"), self.spec.at("node.log")] {
            let status = Command::new("cp").arg("-r").arg(&source).arg(&target).status()?;
            ensure!(status.success(), "could not copy {}", source.display());
        }
        Ok(())
    }

    /// Process id, here, of its first process.
    fn first_process(&self) -> anyhow::Result<u32> {
        let process = self.process.as_ref().with_context(|| format!("{} has no power", self.name))?;
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id()))?;
        let Some(first) = children.split_whitespace().next() else {
            bail!("{} has ended:\n{}", self.name, process.tail());
        };
        Ok(first.parse()?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
        // Overlays of containers end with the node's last process, and their files stay until then.
        let folder = self.folder.path().to_owned();
        let begun = Instant::now();
        while std::fs::remove_dir_all(&folder).is_err() && folder.exists() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Waits until the kubelet of this boot has said that the node is Ready: what an earlier one said is still there.
pub(crate) async fn ready(access: &Access, name: &str, boot: &str) {
    eventually_within(PATIENCE, &format!("node {name} to be Ready"), async || {
        let node = access.all::<NodeObject>().get_opt(name).await.ok().flatten();
        let status = node.and_then(|node| node.status).unwrap_or_default();
        let boot_id = status.node_info.map(|info| info.boot_id).unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").cloned();
        let ready = ready.map(|ready| format!("{}: {}", ready.status, ready.message.unwrap_or_default()));
        Wait::until((boot_id, ready), |(boot_id, ready)| {
            boot_id == boot && ready.as_ref().is_some_and(|ready| ready.starts_with("True"))
        })
    })
    .await;
}

/// Files and empty folders below a folder.
fn list(root: &Path, below: &Path, found: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if KNOWN.iter().any(|known| path == Path::new(known)) {
            continue;
        }
        let before = found.len();
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        }
        if found.len() == before {
            found.push(format!("/{}", path.display()));
        }
    }
    Ok(())
}
