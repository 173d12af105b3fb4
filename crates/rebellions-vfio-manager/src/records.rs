//! The state that outlives a process, under `/run/rebellions/`: which driver each device was taken from, the lock that lets only one
//! agent work, and the document that says where every device stands. The folder is in memory and goes with a reboot, as do
//! the bindings that it is about.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

use crate::pci::Address;

/// Where it is kept for the kernel's own tree.
const FOLDER: &str = "/run/rebellions/vfio-manager";

/// The folder.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

/// The right to change devices. Ends when dropped, or with the process, however that ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] File);

/// Another agent, or a command, is at work.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} is at work on the devices; wait until it has ended")]
pub struct LockHeld {
    /// Its process id, in its own PID namespace; empty if it did not say.
    pub pid: String,
}

impl Records {
    /// Those for this tree: a tree that is not the kernel's own has its own.
    #[must_use]
    pub fn of(sys: &Path, folder: Option<PathBuf>) -> Self {
        let named_after_it = || {
            let name: String = sys.to_string_lossy().trim_matches('/').replace('/', "-");
            Path::new(FOLDER).with_file_name(format!("tree-{name}"))
        };
        let own = || if sys == Path::new("/sys") { FOLDER.into() } else { named_after_it() };
        Self { folder: folder.unwrap_or_else(own) }
    }

    /// The driver that a device was taken from; empty if it had none, `None` if it was never taken.
    #[must_use]
    pub fn previous_driver(&self, address: Address) -> Option<String> {
        Some(fs::read_to_string(self.previous_driver_file(address)).ok()?.trim().to_owned())
    }

    /// Records the previous driver. A known driver is not replaced by none.
    pub fn set(&self, address: Address, driver: &str) -> anyhow::Result<()> {
        if driver.is_empty() && self.previous_driver(address).is_some() {
            return Ok(());
        }
        self.replace(&self.previous_driver_file(address), driver)
    }

    /// Removes the record of a device that was given back.
    pub fn forget(&self, address: Address) -> anyhow::Result<()> {
        fs::remove_file(self.previous_driver_file(address)).context("could not remove a record")
    }

    /// Puts a new document in place of the old one.
    pub fn publish(&self, document: &str) -> anyhow::Result<()> {
        self.replace(&self.document(), document)
    }

    /// The causes that `give-back` of this pod has told.
    #[must_use]
    pub fn told(&self, pod: &str) -> Vec<String> {
        let text = fs::read_to_string(self.told_folder().join(pod)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Records them.
    pub fn set_told(&self, pod: &str, causes: &[String]) -> anyhow::Result<()> {
        self.replace(&self.told_folder().join(pod), &serde_json::to_string(causes)?)
    }

    /// Removes the causes of all pods, once every device is given back.
    pub fn forget_told(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(self.told_folder()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("could not remove a record"),
            _ => Ok(()),
        }
    }

    fn told_folder(&self) -> PathBuf {
        self.folder.join("told")
    }

    /// Where the document is.
    #[must_use]
    pub fn document(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    /// Takes the lock if nobody has it.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, LockHeld>> {
        let path = self.folder.join("lock");
        fs::create_dir_all(&self.folder).with_context(|| format!("could not create {}", self.folder.display()))?;
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            return Ok(Err(LockHeld { pid: pid.trim().to_owned() }));
        }
        file.rewind()?;
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Ok(Lock(file)))
    }

    fn previous_driver_file(&self, address: Address) -> PathBuf {
        self.folder.join("previous-driver").join(address.to_string())
    }

    /// Replaces a file atomically.
    fn replace(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let context = || format!("could not write {}", path.display());
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).with_context(context)?;
        // The suffix is appended, because the part after the last dot of an address is the function.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        fs::write(&unfinished, text).with_context(context)?;
        fs::rename(&unfinished, path).with_context(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().expect("a folder");
        let records = Records::of(Path::new("/sys"), Some(folder.path().join("state")));
        (folder, records)
    }

    #[test]
    fn a_former_driver_outlives_the_process_until_it_is_forgotten() {
        let (_folder, records) = records();
        let address = "0000:03:00.0".parse().expect("an address");
        assert_eq!(records.previous_driver(address), None);
        records.set(address, "rebellions").expect("noted");
        records.set(address, "").expect("noted");
        assert_eq!(records.previous_driver(address).as_deref(), Some("rebellions"));
        records.forget(address).expect("forgotten");
        assert_eq!(records.previous_driver(address), None);
    }

    #[test]
    fn what_a_pod_has_told_outlives_its_container_until_nobody_waits() {
        let (_folder, records) = records();
        records.forget_told().expect("nothing to forget");
        records.set_told("driver-x", &["a".to_owned()]).expect("noted");
        assert_eq!(records.told("driver-x"), ["a"]);
        assert_eq!(records.told("plugin-y"), Vec::<String>::new());
        records.forget_told().expect("forgotten");
        assert_eq!(records.told("driver-x"), Vec::<String>::new());
    }

    #[test]
    fn only_one_has_the_lock_and_the_next_gets_it_when_it_goes() {
        let (_folder, records) = records();
        let first = records.lock().expect("a file").expect("free");
        let taken = records.lock().expect("a file").expect_err("taken");
        assert_eq!(taken.pid, std::process::id().to_string());
        drop(first);
        assert!(records.lock().expect("a file").is_ok());
    }

    #[test]
    fn each_tree_has_its_own() {
        let folder = |sys: &str| Records::of(Path::new(sys), None).folder;
        assert_eq!(folder("/sys"), Path::new("/run/rebellions/vfio-manager"));
        assert_eq!(folder("/tmp/x/sys"), Path::new("/run/rebellions/tree-tmp-x-sys"));
    }
}
