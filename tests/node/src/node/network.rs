//! The link between this machine and a node. Every node sees this machine under the same address; there is no bridge, no
//! translation and no forwarding here, and nodes do not see each other.

use std::time::{Duration, Instant};

use testbed::HOST;
use testbed::debian::Unpacked;

use super::spec::Spec;

const IP: &str = "usr/bin/ip";

/// How long the link of a node that was killed a moment ago may still be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the link and hands its other end to the network namespace of process `pid`.
pub fn connect(tools: &Unpacked, spec: &Spec, pid: u32) -> anyhow::Result<()> {
    let (here, there) = names(spec);
    let (here, there) = (here.as_str(), there.as_str());
    let begun = Instant::now();
    while let Err(error) = tools.run(IP, &["link", "add", here, "type", "veth", "peer", "name", there]) {
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{error:#}");
        disconnect(tools, spec);
        std::thread::sleep(Duration::from_millis(100));
    }
    let (address, subnet) = (spec.address(), spec.pod_subnet());
    tools.run(IP, &["link", "set", there, "name", "eth0", "netns", &pid.to_string()])?;
    tools.run(IP, &["address", "add", HOST, "peer", &address, "dev", here])?;
    tools.run(IP, &["link", "set", here, "up"])?;
    tools.run(IP, &["route", "add", &subnet, "via", &address, "dev", here])?;
    Ok(())
}

/// Removes the link. The kernel does so by itself, a little after the node's last process.
pub fn disconnect(tools: &Unpacked, spec: &Spec) {
    let _ = tools.run(IP, &["link", "delete", &names(spec).0]);
}

/// Both ends.
fn names(spec: &Spec) -> (String, String) {
    (format!("realnode{}", spec.number), format!("realnode{}p", spec.number))
}
