//! Random sequences of events.

use proptest::prelude::*;
use rustix::io::Errno;

use super::run;
use crate::decide::Goal;
use crate::facts::{Npu, VFIO_PCI};
use crate::fake::{FakeKernel, NATIVE, npu};
use crate::pci::Address;
use crate::verdict::State;

/// What happens on a node.
#[derive(Clone, Debug)]
enum Event {
    Pass(bool, usize),
    Hold(usize),
    Release(usize),
    Load(bool),
    Unload(bool),
    Reserve(usize, &'static str),
    OpenBeforeWrite(&'static str, usize),
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
        1 => (files(), slot.clone()).prop_map(|(file, slot)| Event::OpenBeforeWrite(file, slot)),
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
        let fake = FakeKernel::new();
        let at = |slot: usize| SLOTS[slot].0.parse::<Address>().expect("an address");
        for (address, group) in SLOTS {
            fake.plug(address, npu(group));
        }
        for event in events {
            match event {
                Event::Pass(bind, slot) => {
                    let goal = if bind { Goal::Bind } else { Goal::GiveBack };
                    // What the kernel does not let us take back stays; the next pass has another chance.
                    let may_fail = fake.will_fail("driver_override");
                    let result = run(&fake, goal, at(slot));
                    prop_assert_eq!(fake.violations(), Vec::<String>::new());
                    let left_alone = matches!(result.verdict.state, State::Busy | State::Blocked | State::Failed | State::Native);
                    let on_vfio = fake.driver(at(slot)).as_deref() == Some(VFIO_PCI);
                    // A virtual machine has its group, and it may be on its way out of it: the next pass has another chance.
                    let may_be_unbinding = result.npu.as_ref().is_some_and(Npu::may_be_unbinding);
                    let is_to_wait = may_be_unbinding && result.verdict.state == State::Busy;
                    if left_alone && !on_vfio && !may_fail && !is_to_wait && result.npu.is_some() {
                        prop_assert_ne!(fake.reservation(at(slot)), VFIO_PCI, "{:?}", result.verdict);
                    }
                    if result.verdict.state == State::Bound {
                        prop_assert!(on_vfio);
                    }
                }
                Event::Hold(slot) => fake.hold(at(slot)),
                Event::Release(slot) => fake.release(at(slot)),
                Event::Load(native) => fake.load(if native { NATIVE } else { VFIO_PCI }),
                Event::Unload(native) => fake.unload(if native { NATIVE } else { VFIO_PCI }),
                Event::Reserve(slot, text) => fake.set(at(slot), "driver_override", if text == "\n" { "(null)\n" } else { text }),
                Event::OpenBeforeWrite(file, slot) => fake.open_before_write(file, at(slot)),
                Event::Fail(file) => fake.fail(file, Errno::IO),
                Event::Replug(slot) => {
                    fake.release(at(slot));
                    fake.unplug(at(slot));
                    fake.plug(SLOTS[slot].0, npu(SLOTS[slot].1));
                }
            }
        }
    }
}
