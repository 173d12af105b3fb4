//! Loads kernel modules, without a modprobe: the image holds nothing but the agent, and the host's root is not mounted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::system::{finit_module, init_module};
use tracing::info;

/// What virtual machines need besides vfio-pci: the part that programs the IOMMU. vfio only recommends it to modprobe.
const IOMMU: &str = "vfio_iommu_type1";

/// Where modules are.
#[derive(Clone, Debug)]
pub struct Modules {
    /// `/lib/modules`, with a folder per kernel release.
    pub folder: PathBuf,
    /// `/sys/module`, with a folder per module that is loaded.
    pub loaded: PathBuf,
    /// Release of the running kernel.
    pub release: String,
    /// Options for vfio-pci: `disable_idle_d3=1`.
    pub options: String,
}

/// What is written about the modules of a kernel. Source: depmod's `modules.dep`, `modules.builtin`.
struct Index {
    folder: PathBuf,
    /// Path and dependencies by name.
    files: BTreeMap<String, (PathBuf, Vec<PathBuf>)>,
    builtin: Vec<String>,
}

impl Modules {
    /// Those of the running kernel.
    #[must_use]
    pub fn of_this_kernel(folder: &Path, sys: &Path, options: &str) -> Self {
        Self {
            folder: folder.into(),
            loaded: sys.join("module"),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            options: options.into(),
        }
    }

    /// Makes vfio-pci available. The error says what to do.
    pub fn load(&self) -> anyhow::Result<()> {
        self.load_module(IOMMU, "")?;
        self.load_module("vfio_pci", &self.options)
    }

    /// Loads a module and what it needs, unless it is there already. The error says what to do.
    pub fn load_module(&self, name: &str, options: &str) -> anyhow::Result<()> {
        self.try_load(name, options).with_context(|| {
            format!(
                "{name} is not there and could not be loaded; run `modprobe {name}` on the host, or install its modules"
            )
        })
    }

    fn try_load(&self, name: &str, options: &str) -> anyhow::Result<()> {
        if self.is_loaded(name) {
            return Ok(());
        }
        let index = self.index()?;
        if index.builtin.iter().any(|one| one == name) {
            return Ok(());
        }
        let Some((file, needs)) = index.files.get(name) else {
            bail!("the kernel {} has no such module", self.release);
        };
        // The last one needs nothing. Source: modules.dep(5).
        for need in needs.iter().rev().filter(|need| !self.is_loaded(&name_of(need))) {
            insert(&index.folder.join(need), "")?;
        }
        insert(&index.folder.join(file), options)?;
        info!(module = name, "Loaded kernel module");
        Ok(())
    }

    fn index(&self) -> anyhow::Result<Index> {
        let folder = self.folder.join(&self.release);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))
        };
        let mut files = BTreeMap::new();
        for line in read("modules.dep")?.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(PathBuf::from).collect();
            files.insert(name_of(Path::new(file)), (PathBuf::from(file), needs));
        }
        let builtin = read("modules.builtin")?.lines().map(|line| name_of(Path::new(line))).collect();
        Ok(Index { folder, files, builtin })
    }

    fn is_loaded(&self, name: &str) -> bool {
        // Built-in modules have folders, too, but no state.
        self.loaded.join(name).join("initstate").exists() || self.loaded.join(name).join("refcnt").exists()
    }
}

/// `kernel/drivers/vfio/pci/vfio-pci.ko.xz` is `vfio_pci`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split(".ko").next().unwrap_or_default().replace('-', "_")
}

fn insert(file: &Path, options: &str) -> anyhow::Result<()> {
    let context = || format!("could not insert {}", file.display());
    let options = std::ffi::CString::new(options)?;
    let opened = File::open(file).with_context(context)?;
    let result = match unpacked(file)? {
        None => finit_module(&opened, &options, 0),
        Some(image) => init_module(&image, &options),
    };
    match result {
        // Somebody was faster.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => result.with_context(context),
    }
}

/// The module itself, if its file is compressed. Not every kernel can do that by itself.
fn unpacked(file: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let mut image = vec![];
    let opened = File::open(file)?;
    match file.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(opened, false).read_to_end(&mut image)?,
        Some("zst") => ruzstd::decoding::StreamingDecoder::new(opened)?.read_to_end(&mut image)?,
        Some("gz") => flate2::read::GzDecoder::new(opened).read_to_end(&mut image)?,
        _ => return Ok(None),
    };
    Ok(Some(image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_by_its_file_however_that_is_packed() {
        for file in
            ["kernel/drivers/vfio/pci/vfio-pci.ko", "kernel/drivers/vfio/pci/vfio-pci.ko.xz", "updates/vfio_pci.ko.zst"]
        {
            assert_eq!(name_of(Path::new(file)), "vfio_pci");
        }
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let folder = tempfile::tempdir().expect("a folder");
        let packed = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).expect("a file");
            unpacked(&path).expect("it can be unpacked")
        };
        // "module", by gzip, xz with CRC32, and zstd.
        let gz = [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 203, 205, 79, 41, 205, 73, 5, 0, 40, 38, 36, 12, 6, 0, 0, 0];
        let xz = [
            253, 55, 122, 88, 90, 0, 0, 1, 105, 34, 222, 54, 2, 0, 33, 1, 22, 0, 0, 0, 116, 47, 229, 163, 1, 0, 5, 109,
            111, 100, 117, 108, 101, 0, 0, 0, 40, 38, 36, 12, 0, 1, 26, 6, 197, 234, 200, 121, 144, 66, 153, 13, 1, 0,
            0, 0, 0, 1, 89, 90,
        ];
        let zst = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 6, 0x31, 0, 0, b'm', b'o', b'd', b'u', b'l', b'e'];
        assert_eq!(packed("a.ko", b"module"), None);
        for (name, bytes) in [("a.ko.gz", &gz[..]), ("a.ko.xz", &xz), ("a.ko.zst", &zst)] {
            assert_eq!(packed(name, bytes).as_deref(), Some(&b"module"[..]), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let modules = Modules {
            folder: folder.path().into(),
            loaded: folder.path().join("sys"),
            release: "6.8.0".into(),
            options: String::new(),
        };
        let error = format!("{:#}", modules.load().expect_err("nothing is there"));
        assert!(error.contains("modprobe vfio_iommu_type1") && error.contains("6.8.0/modules.dep"), "{error}");
    }
}
