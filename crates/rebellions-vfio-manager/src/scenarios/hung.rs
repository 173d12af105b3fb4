//! Calls to the kernel that do not return.

use std::sync::Arc;
use std::time::Duration;

use super::{one_npu, run};
use crate::decide::Goal;
use crate::fake::npu;
use crate::parallel::{Mode, run_all};
use crate::report::WhenNone;
use crate::verdict::State;

/// While somebody unbinds a device from its native driver and that hangs, reading what takes the device's lock does not
/// return, and whoever reads it cannot be killed. A pipe that nobody writes to behaves like that.
#[test]
fn a_look_reads_nothing_that_a_hung_unbind_locks() {
    use rustix::fs::{CWD, FileType, Mode as Rights, mknodat};
    let (fake, bound) = one_npu();
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
    let (fake, stuck) = one_npu();
    let free = fake.plug("0000:04:00.0", npu(8));
    let mut worker = fake.worker();
    // Blind to processes, as in a container without the host's, and to what the driver counts.
    worker.processes.folder = fake.dev();
    fake.set_hidden_users(-1);
    fake.hold(stuck);
    let timeout = Duration::from_millis(300);
    let (report, _) = run_all(&Arc::new(worker), Goal::Bind, Mode::Act, WhenNone::NotReady, timeout).expect("a tree");
    let states: Vec<_> = report.devices.iter().map(|device| (device.address, device.state)).collect();
    assert_eq!(states, [(stuck, State::Stuck), (free, State::Bound)]);
    assert!(report.message.contains("unbind it from rebellions"), "{}", report.message);
    fake.release(stuck);
}
