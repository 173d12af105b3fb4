//! Whole passes on a tree that behaves like the kernel.

mod bind;
mod give_back;
mod hung;
mod iommu;
mod random;
mod selected;
mod users;

use std::sync::Arc;

use crate::decide::Goal;
use crate::fake::{FakeKernel, NATIVE, npu};
use crate::pass::{PassResult, Worker};
use crate::pci::Address;
use crate::verdict::{Reason, State};

fn run(fake: &Arc<FakeKernel>, goal: Goal, address: Address) -> PassResult {
    run_with(fake, goal, address, |_| {})
}

fn run_with(fake: &Arc<FakeKernel>, goal: Goal, address: Address, change: impl FnOnce(&mut Worker)) -> PassResult {
    let mut worker = fake.worker();
    change(&mut worker);
    worker.run(goal, address, &mut |_| {})
}

fn outcome(result: &PassResult) -> (State, Reason) {
    (result.verdict.state, result.verdict.reason)
}

/// One NPU on its native driver.
fn one_npu() -> (Arc<FakeKernel>, Address) {
    let fake = FakeKernel::new();
    let address = fake.plug("0000:03:00.0", npu(7));
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
    (fake, address)
}

/// The device is on its native driver and nothing is written into its `driver_override`.
fn expect_untouched(fake: &FakeKernel, address: Address) {
    assert_eq!(fake.driver(address).as_deref(), Some(NATIVE));
    assert_eq!(fake.reservation(address), "(null)");
    assert_eq!(fake.violations(), Vec::<String>::new());
}
