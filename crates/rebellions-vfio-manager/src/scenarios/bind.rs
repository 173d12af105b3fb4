//! Binding a device, and what is left when a step of it fails.

use rustix::io::Errno;

use super::{expect_untouched, one_npu, outcome, run};
use crate::decide::Goal;
use crate::facts::VFIO_PCI;
use crate::fake::NATIVE;
use crate::verdict::{Reason, State};

#[test]
fn a_free_device_is_bound_in_the_safe_order_and_verified() {
    let (fake, address) = one_npu();
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    assert_eq!(fake.writes(), ["driver_override=vfio-pci", "unbind=0000:03:00.0", "drivers_probe=0000:03:00.0"]);
    assert_eq!(fake.driver(address).as_deref(), Some(VFIO_PCI));
    assert_eq!(fake.worker().records.previous_driver(address).as_deref(), Some(NATIVE));
}

#[test]
fn what_is_bound_is_adopted_without_a_write() {
    let (fake, address) = one_npu();
    run(&fake, Goal::Bind, address);
    let before = fake.writes().len();
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
    fake.hold(address);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified), "a virtual machine has it");
    assert_eq!(fake.writes().len(), before);
}

#[test]
fn without_vfio_pci_nothing_is_touched() {
    let (fake, address) = one_npu();
    fake.unload(VFIO_PCI);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Blocked, Reason::VfioPciMissing));
    expect_untouched(&fake, address);
}

#[test]
fn a_tree_that_cannot_be_written_is_named_as_such() {
    let (fake, address) = one_npu();
    fake.read_only();
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Failed, Reason::SysfsReadOnly));
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
}

#[test]
fn a_step_that_fails_is_undone() {
    for (file, errno) in [("unbind", Errno::IO), ("drivers_probe", Errno::IO)] {
        let (fake, address) = one_npu();
        fake.fail(file, errno);
        let result = run(&fake, Goal::Bind, address);
        assert_eq!(outcome(&result), (State::Failed, Reason::WriteFailed), "{file}");
        assert!(result.verdict.message.contains(file), "{}", result.verdict.message);
        expect_untouched(&fake, address);
    }
}

/// The kernel says yes to a probe that binds nothing. Asked by name it says why.
#[test]
fn a_probe_that_did_nothing_is_followed_by_a_question_and_then_undone() {
    let (fake, address) = one_npu();
    let mut worker = fake.worker();
    // The driver goes at the last moment.
    fake.unload(VFIO_PCI);
    worker.host.vfio_pci = Ok(());
    let result = worker.run(Goal::Bind, address, &mut |_| {});
    assert_eq!(outcome(&result), (State::Failed, Reason::NotTaken));
    assert!(result.verdict.message.contains("No such file"), "{}", result.verdict.message);
    expect_untouched(&fake, address);
}

#[test]
fn what_was_interrupted_is_continued_from_wherever_it_was() {
    for reserved in [false, true] {
        for unbound in [false, true] {
            let (fake, address) = one_npu();
            let worker = fake.worker();
            if reserved {
                worker.records.set(address, NATIVE).expect("noted");
                fake.set(address, "driver_override", "vfio-pci\n");
            }
            if unbound {
                let _ = std::fs::remove_file(fake.sys().join("bus/pci/devices/0000:03:00.0/driver"));
            }
            assert_eq!(outcome(&run(&fake, Goal::Bind, address)), (State::Bound, Reason::Verified));
            run(&fake, Goal::GiveBack, address);
            expect_untouched(&fake, address);
        }
    }
}

#[test]
fn a_device_that_goes_in_the_middle_is_no_error() {
    let (fake, address) = one_npu();
    fake.unplug(address);
    assert_eq!(outcome(&run(&fake, Goal::Bind, address)).1, Reason::DeviceGone);
    for file in ["driver_override", "unbind", "drivers_probe"] {
        let (fake, address) = one_npu();
        fake.unplug_before_write(file, address);
        assert_eq!(outcome(&run(&fake, Goal::Bind, address)).1, Reason::DeviceGone, "{file}");
        assert_eq!(fake.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_dry_run_tells_every_step_and_writes_nothing() {
    let (fake, address) = one_npu();
    let result = fake.worker().dry_run(Goal::Bind, address);
    assert_eq!(outcome(&result), (State::Unbound, Reason::NotBound));
    let steps: Vec<_> = result.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        ["write vfio-pci to its driver_override", "unbind it from rebellions", "have the kernel find a driver for it"]
    );
    assert_eq!(fake.writes(), Vec::<String>::new());
    fake.hold(address);
    assert_eq!(outcome(&fake.worker().dry_run(Goal::Bind, address)), (State::Busy, Reason::InUse));
}
