//! The descriptors of all processes, as `/proc` shows them. They are compared by the identity of what they stand for and not
//! by names: a container calls its device nodes what it likes.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::facts::Holder;
use crate::nodes::{Identity, identity};
use crate::sysfs::link_name;

/// What is the same for all descriptors of one open file description. Two descriptions may look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// What was opened.
    pub identity: Identity,
    /// For reading, for writing, or for both. Other flags and the position may change between two looks.
    access_mode: u32,
    /// The mount through which it was opened: each container has its own.
    mount: u64,
}

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// The process.
    pub pid: u32,
    /// Its number in the process.
    pub number: u32,
    /// What it stands for.
    pub identity: Identity,
    /// The opening that it belongs to; `None` when the kernel did not tell.
    pub opening: Option<Opening>,
}

/// The descriptors that were found.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// In the order of processes.
    pub found: BTreeSet<Descriptor>,
    /// Whether the descriptors of some process could not be read.
    pub is_partial: bool,
}

/// The flags of a descriptor that does not keep anything open. Source: Linux, `include/uapi/asm-generic/fcntl.h`, `O_PATH`.
const PATH_ONLY: u32 = 0o10_000_000;
/// Source: as above, `O_ACCMODE`.
const ACCESS_MODE: u32 = 0o3;

impl Descriptors {
    /// Reads the descriptors of every process in `proc`, but for `except`, that keep one of these open.
    pub fn read(proc: &Path, wanted: &BTreeSet<Identity>, except: Option<u32>) -> Self {
        let mut all = Self::default();
        for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
            let Some(pid) = number(&entry.file_name()).filter(|pid| Some(*pid) != except) else { continue };
            let files = match fs::read_dir(entry.path().join("fd")) {
                Ok(files) => files,
                Err(error) => {
                    // A process that ended meanwhile holds nothing.
                    all.is_partial |= error.kind() == ErrorKind::PermissionDenied;
                    continue;
                }
            };
            for file in files.flatten() {
                let Some(number) = number(&file.file_name()) else { continue };
                let Some(identity) = identity(&file.path()).filter(|identity| wanted.contains(identity)) else {
                    continue;
                };
                let info = fs::read_to_string(entry.path().join("fdinfo").join(number.to_string())).ok();
                let info = info.as_deref().and_then(Info::parse);
                if info.is_some_and(|info| info.flags & PATH_ONLY != 0) {
                    continue;
                }
                let opening =
                    info.map(|Info { flags, mount }| Opening { identity, access_mode: flags & ACCESS_MODE, mount });
                all.found.insert(Descriptor { pid, number, identity, opening });
            }
        }
        all
    }

    /// The descriptors that both have.
    pub fn in_both(&self, other: &Self) -> Vec<Descriptor> {
        self.found.intersection(&other.found).copied().collect()
    }
}

/// What is read of `/proc/PID/fdinfo/N`.
#[derive(Clone, Copy)]
struct Info {
    flags: u32,
    mount: u64,
}

impl Info {
    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let flags = u32::from_str_radix(value("flags:")?, 8).ok()?;
        Some(Self { flags, mount: value("mnt_id:")?.parse().ok()? })
    }
}

fn number(name: &std::ffi::OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// Our own process id in `proc`, which may number processes differently.
pub fn own_pid(proc: &Path) -> Option<u32> {
    link_name(&proc.join("self"))?.parse().ok()
}

/// A process as it is told, `what` left empty.
pub fn holder(proc: &Path, pid: u32) -> Holder {
    let folder = proc.join(pid.to_string());
    let command = fs::read_to_string(folder.join("comm")).unwrap_or_default().trim().to_owned();
    let pod = fs::read_to_string(folder.join("cgroup")).ok().and_then(|text| pod_of(&text));
    Holder { pid, command, pod, what: String::new() }
}

/// The UID of the pod that a process's cgroup belongs to. Source: the kubelet's names of cgroups, `pod<uid>` by cgroupfs and
/// `…-pod<uid with underscores>.slice` by systemd.
fn pod_of(cgroup: &str) -> Option<String> {
    cgroup.split(['/', '\n']).find_map(|part| {
        let uid = part.rsplit_once("pod")?.1.trim_end_matches(".slice").replace('_', "-");
        let is_uid = uid.len() == 36 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uid.then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_cgroup_whoever_names_it() {
        let uid = "3f2a9c1e-0d4b-4a52-9d0e-6b0f7c1d2e3f";
        let by_systemd = "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod3f2a9c1e_0d4b_4a52_9d0e_6b0f7c1d2e3f.slice/cri-containerd-abc.scope\n";
        let by_cgroupfs = "12:pids:/kubepods/burstable/pod3f2a9c1e-0d4b-4a52-9d0e-6b0f7c1d2e3f/abc\n1:name=x:/\n";
        assert_eq!(pod_of(by_systemd).as_deref(), Some(uid));
        assert_eq!(pod_of(by_cgroupfs).as_deref(), Some(uid));
        assert_eq!(pod_of("0::/system.slice/podman.service\n"), None);
    }

    /// `O_PATH` opens nothing: the driver does not count it, and it keeps no device in use.
    #[test]
    fn a_descriptor_that_only_names_a_file_is_none() {
        use rustix::fs::{Mode, OFlags, open};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node");
        fs::write(&path, "").expect("a file");
        let wanted = BTreeSet::from([identity(&path).expect("a file")]);
        let ours = || Descriptors::read(Path::new("/proc"), &wanted, None).found.len();
        let named = open(&path, OFlags::PATH, Mode::empty()).expect("a descriptor");
        assert_eq!(ours(), 0);
        let opened = fs::File::open(&path).expect("a descriptor");
        assert_eq!(ours(), 1);
        drop((named, opened));
    }
}
