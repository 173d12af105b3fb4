//! Giving a device back to its native driver.

use std::sync::Arc;
use std::time::Duration;

use super::{expect_untouched, one_npu, outcome, run, run_with};
use crate::decide::Goal;
use crate::facts::VFIO_PCI;
use crate::fake::{Card, FakeKernel, NATIVE, npu};
use crate::parallel::{Mode, run_all};
use crate::pass::Worker;
use crate::report::WhenNone;
use crate::selection::Selection;
use crate::verdict::{Reason, State};

#[test]
fn what_is_given_back_returns_to_its_driver_and_leaves_nothing_behind() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    let back = ["unbind=0000:03:00.0", "driver_override=\\n", "drivers_probe=0000:03:00.0"];
    assert_eq!(fake.writes()[3..], back);
    expect_untouched(&fake, address);
    assert_eq!(fake.worker().records.previous_driver(address), None);
}

#[test]
fn without_its_driver_a_device_is_given_back_to_nobody_and_that_is_fine() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    fake.unload(NATIVE);
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::NoNativeDriver));
    assert_eq!(fake.reservation(address), "(null)");
    fake.load(NATIVE);
    expect_untouched(&fake, address);
}

#[test]
fn a_virtual_machine_keeps_its_device_when_devices_are_given_back() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    fake.hold(address);
    let result = run(&fake, Goal::GiveBack, address);
    assert_eq!(outcome(&result), (State::Busy, Reason::InUse));
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
    fake.release(address);
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    expect_untouched(&fake, address);
}

/// As long as we have the group's node open, a virtual machine that starts gets told that it is taken.
#[test]
fn a_virtual_machine_cannot_come_in_between_while_a_device_is_given_back() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    fake.open_before_write("unbind", address);
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    expect_untouched(&fake, address);
}

/// Each looks whether the group is free by opening its device node, and must not take one of the others for a user.
#[test]
fn devices_of_a_group_are_given_back_side_by_side() {
    let fake = FakeKernel::new();
    for slot in 0..6 {
        fake.plug(&format!("0000:03:00.{slot}"), npu(7));
    }
    let act = |goal| {
        let timeout = Duration::from_secs(20);
        run_all(&Arc::new(fake.worker()), goal, Mode::Act, WhenNone::NotReady, timeout).expect("a tree").0
    };
    let bound = act(Goal::Bind);
    assert!(bound.ready, "{}", bound.message);
    let given_back = act(Goal::GiveBack);
    assert!(given_back.ready, "{}", given_back.message);
}

#[test]
fn a_reservation_that_was_left_over_goes_when_the_device_is_given_back_or_left_alone() {
    for goal in [Goal::GiveBack, Goal::Bind] {
        let (fake, address) = one_npu();
        fake.set(address, "driver_override", "vfio-pci\n");
        fake.hold(address);
        run(&fake, goal, address);
        expect_untouched(&fake, address);
    }
}

/// Bound by the host's own configuration, without a reservation: it is used, and it is not ours to give back.
#[test]
fn what_somebody_else_put_on_vfio_pci_is_not_given_back() {
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Excluded, Reason::NotOurs));
    assert_eq!(fake.writes(), Vec::<String>::new());
}

#[test]
fn a_device_that_vfio_pci_takes_by_its_id_cannot_be_given_back_and_is_not_fought_for() {
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    fake.set(address, "driver_override", "vfio-pci\n");
    assert_eq!(outcome(&run(&fake, Goal::GiveBack, address)), (State::Failed, Reason::TakenByAnother));
    assert_eq!(fake.writes().len(), 3);
}

/// What is not seen cannot be held: nobody knows whether a virtual machine has the device.
#[test]
fn without_the_groups_device_node_nothing_is_taken_from_vfio_pci() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    std::fs::remove_file(fake.dev().join("vfio/7")).expect("a node");
    let result = run(&fake, Goal::GiveBack, address);
    assert_eq!(outcome(&result), (State::Blocked, Reason::UseUnknown));
    assert!(result.verdict.message.contains("VFIO_DEV"), "{}", result.verdict.message);
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
}

#[test]
fn only_what_is_selected_is_given_back() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    let include = |worker: &mut Worker| {
        let include = vec!["0000:09:00.0".parse().expect("a selector")];
        worker.selection = Selection { include, ..Selection::default() };
    };
    assert_eq!(outcome(&run_with(&fake, Goal::GiveBack, address, include)), (State::Excluded, Reason::NotSelected));
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
}
