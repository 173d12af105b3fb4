//! Which devices are bound: known NPUs, virtual functions, the selection of the admin.

use super::{expect_untouched, one_npu, outcome, run, run_with};
use crate::decide::Goal;
use crate::facts::VFIO_PCI;
use crate::fake::{Card, FakeKernel, NATIVE, npu};
use crate::pass::Worker;
use crate::selection::{Selection, WhenUnknown};
use crate::verdict::{Reason, State};

#[test]
fn a_card_whose_virtual_functions_are_handed_out_is_never_bound_and_they_are() {
    let (fake, card) = one_npu();
    fake.enable_function(card, "0000:03:00.1");
    let part = fake.plug("0000:03:00.1", Card { device: 0x1251, ..npu(8) });
    let link = fake.sys().join("bus/pci/devices/0000:03:00.1/physfn");
    std::os::unix::fs::symlink(fake.sys().join("bus/pci/devices/0000:03:00.0"), link).expect("a link");
    assert_eq!(outcome(&run(&fake, Goal::Bind, card)), (State::Excluded, Reason::ActiveVirtualFunctions));
    expect_untouched(&fake, card);
    assert_eq!(outcome(&run(&fake, Goal::Bind, part)), (State::Bound, Reason::Verified));
}

/// Those who have its virtual functions would lose them with it.
#[test]
fn a_card_whose_virtual_functions_are_handed_out_is_not_given_back() {
    let (fake, card) = one_npu();
    run(&fake, Goal::Bind, card);
    fake.enable_function(card, "0000:03:00.1");
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, card)), (State::Busy, Reason::ActiveVirtualFunctions));
    assert_eq!(fake.driver(card).as_deref(), Some(VFIO_PCI));
}

/// An agent was interrupted while it took the device, and its successor is told to leave it.
#[test]
fn what_is_excluded_half_way_goes_back_to_its_driver() {
    let (fake, address) = one_npu();
    fake.worker().records.set(address, NATIVE).expect("noted");
    fake.set(address, "driver_override", "vfio-pci\n");
    let _ = std::fs::remove_file(fake.sys().join("bus/pci/devices/0000:03:00.0/driver"));
    let exclude = |worker: &mut Worker| {
        let exclude = vec!["0000:03:00.0".parse().expect("a selector")];
        worker.selection = Selection { exclude, ..Selection::default() };
    };
    let result = run_with(&fake, Goal::Bind, address, exclude);
    assert_eq!(outcome(&result), (State::Excluded, Reason::NotSelected));
    expect_untouched(&fake, address);
    // What the host itself reserved stays reserved.
    fake.set(address, "driver_override", "vfio-pci\n");
    assert_eq!(outcome(&run_with(&fake, Goal::Bind, address, exclude)), (State::Excluded, Reason::NotSelected));
    assert_eq!(fake.reservation(address), VFIO_PCI);
}

#[test]
fn foreign_devices_do_not_exist_for_us_and_unknown_npus_do() {
    let fake = FakeKernel::new();
    let of = |vendor, device, class| Card { vendor, device, class, ..npu(1) };
    fake.plug("0000:01:00.0", of(0x1af4, 0x1042, 0x12_0000));
    fake.plug("0000:02:00.0", of(0x1eff, 0x1250, 0x02_0000));
    let unknown = fake.plug("0000:03:00.0", Card { group: Some(3), ..of(0x1eff, 0x7770, 0x12_0100) });
    let odd = fake.plug("0000:04:00.0", Card { group: Some(2), ..of(0x1eff, 0x7772, 0x12_0001) });
    let found: Vec<_> = fake.worker().tree.npus().expect("a tree").into_iter().map(|npu| npu.address).collect();
    assert_eq!(found, [unknown, odd]);
    assert_eq!(outcome(&run(&fake, Goal::Bind, odd)), (State::Excluded, Reason::UnknownClass));
    let result = run(&fake, Goal::Bind, unknown);
    assert_eq!(outcome(&result), (State::Blocked, Reason::UnknownDeviceId));
    assert!(result.verdict.message.contains("7770"), "{}", result.verdict.message);
    expect_untouched(&fake, unknown);
    let bind_it = |worker: &mut Worker| worker.selection.when_unknown = WhenUnknown::Bind;
    assert_eq!(outcome(&run_with(&fake, Goal::Bind, unknown, bind_it)), (State::Bound, Reason::Verified));
}
