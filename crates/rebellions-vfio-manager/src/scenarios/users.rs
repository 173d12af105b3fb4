//! Devices in use, and devices about whose users there is doubt.

use std::time::Duration;

use super::{expect_untouched, one_npu, outcome, run};
use crate::decide::Goal;
use crate::facts::VFIO_PCI;
use crate::fake::{NATIVE, npu};
use crate::verdict::{Reason, State};

#[test]
fn a_device_in_use_is_left_alone_and_its_user_is_named() {
    let (fake, address) = one_npu();
    fake.hold(address);
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Busy, Reason::InUse));
    assert_eq!(result.verdict.holders[0].pid, std::process::id());
    assert!(result.verdict.message.contains("/dev/rbln0"), "{}", result.verdict.message);
    assert_eq!(fake.writes(), Vec::<String>::new());
    fake.release(address);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn a_device_that_is_opened_at_the_last_moment_is_left_alone() {
    let (fake, address) = one_npu();
    fake.open_before_write("driver_override", address);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Busy, Reason::InUse));
    expect_untouched(&fake, address);
}

#[test]
fn a_driver_that_counts_a_user_whom_nobody_sees_keeps_its_device() {
    let (fake, address) = one_npu();
    fake.set_hidden_users(1);
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Busy, Reason::InUse));
    assert!(result.verdict.message.contains("counts 1 users of which 0 are known"), "{}", result.verdict.message);
    assert!(result.verdict.message.contains("/proc/*/maps"), "{}", result.verdict.message);
    // Another module that builds on it is no user.
    std::fs::create_dir_all(fake.sys().join("module/rebellions/holders/rebellions_fs")).expect("a folder");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

#[test]
fn the_user_of_one_device_does_not_keep_another_from_being_bound() {
    let (fake, held) = one_npu();
    let free = fake.plug("0000:04:00.0", npu(8));
    fake.hold(held);
    assert_eq!(outcome(&run(&fake, Goal::Bind, held)), (State::Busy, Reason::InUse));
    assert_eq!(outcome(&run(&fake, Goal::Bind, free)), (State::Bound, Reason::Verified));
}

/// A process that was forked has a second descriptor of one device: it must not stand for the user of another who has none.
#[test]
fn an_inherited_descriptor_of_one_device_hides_no_user_of_another() {
    let (fake, held) = one_npu();
    let other = fake.plug("0000:04:00.0", npu(8));
    fake.hold(held);
    let inherited = fake.duplicate(held);
    fake.set_hidden_users(1);
    let result = run(&fake, Goal::Bind, other);
    assert_eq!(outcome(&result), (State::Blocked, Reason::UseUnknown));
    let message = result.verdict.message;
    assert!(message.contains("counts 2 users") && message.contains(&std::process::id().to_string()), "{message}");
    expect_untouched(&fake, other);
    drop(inherited);
    assert_eq!(outcome(&run(&fake, Goal::Bind, other)), (State::Busy, Reason::InUse));
    fake.set_hidden_users(0);
    assert_eq!(outcome(&run(&fake, Goal::Bind, other)), (State::Bound, Reason::Verified));
}

#[test]
fn a_driver_that_does_not_count_its_users_keeps_its_device() {
    let (fake, address) = one_npu();
    std::fs::remove_file(fake.sys().join("module/rebellions/refcnt")).expect("a file");
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Blocked, Reason::UseUnknown));
    assert!(result.verdict.message.contains("keep rebellions from being loaded"), "{}", result.verdict.message);
    expect_untouched(&fake, address);
}

#[test]
fn a_node_that_stands_for_several_devices_keeps_all_of_them() {
    let (fake, address) = one_npu();
    std::fs::write(fake.dev().join("rsd0"), "").expect("a node");
    let group = std::fs::File::open(fake.dev().join("rsd0")).expect("a node");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Busy, Reason::InUse));
    drop(group);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

/// Somebody else unbinds a native driver from a device in use: its lock is held until the user lets go.
#[test]
fn a_device_that_somebody_else_is_taking_from_its_native_driver_is_not_touched() {
    let (fake, address) = one_npu();
    fake.hold(address);
    let other = {
        let (kernel, tree) = (fake.worker().kernel, fake.worker().tree);
        std::thread::spawn(move || kernel.write(&tree.driver_folder(NATIVE).join("unbind"), &address.to_string()))
    };
    while fake.driver(address).is_some() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = fake.writes().len();
    let result = run(&fake, Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Busy, Reason::InUse));
    assert!(result.verdict.message.contains("/dev/rbln0"), "{}", result.verdict.message);
    assert_eq!(fake.writes().len(), before);
    fake.release(address);
    other.join().expect("a thread").expect("it comes back");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}

/// Somebody else takes a device from a virtual machine that has not let go: whatever is written to it does not return.
#[test]
fn a_device_that_is_being_taken_from_its_user_by_somebody_else_is_not_touched() {
    let (fake, address) = one_npu();
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
        assert_eq!(outcome(&run(&fake, goal, address)), (State::Busy, Reason::InUse));
    }
    assert_eq!(fake.writes().len(), before);
    fake.release(address);
    other.join().expect("a thread").expect("it comes back");
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
}
