//! IOMMU groups and the device nodes that VFIO makes for them.

use super::{expect_untouched, one_npu, outcome, run, run_with};
use crate::decide::Goal;
use crate::facts::VFIO_PCI;
use crate::fake::{Card, FakeKernel, npu};
use crate::pass::Worker;
use crate::selection::Selection;
use crate::verdict::{Reason, State};

#[test]
fn without_an_iommu_a_device_is_left_with_its_driver_and_the_reason_says_what_to_do() {
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", Card { group: None, ..npu(0) });
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Blocked, Reason::NoIommu));
    assert!(result.verdict.message.contains("intel_iommu=on"), "{}", result.verdict.message);
    assert_eq!(fake.writes(), Vec::<String>::new());
    // An IOMMU that covers others is another matter.
    fake.plug("0000:04:00.0", npu(3));
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::NoIommuGroup));
    expect_untouched(&fake, address);
}

#[test]
fn the_kernels_unsafe_mode_does_not_count_as_an_iommu() {
    let (fake, address) = one_npu();
    std::fs::write(fake.sys().join("kernel/iommu_groups/7/name"), "vfio-noiommu\n").expect("a file");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::NoIommu));
    expect_untouched(&fake, address);
}

#[test]
fn a_group_that_others_use_is_left_alone_and_they_are_named() {
    let (fake, address) = one_npu();
    fake.load("e1000e");
    let nic = Card { vendor: 0x8086, device: 0x10d3, class: 0x02_0000, known_to: vec!["e1000e"], group: Some(7) };
    let other = fake.plug("0000:03:00.1", nic);
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Blocked, Reason::IommuGroupShared));
    assert!(result.verdict.message.contains("0000:03:00.1 on e1000e"), "{}", result.verdict.message);
    expect_untouched(&fake, address);
    // A neighbour is no obstacle when it has no driver, when its driver is pci-stub, or when it is a bridge.
    fake.unload("e1000e");
    assert_eq!(fake.driver(other), None);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn npus_that_share_a_group_are_bound_together() {
    let fake = FakeKernel::new();
    let both = [fake.plug("0000:03:00.0", npu(7)), fake.plug("0000:03:00.1", npu(7))];
    let result = run(&fake, Goal::Bind, both[0]);
    assert_eq!(outcome(&result), (State::Blocked, Reason::IommuGroupShared), "not before the other is");
    assert_eq!(result.npu.expect("a device").driver.as_deref(), Some(VFIO_PCI));
    for address in [both[1], both[0]] {
        assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    }
    // One that is excluded, and used by the host, is in the way of the other.
    for address in both {
        run(&fake, Goal::GiveBack, address);
    }
    let exclude = |worker: &mut Worker| {
        let exclude = vec!["0000:03:00.1".parse().expect("a selector")];
        worker.selection = Selection { exclude, ..Selection::default() };
    };
    let result = run_with(&fake, Goal::Bind, both[0], exclude);
    assert_eq!(outcome(&result), (State::Blocked, Reason::IommuGroupShared));
}

/// Virtual machines need the group's device node, and only it tells whether one has the device.
#[test]
fn a_kernel_that_has_vfio_by_iommufd_only_is_told_as_that_and_nothing_is_touched() {
    let (fake, address) = one_npu();
    std::fs::create_dir_all(fake.sys().join("class/vfio-dev/vfio0")).expect("a folder");
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Blocked, Reason::NoVfioGroups));
    assert!(result.verdict.message.contains("CONFIG_VFIO_GROUP"), "{}", result.verdict.message);
    expect_untouched(&fake, address);
    // Bound by somebody else, it is told the same, in either mode.
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", Card { known_to: vec![VFIO_PCI], ..npu(7) });
    std::fs::create_dir_all(fake.sys().join("class/vfio-dev/vfio0")).expect("a folder");
    std::fs::remove_file(fake.dev().join("vfio/7")).expect("a node");
    fake.set(address, "driver_override", "vfio-pci\n");
    for (goal, reason) in [(Goal::Bind, Reason::NoVfioGroups), (Goal::GiveBack, Reason::UseUnknown)] {
        let result = run(&fake, goal, address);
        assert_eq!(outcome(&result), (State::Blocked, reason));
        assert!(result.verdict.message.contains("CONFIG_VFIO_GROUP"), "{}", result.verdict.message);
    }
    // A kernel that has both is like any other.
    std::fs::create_dir_all(fake.sys().join("class/vfio/7")).expect("a folder");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::VfioNodeMissing));
}

/// A card that stays with the host keeps the group of its functions from being handed over.
#[test]
fn a_function_is_not_verified_while_its_card_is_in_the_group() {
    let (fake, _) = one_npu();
    let folder = fake.sys().join("bus/pci/devices");
    std::os::unix::fs::symlink(folder.join("0000:03:00.1"), folder.join("0000:03:00.0/virtfn0")).expect("a link");
    let part = fake.plug("0000:03:00.1", Card { device: 0x1251, ..npu(7) });
    assert_eq!(outcome(&run(&fake, Goal::Bind, part)), (State::Blocked, Reason::IommuGroupShared));
    expect_untouched(&fake, part);
}
