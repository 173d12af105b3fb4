//! A real node in a virtual machine: a kernel of its own, with emulated NPUs behind an emulated IOMMU. What a node in
//! namespaces cannot have is here: devices, drivers and what holds them.

mod channel;
pub mod first_process;
mod image;
mod machine;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use testbed::{Access, ControlPlane, Folder, Process};
use vm_suite::device;
use vm_suite::fetch::{Fetched, fetch};

use self::channel::Channel;
use crate::{Skipped, Software, node};

/// How long a machine may take to take commands, and to let go of its NPUs; it takes 4 s on a quiet machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Said on the console when commands are taken.
const TAKES_COMMANDS: &str = "@@ takes commands";

/// A node of a control plane with the profile `RealNodes` that is a virtual machine. Dropping it takes its power away and
/// removes everything of it.
#[derive(Debug)]
pub struct VirtualNode {
    /// Its name in the cluster.
    pub name: String,
    fetched: Fetched,
    /// Sockets of its NPUs, which we serve as long as we live.
    npus: Vec<PathBuf>,
    process: Option<Process>,
    folder: Folder,
}

impl VirtualNode {
    /// Starts a machine on which nothing has run before, with these OCI archives and NPUs of these device ids, at slots 4, 5
    /// and so on of its only PCI bus. Returns as soon as it takes commands; see [`VirtualNode::ready`].
    ///
    /// # Errors
    /// [`Skipped`] when this machine cannot get an emulator and a kernel.
    pub fn start(
        software: &Software,
        control_plane: &ControlPlane,
        name: &str,
        images: &[PathBuf],
        npus: &[u16],
    ) -> anyhow::Result<Self> {
        let fetched = fetch(false)?.map_err(Skipped)?;
        let folder = Folder::new()?;
        image::make(&image::Content { software, fetched: &fetched, control_plane, name, images }, folder.path())?;
        let serve = |(number, id): (usize, &u16)| device::serve(folder.path(), &format!("npu{number}"), *id);
        let npus = npus.iter().enumerate().map(serve).collect::<anyhow::Result<_>>()?;
        let mut this = Self { name: name.into(), fetched, npus, process: None, folder };
        this.power_on()?;
        Ok(this)
    }

    /// Boots it. What its kernel had written to its disk is still there.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "{} has power already", self.name);
        let mut command = machine::command(&self.fetched, self.folder.path(), &self.npus);
        let console = self.at(machine::CONSOLE);
        // What the last boot said is not this one's.
        std::fs::write(&console, "")?;
        let process = self.process.insert(Process::start(&mut command, &self.folder.path().join("emulator.log"))?);
        let begun = Instant::now();
        let said = || String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
        // A terminal forgets what came before it was opened.
        while !said().contains(TAKES_COMMANDS) {
            let is_at_work = process.ended().is_none() && begun.elapsed() < PATIENCE;
            ensure!(is_at_work, "{} takes no commands:\n{}\n{}", self.name, process.tail(), said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Takes its power away at once. Nobody is told.
    pub fn power_off(&mut self) -> anyhow::Result<()> {
        let before: Vec<_> = self.npus.iter().map(|socket| made(socket)).collect();
        if self.process.take().is_none() {
            return Ok(());
        }
        // An NPU is served anew once the emulator has let go of it.
        let begun = Instant::now();
        for (socket, before) in self.npus.iter().zip(before) {
            while made(socket).is_none_or(|now| Some(now) == before) {
                ensure!(begun.elapsed() < PATIENCE, "{} is not served anew", socket.display());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits until the kubelet has said since the last boot that the node is Ready.
    ///
    /// # Panics
    /// When that takes longer than two minutes.
    pub async fn ready(&self, access: &Access) -> anyhow::Result<()> {
        let boot = self.shell("cat /proc/sys/kernel/random/boot_id")?;
        node::ready(access, &self.name, boot.trim()).await;
        Ok(())
    }

    /// Runs a line of shell in it; returns what it printed. What it leaves running must not keep our output open.
    pub fn shell(&self, line: &str) -> anyhow::Result<String> {
        let answer = Channel::new(&self.at(machine::COMMANDS)).ask(line).with_context(|| self.name.clone())?;
        ensure!(answer.code == Some(0), "{line} on {}: {}", self.name, answer.errors.trim());
        Ok(answer.out)
    }

    /// Copies its logs to where they outlive it; those of its programs and pods only while it takes commands.
    pub fn keep_logs(&self, target: &Path) -> anyhow::Result<()> {
        let target = target.join(&self.name);
        std::fs::create_dir_all(&target)?;
        for name in [machine::CONSOLE, "emulator.log"] {
            std::fs::copy(self.at(name), target.join(name))?;
        }
        for (name, line) in [
            ("kernel.log", "dmesg"),
            ("kubelet.log", "tail -n 2000 /var/log/kubelet.log"),
            ("containerd.log", "tail -n 500 /var/log/containerd.log"),
            ("pods.log", "tail -n 50 /var/log/pods/*/*/*.log"),
            (
                "npus.txt",
                "for npu in /sys/bus/pci/devices/*; do echo $npu; cat $npu/{vendor,driver_override}; \
                          readlink $npu/{driver,iommu_group}; done; ls -l /dev/vfio; cat /run/rebellions/*/status.json",
            ),
        ] {
            let said = self.shell(&format!("{line} 2>&1; true")).unwrap_or_else(|error| format!("{error:#}"));
            std::fs::write(target.join(name), said)?;
        }
        Ok(())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for VirtualNode {
    fn drop(&mut self) {
        // Until its NPUs are served anew: a socket that is made while the folder is removed would keep it.
        let _ = self.power_off();
    }
}

/// When a file was made, if it is there.
fn made(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|meta| meta.modified()).ok()
}
