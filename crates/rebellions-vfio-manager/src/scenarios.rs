//! Whole passes on a tree that behaves like the kernel.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rustix::io::Errno;

use crate::decide::Goal;
use crate::facts::{Npu, VFIO_PCI};
use crate::fake::{Card, Fake, NATIVE, npu};
use crate::parallel::{Mode, run_all};
use crate::pass::{PassResult, Worker};
use crate::pci::Address;
use crate::report::WhenNone;
use crate::selection::{Selection, WhenUnknown};
use crate::verdict::{Reason, State};

fn run(fake: &Arc<Fake>, goal: Goal, address: Address) -> PassResult {
    with(fake, goal, address, |_| {})
}

fn with(fake: &Arc<Fake>, goal: Goal, address: Address, change: impl FnOnce(&mut Worker)) -> PassResult {
    let mut worker = fake.worker();
    change(&mut worker);
    worker.run(goal, address, &mut |_| {})
}

fn stands(finding: &PassResult) -> (State, Reason) {
    (finding.verdict.state, finding.verdict.reason)
}

/// One NPU on its native driver.
fn one() -> (Arc<Fake>, Address) {
    let fake = Fake::new();
    let address = fake.plug("0000:03:00.0", npu(7));
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
    (fake, address)
}

/// The device is as it was before anybody came.
fn expect_untouched(fake: &Fake, address: Address) {
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
    assert_eq!(fake.reservation(address), "(null)");
    assert_eq!(fake.violations(), Vec::<String>::new());
}

#[test]
fn a_free_device_is_bound_in_the_safe_order_and_verified() {
    let (fake, address) = one();
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    assert_eq!(fake.writes(), ["driver_override=vfio-pci", "unbind=0000:03:00.0", "drivers_probe=0000:03:00.0"]);
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
    assert_eq!(fake.worker().records.previous_driver(address).as_deref(), Some(NATIVE));
}

#[test]
fn what_is_bound_is_adopted_without_a_write() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    let before = fake.writes().len();
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    fake.hold(address);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified), "a virtual machine has it");
    assert_eq!(fake.writes().len(), before);
}

#[test]
fn what_is_given_back_returns_to_its_driver_and_leaves_nothing_behind() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    let back = ["unbind=0000:03:00.0", "driver_override=\\n", "drivers_probe=0000:03:00.0"];
    assert_eq!(fake.writes()[3..], back);
    expect_untouched(&fake, address);
    assert_eq!(fake.worker().records.previous_driver(address), None);
}

#[test]
fn without_its_driver_a_device_is_given_back_to_nobody_and_that_is_fine() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    fake.unload(NATIVE);
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::NoNativeDriver));
    assert_eq!(fake.reservation(address), "(null)");
    fake.load(NATIVE);
    expect_untouched(&fake, address);
}

#[test]
fn a_device_in_use_is_left_alone_and_its_user_is_named() {
    let (fake, address) = one();
    fake.hold(address);
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Busy, Reason::InUse));
    assert_eq!(finding.verdict.holders[0].pid, std::process::id());
    assert!(finding.verdict.message.contains("/dev/rbln0"), "{}", finding.verdict.message);
    assert_eq!(fake.writes(), Vec::<String>::new());
    fake.release(address);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn a_device_that_is_opened_at_the_last_moment_is_left_alone() {
    let (fake, address) = one();
    fake.ambush("driver_override", address);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Busy, Reason::InUse));
    expect_untouched(&fake, address);
}

#[test]
fn a_virtual_machine_keeps_its_device_when_devices_are_given_back() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    fake.hold(address);
    let finding = run(&fake, Goal::GiveBack, address);
    assert_eq!(stands(&finding), (State::Busy, Reason::InUse));
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
    fake.release(address);
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    expect_untouched(&fake, address);
}

/// As long as we have the group's node open, a virtual machine that starts gets told that it is taken.
#[test]
fn a_virtual_machine_cannot_come_in_between_while_a_device_is_given_back() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    fake.ambush("unbind", address);
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Native, Reason::OnNativeDriver));
    expect_untouched(&fake, address);
}

#[test]
fn a_driver_that_counts_a_user_whom_nobody_sees_keeps_its_device() {
    let (fake, address) = one();
    fake.count_more(1);
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Busy, Reason::InUse));
    assert!(finding.verdict.message.contains("counts 1 users of which 0 are known"), "{}", finding.verdict.message);
    assert!(finding.verdict.message.contains("/proc/*/maps"), "{}", finding.verdict.message);
    // Another module that builds on it is no user.
    std::fs::create_dir_all(fake.sys().join("module/rebellions/holders/rebellions_fs")).expect("a folder");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn the_user_of_one_device_does_not_keep_another_from_being_bound() {
    let (fake, held) = one();
    let free = fake.plug("0000:04:00.0", npu(8));
    fake.hold(held);
    assert_eq!(stands(&run(&fake, Goal::Bind, held)), (State::Busy, Reason::InUse));
    assert_eq!(stands(&run(&fake, Goal::Bind, free)), (State::Bound, Reason::Verified));
}

/// A process that was forked has a second descriptor of one device: it must not stand for the user of another who has none.
#[test]
fn an_inherited_descriptor_of_one_device_hides_no_user_of_another() {
    let (fake, held) = one();
    let other = fake.plug("0000:04:00.0", npu(8));
    fake.hold(held);
    let inherited = fake.duplicate(held);
    fake.count_more(1);
    let finding = run(&fake, Goal::Bind, other);
    assert_eq!(stands(&finding), (State::Blocked, Reason::UseUnknown));
    let message = finding.verdict.message;
    assert!(message.contains("counts 2 users") && message.contains(&std::process::id().to_string()), "{message}");
    expect_untouched(&fake, other);
    drop(inherited);
    assert_eq!(stands(&run(&fake, Goal::Bind, other)), (State::Busy, Reason::InUse));
    fake.count_more(0);
    assert_eq!(stands(&run(&fake, Goal::Bind, other)), (State::Bound, Reason::Verified));
}

#[test]
fn a_driver_that_does_not_count_its_users_keeps_its_device() {
    let (fake, address) = one();
    std::fs::remove_file(fake.sys().join("module/rebellions/refcnt")).expect("a file");
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Blocked, Reason::UseUnknown));
    assert!(finding.verdict.message.contains("keep rebellions from being loaded"), "{}", finding.verdict.message);
    expect_untouched(&fake, address);
}

/// Somebody else unbinds a native driver from a device in use: its lock is held until the user lets go.
#[test]
fn a_device_that_somebody_else_is_taking_from_its_native_driver_is_not_touched() {
    let (fake, address) = one();
    fake.hold(address);
    let other = {
        let (kernel, tree) = (fake.worker().kernel, fake.worker().tree);
        std::thread::spawn(move || kernel.write(&tree.driver_folder(NATIVE).join("unbind"), &address.to_string()))
    };
    while fake.driver(address).is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = fake.writes().len();
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Busy, Reason::InUse));
    assert!(finding.verdict.message.contains("/dev/rbln0"), "{}", finding.verdict.message);
    assert_eq!(fake.writes().len(), before);
    fake.release(address);
    other.join().expect("a thread").expect("it comes back");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn a_node_that_stands_for_several_devices_keeps_all_of_them() {
    let (fake, address) = one();
    std::fs::write(fake.dev().join("rsd0"), "").expect("a node");
    let group = std::fs::File::open(fake.dev().join("rsd0")).expect("a node");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Busy, Reason::InUse));
    drop(group);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn without_an_iommu_a_device_is_left_with_its_driver_and_the_reason_says_what_to_do() {
    let fake = Fake::new();
    let address = fake.plug("0000:03:00.0", Card { group: None, ..npu(0) });
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Blocked, Reason::NoIommu));
    assert!(finding.verdict.message.contains("intel_iommu=on"), "{}", finding.verdict.message);
    assert_eq!(fake.writes(), Vec::<String>::new());
    // An IOMMU that covers others is another matter.
    fake.plug("0000:04:00.0", npu(3));
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::NoIommuGroup));
    expect_untouched(&fake, address);
}

#[test]
fn the_kernels_unsafe_mode_does_not_count_as_an_iommu() {
    let (fake, address) = one();
    std::fs::write(fake.sys().join("kernel/iommu_groups/7/name"), "vfio-noiommu\n").expect("a file");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::NoIommu));
    expect_untouched(&fake, address);
}

#[test]
fn a_group_that_others_use_is_left_alone_and_they_are_named() {
    let (fake, address) = one();
    fake.load("e1000e");
    let nic = Card { vendor: 0x8086, device: 0x10d3, class: 0x02_0000, known_to: vec!["e1000e"], group: Some(7) };
    let other = fake.plug("0000:03:00.1", nic);
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Blocked, Reason::IommuGroupShared));
    assert!(finding.verdict.message.contains("0000:03:00.1 on e1000e"), "{}", finding.verdict.message);
    expect_untouched(&fake, address);
    // Free, or a stub's, or a bridge, it is no obstacle.
    fake.unload("e1000e");
    assert_eq!(fake.driver(other), None);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn npus_that_share_a_group_are_bound_together() {
    let fake = Fake::new();
    let both = [fake.plug("0000:03:00.0", npu(7)), fake.plug("0000:03:00.1", npu(7))];
    let finding = run(&fake, Goal::Bind, both[0]);
    assert_eq!(stands(&finding), (State::Blocked, Reason::IommuGroupShared), "not before the other is");
    assert_eq!(finding.npu.expect("a device").driver.as_deref(), Some(VFIO_PCI));
    for address in [both[1], both[0]] {
        assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    }
    // One that is excluded, and used by the host, is in the way of the other.
    for address in both {
        run(&fake, Goal::GiveBack, address);
    }
    let exclude = |worker: &mut Worker| {
        let exclude = vec!["0000:03:00.1".parse().expect("a selector")];
        worker.selection = Selection { exclude, ..Selection::default() };
    };
    let finding = with(&fake, Goal::Bind, both[0], exclude);
    assert_eq!(stands(&finding), (State::Blocked, Reason::IommuGroupShared));
}

/// Each looks whether the group is free by opening its device node, and must not take one of the others for a user.
#[test]
fn devices_of_a_group_are_given_back_side_by_side() {
    let fake = Fake::new();
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
fn without_vfio_pci_nothing_is_touched() {
    let (fake, address) = one();
    fake.unload(VFIO_PCI);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::VfioPciMissing));
    expect_untouched(&fake, address);
}

#[test]
fn a_tree_that_cannot_be_written_is_named_as_such() {
    let (fake, address) = one();
    fake.read_only();
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Failed, Reason::SysfsReadOnly));
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
}

#[test]
fn a_step_that_fails_is_undone() {
    for (file, errno) in [("unbind", Errno::IO), ("drivers_probe", Errno::IO)] {
        let (fake, address) = one();
        fake.fail(file, errno);
        let finding = run(&fake, Goal::Bind, address);
        assert_eq!(stands(&finding), (State::Failed, Reason::WriteFailed), "{file}");
        assert!(finding.verdict.message.contains(file), "{}", finding.verdict.message);
        expect_untouched(&fake, address);
    }
}

/// The kernel says yes to a probe that binds nothing. Asked by name it says why.
#[test]
fn a_probe_that_did_nothing_is_followed_by_a_question_and_then_undone() {
    let (fake, address) = one();
    let mut worker = fake.worker();
    // The driver goes at the last moment.
    fake.unload(VFIO_PCI);
    worker.host.vfio_pci = Ok(());
    let finding = worker.run(Goal::Bind, address, &mut |_| {});
    assert_eq!(stands(&finding), (State::Failed, Reason::NotTaken));
    assert!(finding.verdict.message.contains("No such file"), "{}", finding.verdict.message);
    expect_untouched(&fake, address);
}

#[test]
fn what_was_interrupted_is_continued_from_wherever_it_was() {
    for reserved in [false, true] {
        for unbound in [false, true] {
            let (fake, address) = one();
            let worker = fake.worker();
            if reserved {
                worker.records.set(address, NATIVE).expect("noted");
                fake.set(address, "driver_override", "vfio-pci\n");
            }
            if unbound {
                let _ = std::fs::remove_file(fake.sys().join("bus/pci/devices/0000:03:00.0/driver"));
            }
            assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
            run(&fake, Goal::GiveBack, address);
            expect_untouched(&fake, address);
        }
    }
}

#[test]
fn a_reservation_that_was_left_over_goes_when_the_device_is_given_back_or_left_alone() {
    for goal in [Goal::GiveBack, Goal::Bind] {
        let (fake, address) = one();
        fake.set(address, "driver_override", "vfio-pci\n");
        fake.hold(address);
        run(&fake, goal, address);
        expect_untouched(&fake, address);
    }
}

/// Bound by the host's own configuration, without a reservation: it is used, and it is not ours to give back.
#[test]
fn what_somebody_else_put_on_vfio_pci_is_not_given_back() {
    let fake = Fake::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Excluded, Reason::NotOurs));
    assert_eq!(fake.writes(), Vec::<String>::new());
}

#[test]
fn a_device_that_vfio_pci_takes_by_its_id_cannot_be_given_back_and_is_not_fought_for() {
    let fake = Fake::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    fake.set(address, "driver_override", "vfio-pci\n");
    assert_eq!(stands(&run(&fake, Goal::GiveBack, address)), (State::Failed, Reason::TakenByAnother));
    assert_eq!(fake.writes().len(), 3);
}

#[test]
fn a_card_whose_virtual_functions_are_handed_out_is_never_bound_and_they_are() {
    let (fake, card) = one();
    fake.enable_function(card, "0000:03:00.1");
    let part = fake.plug("0000:03:00.1", Card { device: 0x1251, ..npu(8) });
    let link = fake.sys().join("bus/pci/devices/0000:03:00.1/physfn");
    std::os::unix::fs::symlink(fake.sys().join("bus/pci/devices/0000:03:00.0"), link).expect("a link");
    assert_eq!(stands(&run(&fake, Goal::Bind, card)), (State::Excluded, Reason::ActiveVirtualFunctions));
    expect_untouched(&fake, card);
    assert_eq!(stands(&run(&fake, Goal::Bind, part)), (State::Bound, Reason::Verified));
}

/// Those who have its virtual functions would lose them with it.
#[test]
fn a_card_whose_virtual_functions_are_handed_out_is_not_given_back() {
    let (fake, card) = one();
    run(&fake, Goal::Bind, card);
    fake.enable_function(card, "0000:03:00.1");
    assert_eq!(stands(&run(&fake, Goal::GiveBack, card)), (State::Busy, Reason::ActiveVirtualFunctions));
    assert_eq!(fake.driver(card).as_deref(), Some(VFIO_PCI));
}

/// A card that stays with the host keeps the group of its functions from being handed over.
#[test]
fn a_function_is_not_verified_while_its_card_is_in_the_group() {
    let (fake, _) = one();
    let folder = fake.sys().join("bus/pci/devices");
    std::os::unix::fs::symlink(folder.join("0000:03:00.1"), folder.join("0000:03:00.0/virtfn0")).expect("a link");
    let part = fake.plug("0000:03:00.1", Card { device: 0x1251, ..npu(7) });
    assert_eq!(stands(&run(&fake, Goal::Bind, part)), (State::Blocked, Reason::IommuGroupShared));
    expect_untouched(&fake, part);
}

/// What is not seen cannot be held: nobody knows whether a virtual machine has the device.
#[test]
fn without_the_groups_device_node_nothing_is_taken_from_vfio_pci() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    std::fs::remove_file(fake.dev().join("vfio/7")).expect("a node");
    let finding = run(&fake, Goal::GiveBack, address);
    assert_eq!(stands(&finding), (State::Blocked, Reason::UseUnknown));
    assert!(finding.verdict.message.contains("VFIO_DEV"), "{}", finding.verdict.message);
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
}

/// Virtual machines need the group's device node, and only it tells whether one has the device.
#[test]
fn a_kernel_that_has_vfio_by_iommufd_only_is_told_as_that_and_nothing_is_touched() {
    let (fake, address) = one();
    std::fs::create_dir_all(fake.sys().join("class/vfio-dev/vfio0")).expect("a folder");
    let finding = run(&fake, Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Blocked, Reason::NoVfioGroups));
    assert!(finding.verdict.message.contains("CONFIG_VFIO_GROUP"), "{}", finding.verdict.message);
    expect_untouched(&fake, address);
    // Bound by somebody else, it is told the same, in either mode.
    let fake = Fake::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    std::fs::create_dir_all(fake.sys().join("class/vfio-dev/vfio0")).expect("a folder");
    std::fs::remove_file(fake.dev().join("vfio/7")).expect("a node");
    fake.set(address, "driver_override", "vfio-pci\n");
    for (goal, reason) in [(Goal::Bind, Reason::NoVfioGroups), (Goal::GiveBack, Reason::UseUnknown)] {
        let finding = run(&fake, goal, address);
        assert_eq!(stands(&finding), (State::Blocked, reason));
        assert!(finding.verdict.message.contains("CONFIG_VFIO_GROUP"), "{}", finding.verdict.message);
    }
    // A kernel that has both is like any other.
    std::fs::create_dir_all(fake.sys().join("class/vfio/7")).expect("a folder");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::VfioNodeMissing));
}

/// An agent was interrupted while it took the device, and its successor is told to leave it.
#[test]
fn what_is_excluded_half_way_goes_back_to_its_driver() {
    let (fake, address) = one();
    fake.worker().records.set(address, NATIVE).expect("noted");
    fake.set(address, "driver_override", "vfio-pci\n");
    let _ = std::fs::remove_file(fake.sys().join("bus/pci/devices/0000:03:00.0/driver"));
    let exclude = |worker: &mut Worker| {
        let exclude = vec!["0000:03:00.0".parse().expect("a selector")];
        worker.selection = Selection { exclude, ..Selection::default() };
    };
    let finding = with(&fake, Goal::Bind, address, exclude);
    assert_eq!(stands(&finding), (State::Excluded, Reason::NotSelected));
    expect_untouched(&fake, address);
    // What the host itself reserved stays reserved.
    fake.set(address, "driver_override", "vfio-pci\n");
    assert_eq!(stands(&with(&fake, Goal::Bind, address, exclude)), (State::Excluded, Reason::NotSelected));
    assert_eq!(fake.reservation(address), VFIO_PCI);
}

#[test]
fn only_what_is_selected_is_given_back() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    let include = |worker: &mut Worker| {
        let include = vec!["0000:09:00.0".parse().expect("a selector")];
        worker.selection = Selection { include, ..Selection::default() };
    };
    assert_eq!(stands(&with(&fake, Goal::GiveBack, address, include)), (State::Excluded, Reason::NotSelected));
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
}

#[test]
fn foreign_devices_do_not_exist_for_us_and_unknown_npus_do() {
    let fake = Fake::new();
    let of = |vendor, device, class| Card { vendor, device, class, ..npu(1) };
    fake.plug("0000:01:00.0", of(0x1af4, 0x1042, 0x12_0000));
    fake.plug("0000:02:00.0", of(0x1eff, 0x1250, 0x02_0000));
    let unknown = fake.plug("0000:03:00.0", Card { group: Some(3), ..of(0x1eff, 0x7770, 0x12_0100) });
    let odd = fake.plug("0000:04:00.0", Card { group: Some(2), ..of(0x1eff, 0x7772, 0x12_0001) });
    let found: Vec<_> = fake.worker().tree.npus().expect("a tree").into_iter().map(|npu| npu.address).collect();
    assert_eq!(found, [unknown, odd]);
    assert_eq!(stands(&run(&fake, Goal::Bind, odd)), (State::Excluded, Reason::UnknownClass));
    let finding = run(&fake, Goal::Bind, unknown);
    assert_eq!(stands(&finding), (State::Blocked, Reason::UnknownDeviceId));
    assert!(finding.verdict.message.contains("7770"), "{}", finding.verdict.message);
    expect_untouched(&fake, unknown);
    let bind_it = |worker: &mut Worker| worker.selection.when_unknown = WhenUnknown::Bind;
    assert_eq!(stands(&with(&fake, Goal::Bind, unknown, bind_it)), (State::Bound, Reason::Verified));
}

#[test]
fn a_device_that_goes_in_the_middle_is_no_error() {
    let (fake, address) = one();
    fake.pull(address);
    assert_eq!(stands(&run(&fake, Goal::Bind, address)).1, Reason::DeviceGone);
    for file in ["driver_override", "unbind", "drivers_probe"] {
        let (fake, address) = one();
        fake.vanish(file, address);
        assert_eq!(stands(&run(&fake, Goal::Bind, address)).1, Reason::DeviceGone, "{file}");
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_dry_run_tells_every_step_and_writes_nothing() {
    let (fake, address) = one();
    let finding = fake.worker().dry_run(Goal::Bind, address);
    assert_eq!(stands(&finding), (State::Unbound, Reason::NotBound));
    let steps: Vec<_> = finding.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        ["write vfio-pci to its driver_override", "unbind it from rebellions", "have the kernel find a driver for it"]
    );
    assert_eq!(fake.writes(), Vec::<String>::new());
    fake.hold(address);
    assert_eq!(stands(&fake.worker().dry_run(Goal::Bind, address)), (State::Busy, Reason::InUse));
}

/// While somebody unbinds a device from its native driver and that hangs, reading what takes the device's lock does not
/// return, and whoever reads it cannot be killed. A pipe that nobody writes to behaves like that.
#[test]
fn a_look_reads_nothing_that_a_hung_unbind_locks() {
    use rustix::fs::{CWD, FileType, Mode as Rights, mknodat};
    let (fake, bound) = one();
    let native = fake.plug("0000:04:00.0", npu(8));
    let hung = fake.plug("0000:05:00.0", npu(9));
    run(&fake, Goal::Bind, bound);
    let folder = fake.sys().join("bus/pci/devices");
    for address in [bound, native, hung] {
        let file = folder.join(format!("{address}/driver_override"));
        std::fs::remove_file(&file).expect("a file");
        mknodat(CWD, &file, FileType::Fifo, Rights::from_raw_mode(0o600), 0).expect("a pipe");
    }
    std::fs::remove_file(folder.join(format!("{hung}/driver"))).expect("a link");
    let timeout = Duration::from_secs(5);
    let worker = Arc::new(fake.worker());
    let (report, _) = run_all(&worker, Goal::Bind, Mode::Look, WhenNone::NotReady, timeout).expect("a tree");
    let states: Vec<_> = report.devices.iter().map(|device| device.state).collect();
    assert_eq!(states, [State::Bound, State::Unbound, State::Unbound], "{}", report.message);
}

/// A call that does not come back keeps nobody waiting but its own device.
#[test]
fn a_kernel_call_that_does_not_return_is_told_and_the_others_go_on() {
    let (fake, stuck) = one();
    let free = fake.plug("0000:04:00.0", npu(8));
    let mut worker = fake.worker();
    // Blind to processes, as in a container without the host's, and to what the driver counts.
    worker.processes.folder = fake.dev();
    fake.count_more(-1);
    fake.hold(stuck);
    let timeout = Duration::from_millis(300);
    let (report, _) = run_all(&Arc::new(worker), Goal::Bind, Mode::Act, WhenNone::NotReady, timeout).expect("a tree");
    let states: Vec<_> = report.devices.iter().map(|device| (device.address, device.state)).collect();
    assert_eq!(states, [(stuck, State::Stuck), (free, State::Bound)]);
    assert!(report.message.contains("unbind it from rebellions"), "{}", report.message);
    fake.release(stuck);
}

/// Somebody else takes a device from a virtual machine that has not let go: whatever is written to it does not return.
#[test]
fn a_device_that_is_being_taken_from_its_user_by_somebody_else_is_not_touched() {
    let (fake, address) = one();
    run(&fake, Goal::Bind, address);
    fake.hold(address);
    let other = {
        let (kernel, tree) = (fake.worker().kernel, fake.worker().tree);
        std::thread::spawn(move || kernel.write(&tree.driver_folder(VFIO_PCI).join("unbind"), &address.to_string()))
    };
    while fake.driver(address).is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = fake.writes().len();
    for goal in [Goal::Bind, Goal::GiveBack] {
        assert_eq!(stands(&run(&fake, goal, address)), (State::Busy, Reason::InUse));
    }
    assert_eq!(fake.writes().len(), before);
    fake.release(address);
    other.join().expect("a thread").expect("it comes back");
    assert_eq!(stands(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

/// What happens around us.
#[derive(Clone, Debug)]
enum Event {
    Pass(bool, usize),
    Hold(usize),
    Release(usize),
    Load(bool),
    Unload(bool),
    Reserve(usize, &'static str),
    Ambush(&'static str, usize),
    Fail(&'static str),
    Replug(usize),
}

const SLOTS: [(&str, u32); 3] = [("0000:03:00.0", 7), ("0000:03:00.1", 7), ("0000:04:00.0", 8)];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let slot = 0..SLOTS.len();
    let files = || prop::sample::select(vec!["driver_override", "unbind", "drivers_probe", "bind"]);
    let event = prop_oneof![
        6 => (any::<bool>(), slot.clone()).prop_map(|(bind, slot)| Event::Pass(bind, slot)),
        2 => slot.clone().prop_map(Event::Hold),
        2 => slot.clone().prop_map(Event::Release),
        1 => any::<bool>().prop_map(Event::Load),
        1 => any::<bool>().prop_map(Event::Unload),
        1 => (slot.clone(), prop::sample::select(vec!["\n", "vfio-pci\n", "pci-stub\n"])).prop_map(|(slot, text)| Event::Reserve(slot, text)),
        1 => (files(), slot.clone()).prop_map(|(file, slot)| Event::Ambush(file, slot)),
        1 => files().prop_map(Event::Fail),
        1 => slot.prop_map(Event::Replug),
    ];
    prop::collection::vec(event, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, nothing in use is taken, and what was left alone or given back keeps no reservation of ours.
    #[test]
    fn no_sequence_of_events_takes_a_device_in_use_or_leaves_a_reservation_behind(events in events()) {
        let fake = Fake::new();
        let at = |slot: usize| SLOTS[slot].0.parse::<Address>().expect("an address");
        for (address, group) in SLOTS {
            fake.plug(address, npu(group));
        }
        for event in events {
            match event {
                Event::Pass(bind, slot) => {
                    let goal = if bind { Goal::Bind } else { Goal::GiveBack };
                    // What the kernel does not let us take back stays; the next pass has another chance.
                    let may_fail = fake.is_to_fail("driver_override");
                    let finding = run(&fake, goal, at(slot));
                    prop_assert_eq!(fake.violations(), Vec::<String>::new());
                    let left_alone = matches!(finding.verdict.state, State::Busy | State::Blocked | State::Failed | State::Native);
                    let on_vfio = fake.driver(at(slot)).as_deref() == Some(VFIO_PCI);
                    // A virtual machine has its group, and it may be on its way out of it: the next pass has another chance.
                    let may_be_unbinding = finding.npu.as_ref().is_some_and(Npu::may_be_unbinding);
                    let is_to_wait = may_be_unbinding && finding.verdict.state == State::Busy;
                    if left_alone && !on_vfio && !may_fail && !is_to_wait && finding.npu.is_some() {
                        prop_assert_ne!(fake.reservation(at(slot)), VFIO_PCI, "{:?}", finding.verdict);
                    }
                    if finding.verdict.state == State::Bound {
                        prop_assert!(on_vfio);
                    }
                }
                Event::Hold(slot) => fake.hold(at(slot)),
                Event::Release(slot) => fake.release(at(slot)),
                Event::Load(native) => fake.load(if native { NATIVE } else { VFIO_PCI }),
                Event::Unload(native) => fake.unload(if native { NATIVE } else { VFIO_PCI }),
                Event::Reserve(slot, text) => fake.set(at(slot), "driver_override", if text == "\n" { "(null)\n" } else { text }),
                Event::Ambush(file, slot) => fake.ambush(file, at(slot)),
                Event::Fail(file) => fake.fail(file, Errno::IO),
                Event::Replug(slot) => {
                    fake.release(at(slot));
                    fake.pull(at(slot));
                    fake.plug(SLOTS[slot].0, npu(SLOTS[slot].1));
                }
            }
        }
    }
}
