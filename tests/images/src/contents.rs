//! What is in our images: one static program each, its licences and its SBOM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::containerfile::{self, Stage};
use crate::oci::{Content, Image};

/// An architecture that we build for, as Go and images spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

impl Architecture {
    /// That of this machine.
    pub fn here() -> anyhow::Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => anyhow::bail!("images are built for amd64 and arm64, and this machine is {other}"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// What makes our images.
#[derive(Clone, Debug)]
pub struct Ours {
    architecture: Architecture,
    contents: PathBuf,
    images: BTreeMap<String, Stage>,
}

impl Ours {
    /// Builds everything, which takes minutes the first time. `root` is the folder of the repository, `target` cargo's target
    /// folder, `revision` the commit, if known.
    pub fn build(
        root: &Path,
        target: &Path,
        architecture: Architecture,
        revision: Option<&str>,
    ) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(root.join("Containerfile")).context("no Containerfile")?;
        let contents = target.join("image-contents").join(architecture.name());
        let mut script = Command::new(root.join(".ci/image-contents"));
        script.arg(&contents).env("TARGET", architecture.target()).env("CARGO_TARGET_DIR", target);
        // What it builds is told on the terminal; what it prints is nothing that whoever calls us prints.
        let status = script.stdout(Stdio::null()).status().context("could not run .ci/image-contents")?;
        ensure!(status.success(), "could not build what is in the images; see above");
        Ok(Self { architecture, contents, images: containerfile::images(&text, revision)? })
    }

    /// Names of the programs, each of which is an image.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// The image of a program, by the name under which it is pulled; `None` when the program is none of ours.
    pub fn image(&self, program: &str, name: &str) -> anyhow::Result<Option<Image>> {
        let Some(config) = self.images.get(program) else { return Ok(None) };
        let folder = self.contents.join(program);
        let mut files = BTreeMap::new();
        collect(&folder, "", &mut files)?;
        let architecture = self.architecture.name();
        Ok(Some(Image { name: name.into(), architecture, files, config: config.clone() }))
    }
}

/// Every file in a folder, by its path in the image.
fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Content>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let path = format!("{prefix}/{}", name.to_str().context("a name that is no text")?);
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &path, files)?;
        } else {
            let is_executable = path == "/program";
            files.insert(path, Content { path: entry.path(), is_executable });
        }
    }
    Ok(())
}

/// The folder of the repository: that with the workspace's `Cargo.toml`.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every program that runs in a cluster is an image, by its own name and in this version.
    #[test]
    fn the_containerfile_has_every_program() {
        let text = std::fs::read_to_string(root().join("Containerfile")).expect("the Containerfile");
        let images = containerfile::images(&text, Some("abc")).expect("images");
        let crates = std::fs::read_dir(root().join("crates")).expect("a folder");
        let crates = crates.map(|entry| entry.expect("an entry").path());
        let mut programs: Vec<_> = crates
            .filter(|path| path.join("src/main.rs").exists())
            .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
            // A plugin of kubectl runs where an admin does.
            .filter(|name| !name.starts_with("kubectl-"))
            .collect();
        programs.sort();
        assert_eq!(images.keys().cloned().collect::<Vec<_>>(), programs);
        for (name, stage) in images {
            let label = |key: &str| stage.labels[&format!("org.opencontainers.image.{key}")].clone();
            assert_eq!(label("title"), name);
            assert_eq!(label("version"), env!("CARGO_PKG_VERSION"), "{name}");
            assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"), "{name}");
            assert_eq!(label("revision"), "abc", "{name}");
            assert_eq!(
                (stage.user.as_str(), &*stage.entrypoint),
                ("65532:65532", &["/program".to_owned()][..]),
                "{name}"
            );
        }
    }

    /// Images are built with the compiler that everything is tested with.
    #[test]
    fn the_base_image_has_our_compiler() {
        let read = |name: &str| std::fs::read_to_string(root().join(name)).expect(name);
        let toolchain = read("rust-toolchain.toml");
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
        let base = format!("ARG BUILDER=docker.io/library/rust:{}-slim-", channel.expect("a channel"));
        assert!(read("Containerfile").lines().any(|line| line.starts_with(&base)), "no {base}");
    }
}
