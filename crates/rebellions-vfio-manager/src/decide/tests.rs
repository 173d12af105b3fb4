use proptest::prelude::*;

use super::*;
use crate::facts::{Group, Holder, Member};

const NATIVE: &str = "rebellions";

fn npu(driver: &str, reservation: &str) -> Npu {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Npu {
        address: "0000:03:00.0".parse().expect("an address"),
        device: 0x1250,
        is_plain_class: true,
        function: Function::Physical { active: 0 },
        has_leftover_nodes: false,
        driver: text(driver),
        driver_override: text(reservation),
        group: Some(Group { name: "7".into(), is_unsafe: false, has_node: true, others: vec![] }),
    }
}

fn host() -> Host {
    Host { has_iommu: true, has_vfio_groups: true, vfio_pci: Ok(()) }
}

fn held() -> Usage {
    Usage::Held(vec![Holder { pid: 7, command: "x".into(), pod: None, what: "/dev/rbln0".into() }])
}

/// A decision in a few words.
fn short(decision: Decision) -> String {
    match decision {
        Decision::Do(step) => format!("{step:?}"),
        Decision::Rest(verdict) => format!("{:?}/{:?}", verdict.state, verdict.reason),
    }
}

#[test]
fn from_driver_reservation_and_use_follows_the_next_step() {
    let probed = {
        let mut attempt = Attempt::default();
        attempt.note(&Step::Probe, Ok(()));
        attempt
    };
    let failed = {
        let mut attempt = Attempt::default();
        attempt.note(&Step::Unbind(NATIVE.into()), Err((Reason::WriteFailed, "no".into())));
        attempt
    };
    let fresh = Attempt::default();
    let taken = Attempt::after(Some(PreviousDriver { driver: NATIVE.into(), is_loaded: true }));
    let (unknown, free, held) = (Usage::NotChecked, Usage::Free, held());
    let blind = Usage::Undetermined("blind".into());
    let table = [
        // Goal, driver, reservation, use, attempt: what follows.
        (Goal::Bind, "", "", &unknown, &fresh, "CheckUsage"),
        (Goal::Bind, "", "", &free, &fresh, "Reserve"),
        (Goal::Bind, "", VFIO_PCI, &free, &fresh, "Probe"),
        (Goal::Bind, "", VFIO_PCI, &free, &probed, "Bind"),
        (Goal::Bind, "", VFIO_PCI, &held, &fresh, "Busy/InUse"),
        (Goal::Bind, NATIVE, "", &unknown, &fresh, "CheckUsage"),
        (Goal::Bind, NATIVE, "", &free, &fresh, "Reserve"),
        (Goal::Bind, NATIVE, VFIO_PCI, &unknown, &fresh, "CheckUsage"),
        (Goal::Bind, NATIVE, VFIO_PCI, &free, &fresh, "Unbind(\"rebellions\")"),
        (Goal::Bind, NATIVE, "pci-stub", &free, &fresh, "Reserve"),
        (Goal::Bind, NATIVE, "", &held, &fresh, "Busy/InUse"),
        (Goal::Bind, NATIVE, VFIO_PCI, &held, &fresh, "Unreserve"),
        (Goal::Bind, NATIVE, "", &blind, &fresh, "Blocked/UseUnknown"),
        (Goal::Bind, NATIVE, VFIO_PCI, &unknown, &failed, "Unreserve"),
        (Goal::Bind, "", "", &unknown, &failed, "Probe"),
        (Goal::Bind, NATIVE, "", &unknown, &failed, "Failed/WriteFailed"),
        (Goal::Bind, VFIO_PCI, VFIO_PCI, &held, &fresh, "Bound/Verified"),
        (Goal::Bind, VFIO_PCI, "", &unknown, &fresh, "Bound/Verified"),
        (Goal::GiveBack, NATIVE, "", &unknown, &fresh, "Native/OnNativeDriver"),
        (Goal::GiveBack, NATIVE, VFIO_PCI, &held, &fresh, "Unreserve"),
        (Goal::GiveBack, "", "", &unknown, &fresh, "Native/NoNativeDriver"),
        (Goal::GiveBack, "", "", &unknown, &taken, "Probe"),
        (Goal::GiveBack, "", VFIO_PCI, &unknown, &fresh, "Unreserve"),
        (Goal::GiveBack, VFIO_PCI, "", &unknown, &fresh, "Excluded/NotOurs"),
        (Goal::GiveBack, VFIO_PCI, "", &unknown, &taken, "CheckUsage"),
        (Goal::GiveBack, VFIO_PCI, VFIO_PCI, &unknown, &fresh, "CheckUsage"),
        (Goal::GiveBack, VFIO_PCI, VFIO_PCI, &held, &fresh, "Busy/InUse"),
        (Goal::GiveBack, VFIO_PCI, VFIO_PCI, &free, &fresh, "Unbind(\"vfio-pci\")"),
        (Goal::GiveBack, VFIO_PCI, "", &unknown, &probed, "Failed/TakenByAnother"),
    ];
    for (goal, driver, reservation, usage, attempt, expected) in table {
        let (npu, host) = (npu(driver, reservation), host());
        let facts = Facts { npu: &npu, choice: Choice::Selected, host: &host, usage };
        let seen = short(decide(goal, facts, attempt));
        assert_eq!(seen, expected, "{goal:?} {driver:?} {reservation:?} {usage:?} {attempt:?}");
    }
}

fn any_npu() -> impl Strategy<Value = Npu> {
    let drivers =
        || prop::option::of(prop::sample::select(vec![NATIVE, VFIO_PCI, "uio_pci_generic"]).prop_map(str::to_owned));
    let member = (drivers(), any::<bool>(), any::<bool>()).prop_map(|(driver, is_bridge, is_wanted)| Member {
        address: "0000:03:00.1".parse().expect("an address"),
        driver,
        is_bridge,
        is_wanted,
    });
    let group = (any::<bool>(), any::<bool>(), prop::collection::vec(member, 0..2))
        .prop_map(|(is_unsafe, has_node, others)| Group { name: "7".into(), is_unsafe, has_node, others });
    (drivers(), drivers(), prop::option::of(group), any::<bool>(), 0..2_u32).prop_map(
        |(driver, driver_override, group, is_plain_class, active)| Npu {
            driver,
            driver_override,
            group,
            is_plain_class,
            function: Function::Physical { active },
            ..npu("", "")
        },
    )
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let steps = prop::sample::select(vec![
        Step::Reserve,
        Step::Unreserve,
        Step::Unbind(NATIVE.into()),
        Step::Unbind(VFIO_PCI.into()),
        Step::Probe,
        Step::Bind,
    ]);
    let previous_driver = prop::option::of((prop::sample::select(vec!["", NATIVE]), any::<bool>()));
    (previous_driver, prop::collection::vec((steps, prop::bool::weighted(0.8)), 0..6)).prop_map(
        |(previous_driver, steps)| {
            let previous_driver =
                previous_driver.map(|(driver, is_loaded)| PreviousDriver { driver: driver.into(), is_loaded });
            let mut attempt = Attempt::after(previous_driver);
            for (step, succeeded) in steps {
                attempt.note(&step, succeeded.then_some(()).ok_or((Reason::WriteFailed, "no".into())));
            }
            attempt
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is seen, and whatever was tried before.
    #[test]
    fn each_step_is_safe_and_changes_something(
        bind in any::<bool>(),
        npu in any_npu(),
        choice in prop::sample::select(vec![Choice::Selected, Choice::Excluded, Choice::Unknown]),
        has_vfio in any::<bool>(),
        usage in 0..4_u8,
        attempt in any_attempt(),
    ) {
        let goal = if bind { Goal::Bind } else { Goal::GiveBack };
        let vfio_pci = if has_vfio { Ok(()) } else { Err("no".into()) };
        let host = Host { vfio_pci, ..host() };
        let usage = match usage {
            0 => Usage::NotChecked,
            1 => Usage::Free,
            2 => held(),
            _ => Usage::Undetermined("blind".into()),
        };
        match decide(goal, Facts { npu: &npu, choice, host: &host, usage: &usage }, &attempt) {
            Decision::Do(Step::Unbind(driver)) => {
                prop_assert_eq!(&usage, &Usage::Free, "a driver loses only what is free");
                prop_assert_eq!(npu.driver.as_ref(), Some(&driver));
                prop_assert!(bind != npu.is_on_vfio(), "what is bound stays, what is native stays");
                prop_assert!(!bind || npu.is_reserved(), "reserved first, so that nobody takes it in between");
            }
            Decision::Do(Step::CheckUsage) => prop_assert_eq!(&usage, &Usage::NotChecked),
            Decision::Do(Step::Reserve) => prop_assert!(bind && !npu.is_reserved() && npu.group.is_some()),
            Decision::Do(Step::Unreserve) => prop_assert!(npu.is_reserved() && !(bind && npu.is_on_vfio())),
            Decision::Do(Step::Probe) => prop_assert!(npu.driver.is_none()),
            Decision::Do(Step::Bind) => prop_assert!(bind && npu.driver.is_none() && npu.is_reserved()),
            Decision::Rest(verdict) => {
                let is_ours = attempt.previous_driver.is_some() && bind;
                let left = matches!(verdict.state, State::Busy | State::Blocked | State::Failed | State::Native)
                    || verdict.state == State::Excluded && is_ours;
                let is_in_limbo = npu.may_be_unbinding() && matches!(usage, Usage::Held(_));
                if left && !npu.is_on_vfio() && !is_in_limbo && attempt.failed().is_none() {
                    prop_assert!(!npu.is_reserved(), "{:?}", verdict);
                }
                if verdict.state == State::Bound {
                    prop_assert!(npu.is_on_vfio() && npu.group.is_some_and(|group| group.has_node));
                }
            }
        }
    }
}
