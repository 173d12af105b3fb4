//! A machine emulator and a kernel, from the packages of Debian.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use testbed::debian::{self, Packages, Unpacked};

/// The release whose emulator has `vfio-user-pci` and whose kernel is long supported. The emulator of the backports: the one
/// before loses flags of an instruction that this kernel uses, and machines panic.
const PACKAGES: Packages = Packages {
    name: "virtual-machines",
    what: "a machine emulator and a kernel",
    suites: &["trixie", "trixie-backports"],
    packages: &[("trixie-backports", EMULATOR), ("trixie", "linux-image-cloud-amd64")],
};
const EMULATOR: &str = "qemu-system-x86";

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    packages: Unpacked,
    /// Release of the kernel.
    pub release: String,
}

/// Fetches what is not there yet. The inner error is a reason to skip: this machine cannot get them.
pub fn fetch(fresh: bool) -> anyhow::Result<Result<Fetched, String>> {
    let packages = match debian::unpack(&PACKAGES, fresh)? {
        Ok(packages) => packages,
        Err(reason) => return Ok(Err(reason)),
    };
    let release = debian::names(&packages.path("usr/lib/modules"))?.pop().context("no kernel was unpacked")?;
    let fetched = Fetched { packages, release };
    if !fetched.modules_folder().join("modules.dep").exists() {
        let base = fetched.packages.path("usr").display().to_string();
        fetched.packages.run("usr/sbin/depmod", &["-b", &base, &fetched.release])?;
    }
    Ok(Ok(fetched))
}

impl Fetched {
    /// Name and version of the emulator.
    #[must_use]
    pub fn emulator_version(&self) -> &str {
        self.packages.version(EMULATOR)
    }

    /// The kernel itself.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.packages.path("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The machine emulator, with its own firmware.
    #[must_use]
    pub fn emulator(&self) -> Command {
        let mut emulator = self.packages.command("usr/bin/qemu-system-x86_64");
        emulator.env("QEMU_MODULE_DIR", self.packages.path("usr/lib/x86_64-linux-gnu/qemu"));
        emulator.arg("-L").arg(self.packages.path("usr/share/qemu"));
        emulator.arg("-L").arg(self.packages.path("usr/share/seabios"));
        emulator
    }

    /// The kernel's modules, all of them, with their indexes.
    #[must_use]
    pub fn modules_folder(&self) -> PathBuf {
        self.packages.path("usr/lib/modules").join(&self.release)
    }

    /// Files of kernel modules and of all that they need, with the indexes, by name in the guest.
    pub fn modules(&self, wanted: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let folder = self.modules_folder();
        let index = fs::read_to_string(folder.join("modules.dep"))?;
        let mut files = vec!["modules.dep".to_owned(), "modules.builtin".into()];
        let stem = |path: &str| {
            path.rsplit('/').next().unwrap_or_default().split(".ko").next().unwrap_or_default().replace('-', "_")
        };
        let builtin = fs::read_to_string(folder.join("modules.builtin"))?;
        let find = |index: &str, name: &str| {
            index
                .lines()
                .find(|line| stem(line.split(':').next().unwrap_or_default()) == name.replace('-', "_"))
                .map(str::to_owned)
        };
        for name in wanted.iter().filter(|name| find(&builtin, name).is_none()) {
            let Some(line) = find(&index, name) else { bail!("the kernel {} has no module {name}", self.release) };
            files.extend(line.replace(':', " ").split_whitespace().map(str::to_owned));
        }
        files.sort();
        files.dedup();
        let in_guest = |file: &String| format!("lib/modules/{}/{file}", self.release);
        Ok(files.iter().map(|file| (in_guest(file), folder.join(file))).collect())
    }
}
