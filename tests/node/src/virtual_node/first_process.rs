//! The first process of a virtual node: what an init system does for a kubelet, on a machine that is all its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::channel;
use crate::node::init::{call, images, import, reap, retry, start_containerd, start_kubelet};
use crate::node::root::complete_devices;

/// The emulator's own network. Source: QEMU, `docs/system/devices/net.rst`, user mode.
const ADDRESS: &str = "10.0.2.15";

/// Where the node sees the machine that it runs on.
pub const GATEWAY: &str = "10.0.2.2";

/// What a kubelet and containerd need of a kernel whose drivers are modules.
const MODULES: [&str; 3] = ["virtio_net", "overlay", "veth"];

/// The port by which it takes commands.
const TERMINAL: &str = "/dev/ttyS1";

/// Boots the node. The kernel panics, and the machine ends, when this does.
pub fn run() -> anyhow::Result<()> {
    mount_filesystems()?;
    let commands = Command::new("/proc/self/exe").arg("answer").spawn()?;
    let name = fs::read_to_string("/etc/hostname")?;
    rustix::system::sethostname(name.trim().as_bytes())?;
    for module in MODULES {
        call("modprobe", &[module])?;
    }
    bring_up_network()?;
    let containerd = start_containerd()?;
    // What has been imported is still there after a boot.
    for image in images()? {
        import(&image)?;
        rustix::fs::sync();
        fs::remove_file(image)?;
    }
    let kubelet = start_kubelet(name.trim(), ADDRESS)?;
    testbed::say("Started");
    reap(&[commands, containerd, kubelet])
}

/// Runs commands that come by the second serial port.
pub fn answer() -> anyhow::Result<()> {
    channel::answer(TERMINAL)?;
    bail!("{TERMINAL} hung up")
}

fn mount_filesystems() -> anyhow::Result<()> {
    for (kind, at, options) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devtmpfs", "/dev", None),
        ("tmpfs", "/run", Some(c"mode=755")),
        ("tmpfs", "/tmp", Some(c"mode=1777")),
        ("cgroup2", "/sys/fs/cgroup", None),
    ] {
        mount(kind, at, kind, MountFlags::empty(), options).with_context(|| format!("could not mount {at}"))?;
    }
    complete_devices(Path::new("/dev"))?;
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

fn bring_up_network() -> anyhow::Result<()> {
    retry("eth0", || call("ip", &["link", "set", "eth0", "up"]))?;
    call("ip", &["link", "set", "lo", "up"])?;
    call("ip", &["address", "add", &format!("{ADDRESS}/24"), "dev", "eth0"])?;
    call("ip", &["route", "add", "default", "via", GATEWAY])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}
