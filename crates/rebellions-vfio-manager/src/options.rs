//! Command line and environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use accelerator_process::LogOptions;
use clap::{Args, Parser, Subcommand};

use crate::holders::Processes;
use crate::kernel::{GroupLocks, Linux};
use crate::modules::Modules;
use crate::pass::Worker;
use crate::records::Records;
use crate::report::WhenNone;
use crate::selection::{ParseSelectorError, Selection, Selector, WhenUnknown};
use crate::sysfs::Tree;

/// Binds a node's Rebellions NPUs to vfio-pci, so that virtual machines can have them, and gives them back. A device in use is never touched
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Options {
    /// What to do
    #[command(subcommand)]
    pub command: Command,

    /// Where and which
    #[command(flatten)]
    pub common: Common,

    /// How to log
    #[command(flatten)]
    pub log: LogOptions,
}

const EXIT_CODES: &str = "Exit codes: 0 all NPUs are as they should be; 1 something unexpected; 2 a wrong option; \
                          3 some NPUs are not; 4 there is no NPU; 5 another process is at work on them.";

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Keep every NPU on vfio-pci, until told to stop: what the pod runs. Devices then stay as they are
    Run(Admin),
    /// Show where every NPU stands, and why
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Bind every NPU that is free, once
    Bind(Once),
    /// Give every free NPU on vfio-pci back to its native driver, once
    GiveBack(GiveBack),
    /// Succeed if every NPU is on vfio-pci; otherwise say on one line what is missing
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,

        /// Ask the agent of this pod as well, at the port that it was told to listen on
        #[arg(long)]
        agent: bool,

        /// Where the agent listens
        #[command(flatten)]
        admin: Admin,
    },
}

/// Where the agent listens.
#[derive(Args, Clone, Copy, Debug)]
pub struct Admin {
    /// Address that the agent serves /livez, /readyz and /metrics on; port 0 picks a free one and logs it
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,
}

/// How to act once.
#[derive(Args, Clone, Copy, Debug)]
pub struct Once {
    /// Only tell what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// As JSON
    #[arg(long)]
    pub json: bool,

    /// How many seconds to wait for another process that is at work on the devices
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub wait: u64,
}

/// How to give devices back.
#[derive(Args, Clone, Copy, Debug)]
pub struct GiveBack {
    /// How to act
    #[command(flatten)]
    pub once: Once,

    /// How many seconds to wait for the end of those who use an NPU. As the init container of a pod it ends at once with code
    /// 3 all the same when a cause was not told yet, because the kubelet tells only what has ended, and waits when it is
    /// started again
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub wait_in_use: u64,
}

/// Where devices are, and which are meant.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where sysfs is
    #[arg(long, env = "VFIO_SYSFS", default_value = "/sys", value_name = "PATH", global = true)]
    pub sysfs: PathBuf,

    /// Where device nodes are
    #[arg(long, env = "VFIO_DEV", default_value = "/dev", value_name = "PATH", global = true)]
    pub dev: PathBuf,

    /// Where the host's processes are
    #[arg(long, env = "VFIO_PROC", default_value = "/proc", value_name = "PATH", global = true)]
    pub proc: PathBuf,

    /// Where kernel modules are
    #[arg(long, env = "VFIO_MODULES", default_value = "/lib/modules", value_name = "PATH", global = true)]
    pub modules: PathBuf,

    /// Where the report, the lock and the previous drivers are kept [default: /run/rebellions/vfio-manager]
    #[arg(long, env = "VFIO_STATE_DIR", value_name = "PATH", global = true)]
    pub state_dir: Option<PathBuf>,

    /// The NPUs that are for virtual machines, if not all: addresses, device ids and products, such as 0000:03:00.0,1250,RBLN-CA25
    #[arg(long, env = "VFIO_INCLUDE", default_value = "", hide_default_value = true, value_parser = selectors, value_name = "LIST", global = true)]
    pub include: Arc<[Selector]>,

    /// The NPUs that are not, named likewise; wins over --include
    #[arg(long, env = "VFIO_EXCLUDE", default_value = "", hide_default_value = true, value_parser = selectors, value_name = "LIST", global = true)]
    pub exclude: Arc<[Selector]>,

    /// What becomes of an NPU whose device id this version does not know
    #[arg(long, env = "VFIO_WHEN_UNKNOWN", value_enum, default_value = "leave", value_name = "WHAT", global = true)]
    pub when_unknown: WhenUnknown,

    /// What it means that there is no NPU
    #[arg(long, env = "VFIO_WHEN_NONE", value_enum, default_value = "not-ready", value_name = "WHAT", global = true)]
    pub when_none: WhenNone,

    /// Options for the module vfio-pci when it is loaded, such as `disable_idle_d3=1`
    #[arg(
        long,
        env = "VFIO_PCI_OPTIONS",
        default_value = "",
        hide_default_value = true,
        value_name = "OPTIONS",
        global = true
    )]
    pub module_options: String,
}

/// A list with commas; what is between them may be empty.
fn selectors(text: &str) -> Result<Arc<[Selector]>, ParseSelectorError> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

impl Common {
    /// Whether this is the kernel's own tree.
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.sysfs == Path::new("/sys")
    }

    /// What passes work with.
    #[must_use]
    pub fn worker(&self) -> Worker {
        let tree = Tree { sys: self.sysfs.clone(), dev: self.dev.clone() };
        Worker {
            host: tree.host(),
            processes: Processes { folder: self.proc.clone(), must_be_the_hosts: self.is_real() },
            kernel: Arc::new(Linux),
            group_locks: GroupLocks::default(),
            selection: Selection {
                include: self.include.to_vec(),
                exclude: self.exclude.to_vec(),
                when_unknown: self.when_unknown,
            },
            records: Records::of(&self.sysfs, self.state_dir.clone()),
            tree,
        }
    }

    /// Where vfio-pci comes from, in the kernel's own tree.
    #[must_use]
    pub fn modules(&self) -> Option<Modules> {
        self.is_real().then(|| Modules::of_this_kernel(&self.modules, &self.sysfs, &self.module_options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn lists_may_have_blanks_and_nothing_between_commas() {
        let options = Options::try_parse_from(["x", "status", "--exclude", " 1250, ,03:00.0,"]).expect("sound");
        assert_eq!(options.common.exclude.len(), 2);
        assert!(options.common.include.is_empty());
        let error = Options::try_parse_from(["x", "status", "--include", "card 1"]).expect_err("no selector");
        assert!(error.to_string().contains("neither a PCI address"), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_no_success() {
        for line in [["x", "unbind"], ["x", "--all"]] {
            assert_eq!(Options::try_parse_from(line).expect_err("wrong").exit_code(), 2);
        }
    }
}
