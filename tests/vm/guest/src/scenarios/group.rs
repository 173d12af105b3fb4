//! Three NPUs in one IOMMU group: they can be handed over together or not at all.

use rustix::process::Signal;

use super::{all_bound, bound, give_to_native, native, npus, ours};
use crate::agent::{Agent, Machine, command, document};
use crate::checks::{check, equal, eventually};

pub fn run() -> anyhow::Result<()> {
    give_to_native(&["2130"])?;
    let all = npus();
    let third = all[2].clone();
    let mut agent = Agent::start_with(&[&format!("VFIO_EXCLUDE={third}")]);
    let expected = [
        format!("{} Blocked/IommuGroupShared on none", all[0]),
        format!("{} Blocked/IommuGroupShared on none", all[1]),
        format!("{third} Excluded/NotSelected on uio_pci_generic"),
    ];
    eventually("one that the host uses is in the way of the others", document, |seen| *seen == expected);
    let said = agent.probe();
    check("the probe says which", said.code == 3 && said.out.contains(&format!("{third} on uio_pci_generic")), said);
    equal("nobody was touched", bound(&third), native());
    agent.stop();

    let mut agent = Agent::start();
    eventually("all of them together are bound", document, |seen| *seen == all_bound(&all));
    // As an init container does, whose own number is another than on the host.
    agent.signal(Signal::STOP);
    let said = agent.exec(&["/program", "give-back", "--state-dir=/run/rebellions/other"]);
    equal("given back side by side, from within a container", (said.code, bound(&third)), (0, native()));
    agent.signal(Signal::CONT);
    eventually("bound again", || all.iter().map(|one| bound(one)).collect::<Vec<_>>(), |seen| *seen == vec![ours(); 3]);
    let machine = Machine::start(&all[0]);
    check("a virtual machine gets one", machine.is_some(), ());
    agent.stop();
    let said = command(&["give-back"]);
    equal("the whole group is the virtual machine's", said.code, 3);
    equal("all stay", all.iter().map(|one| bound(one)).collect::<Vec<_>>(), vec![ours(); 3]);
    drop(machine);
    equal("and go when it has ended", command(&["give-back"]).code, 0);
    equal("back to the driver that one had", bound(&third), native());
    Ok(())
}
