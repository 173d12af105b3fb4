//! Tries the VFIO manager on a real kernel. Everything that it needs beyond Rust comes from the package registry that the
//! machine's apt uses: a machine emulator and a kernel, unpacked beside the system and not installed.

mod archive;
mod guest;
mod manifest;
mod scenario;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use testbed::programs::shipped_binary;
use testbed::{Folder, say};
use vm_suite::fetch::{Fetched, fetch};

use crate::scenario::SCENARIOS;

/// What a run ends with when it could not be made: neither a success nor a failure. Source: the convention of Automake.
const SKIPPED: u8 = 77;

/// Tries rebellions-vfio-manager in virtual machines with emulated NPUs, on a real kernel
#[derive(Parser)]
struct Options {
    /// Run only scenarios whose name contains this
    filter: Option<String>,

    /// Show everything that the virtual machines print
    #[arg(long)]
    console: bool,

    /// Fetch emulator and kernel anew
    #[arg(long)]
    fresh: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let begun = Instant::now();
    let fetched = match fetch(options.fresh)? {
        Ok(fetched) => fetched,
        Err(reason) => {
            say(format!("SKIPPED: {reason}"));
            return Ok(ExitCode::from(SKIPPED));
        }
    };
    say(format!(
        "{} and Linux {} are there after {} s.",
        fetched.emulator_version(),
        fetched.release,
        begun.elapsed().as_secs()
    ));
    let folder = Folder::new()?;
    let image = image(&fetched, folder.path())?;
    say(format!("Programs and initial RAM disk are there after {} s.", begun.elapsed().as_secs()));

    let mut failed = vec![];
    let is_chosen = |name: &str| options.filter.as_ref().is_none_or(|text| name.contains(text));
    let chosen: Vec<_> = SCENARIOS.iter().filter(|one| is_chosen(one.name)).collect();
    anyhow::ensure!(!chosen.is_empty(), "no scenario has such a name");
    for scenario in chosen {
        let outcome = guest::run(scenario, &fetched, &image, folder.path(), options.console)?;
        say(format!("{}: {}", scenario.name, outcome.summary));
        if !outcome.passed {
            failed.push(scenario.name);
        }
    }
    let seconds = begun.elapsed().as_secs();
    if failed.is_empty() {
        say(format!("All scenarios passed, {seconds} s in all."));
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("FAILED: {}; {seconds} s in all.", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// The initial RAM disk: our two programs, the manifest in short, and the kernel's modules as they are shipped.
fn image(fetched: &Fetched, folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let mut archive = archive::Archive::default();
    archive.file("init", &std::fs::read(shipped_binary("vm-guest")?)?, 0o755);
    archive.file("program", &std::fs::read(shipped_binary("rebellions-vfio-manager")?)?, 0o755);
    archive.file("manifest.json", manifest::in_short()?.to_string().as_bytes(), 0o644);
    for (name, path) in
        fetched.modules(&["vfio-pci", "vfio_iommu_type1", "uio_pci_generic", "virtio_pci", "virtio_blk"])?
    {
        archive.file(
            &name,
            &std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?,
            0o644,
        );
    }
    let image = folder.join("initrd");
    std::fs::write(&image, archive.finish())?;
    Ok(image)
}
