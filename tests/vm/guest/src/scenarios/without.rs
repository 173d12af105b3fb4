//! Without an IOMMU, and without an NPU.

use super::{bound, give_to_native, native, node, npus};
use crate::agent::{Agent, command, document};
use crate::checks::{check, equal, eventually};
use crate::machine::load;

/// The host cannot do it: devices are left with the driver that they have.
pub fn an_iommu() -> anyhow::Result<()> {
    give_to_native(&["1250", "2130"])?;
    let all = npus();
    equal("every NPU has a driver", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![native(); 3]);
    let mut agent = Agent::start();
    let blocked: Vec<_> = all.iter().map(|one| format!("{one} Blocked/NoIommu on uio_pci_generic")).collect();
    eventually("the reason is named", document, |seen| *seen == blocked);
    let said = agent.probe();
    check("the probe says what to do", said.code == 3 && said.out.contains("intel_iommu=on"), said);
    equal("no driver was taken away", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![native(); 3]);
    equal("nothing was written", agent.said().matches("Changing device").count(), 0);
    equal("SIGTERM ends it well", agent.stop().0, Some(0));
    equal("bind says the same", command(&["bind"]).code, 3);
    equal("and writes nothing either", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![native(); 3]);
    Ok(())
}

/// A node without NPUs is no success by default.
pub fn a_device() -> anyhow::Result<()> {
    load(&["virtio_pci", "virtio_blk"])?;
    let other = node::foreign();
    let before = bound(&other);
    let mut agent = Agent::start();
    eventually("it is not ready", || agent.get("/readyz"), |answer| answer.contains("this node has no NPU"));
    equal("the probe fails with its own code", agent.probe().code, 4);
    equal("the log says so", agent.said().matches("Found no NPU").count(), 1);
    agent.stop();
    let mut agent = Agent::start_with(&["VFIO_WHEN_NONE=ready"]);
    eventually("it is ready where an admin says so", || agent.probe().code, |code| *code == 0);
    agent.stop();
    equal("there is nothing to give back", command(&["give-back"]).code, 0);
    equal("the other vendor's device was never touched", bound(&other), before);
    Ok(())
}
