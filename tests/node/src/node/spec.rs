//! What the first process of a node is told.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// A boot of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Name of the node.
    pub name: String,
    /// Its number on this machine.
    pub number: u8,
    /// Another one at each boot.
    pub boot_id: String,
    /// The root that it begins with, read only.
    pub root: PathBuf,
    /// Everything that it writes: `disk` is what its root has beyond `root`.
    pub folder: PathBuf,
    /// The folder with kubelet and kube-proxy.
    pub programs: PathBuf,
    /// Whether kube-proxy runs.
    pub proxy: bool,
}

impl Spec {
    /// Its own address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("10.77.0.{}", u16::from(self.number) + 1)
    }

    /// The addresses of its pods.
    #[must_use]
    pub fn pod_subnet(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Its control group in every hierarchy.
    #[must_use]
    pub fn control_group(&self) -> String {
        format!("realnode-{}", self.number)
    }

    /// Its folder of this name.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes it down for [`Spec::read`].
    pub fn write(&self) -> anyhow::Result<PathBuf> {
        let path = self.at("spec.json");
        std::fs::write(&path, serde_json::to_vec(self)?)?;
        Ok(path)
    }

    /// Reads what [`Spec::write`] wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
