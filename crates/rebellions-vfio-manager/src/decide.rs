//! The state machine: facts in, next step out. Pure.
//!
//! It decides about one device from facts that were read after the last step. Other writers, interruptions and earlier
//! processes are therefore no special cases.

use crate::attempt::{Attempt, PreviousDriver};
use crate::facts::{Facts, Function, Host, Member, Npu, Usage, VFIO_PCI};
use crate::selection::Choice;
use crate::step::Step;
use crate::verdict::{Reason, State, Verdict};

/// Said of a kernel that has VFIO by iommufd alone.
pub(crate) const NO_VFIO_GROUPS: &str = "this kernel has VFIO by iommufd only, without the device node /dev/vfio/N of an \
                                         IOMMU group; use a kernel that is built with CONFIG_VFIO_GROUP";

/// What a device is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Bound to vfio-pci, for virtual machines.
    Bind,
    /// On its native driver, if we took it from there.
    GiveBack,
}

/// What to do now, or where the device stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Do this and look again.
    Do(Step),
    /// Nothing more to do.
    Rest(Verdict),
}

/// Decides about one device.
///
/// Three invariants hold for all facts and are tested with random ones: a device is unbound only right after a check found
/// it free; a device that is left to the host keeps no `driver_override` of ours, unless the kernel refuses to clear it or the
/// device is being unbound by another process; a step is never requested that would change nothing.
#[must_use]
pub fn decide(goal: Goal, facts: Facts<'_>, attempt: &Attempt) -> Decision {
    match goal {
        Goal::Bind => bind(facts, attempt),
        Goal::GiveBack => give_back(facts, attempt),
    }
}

fn rest(state: State, reason: Reason, message: impl Into<String>) -> Decision {
    Decision::Rest(Verdict::new(state, reason, message))
}

fn bind(Facts { npu, choice, host, usage }: Facts<'_>, attempt: &Attempt) -> Decision {
    if let Some(verdict) = exclusion(npu, choice) {
        // An attempt that began before the device was excluded is undone. A driver_override by others stays.
        let is_half_done = attempt.previous_driver.is_some() && !npu.is_on_vfio();
        return if is_half_done { undo(npu, verdict, attempt) } else { Decision::Rest(verdict) };
    }
    if npu.is_on_vfio() {
        return Decision::Rest(on_vfio(npu, host));
    }
    if let Some(verdict) = attempt.failed() {
        return undo(npu, verdict, attempt);
    }
    if let Some((reason, why)) = obstacle(npu, choice, host) {
        return undo(npu, Verdict::new(State::Blocked, reason, why), attempt);
    }
    match (&npu.driver, usage) {
        (Some(_), Usage::NotChecked) => Decision::Do(Step::CheckUsage),
        // After an unbind of our own the device is not being unbound by another process: the call has returned.
        (None, Usage::NotChecked) if npu.may_be_unbinding() && !attempt.touched => Decision::Do(Step::CheckUsage),
        // Nothing is undone, because no write would return.
        (None, Usage::Held(holders)) if npu.may_be_unbinding() && !attempt.touched => {
            Decision::Rest(Verdict::busy(holders))
        }
        (Some(_), Usage::Held(holders)) => undo(npu, Verdict::busy(holders), attempt),
        (Some(_), Usage::Undetermined(why)) => {
            undo(npu, Verdict::new(State::Blocked, Reason::UseUnknown, why.clone()), attempt)
        }
        // The override comes before the unbind, so that no other driver takes the device in between.
        (_, _) if !npu.is_reserved() => Decision::Do(Step::Reserve),
        (Some(driver), Usage::Free) => Decision::Do(Step::Unbind(driver.clone())),
        (None, _) if !attempt.probed => Decision::Do(Step::Probe),
        // A probe that finds no driver gives no reason.
        (None, _) => Decision::Do(Step::Bind),
    }
}

/// Why a device is not for virtual machines, if it is not.
fn exclusion(npu: &Npu, choice: Choice) -> Option<Verdict> {
    let excluded = |reason, message: String| Some(Verdict::new(State::Excluded, reason, message));
    match npu.function {
        _ if choice == Choice::Excluded => Some(not_selected()),
        _ if !npu.is_plain_class => {
            excluded(Reason::UnknownClass, "its PCI class is not 12xx00, so it is not known what it is".into())
        }
        Function::Physical { active } if active > 0 => excluded(
            Reason::ActiveVirtualFunctions,
            format!("{active} of its virtual functions are on; those are passed on in its place"),
        ),
        Function::Physical { .. } | Function::Virtual { .. } => None,
    }
}

fn not_selected() -> Verdict {
    Verdict::new(State::Excluded, Reason::NotSelected, "excluded by VFIO_INCLUDE or VFIO_EXCLUDE")
}

/// Where a device on vfio-pci stands. It may be in a virtual machine: nothing is done to it.
fn on_vfio(npu: &Npu, host: &Host) -> Verdict {
    let Some(group) = &npu.group else {
        let why = "vfio-pci has it without an IOMMU group; a virtual machine cannot have it safely";
        return Verdict::new(State::Blocked, Reason::NoIommuGroup, why);
    };
    if !group.has_node && !host.has_vfio_groups {
        return Verdict::new(State::Blocked, Reason::NoVfioGroups, NO_VFIO_GROUPS);
    }
    if !group.has_node {
        let why = format!("on vfio-pci, but there is no device node vfio/{}", group.name);
        return Verdict::new(State::Blocked, Reason::VfioNodeMissing, why);
    }
    match shared(npu, Member::is_in_use) {
        Some(why) => Verdict::new(State::Blocked, Reason::IommuGroupShared, why),
        None => Verdict::new(State::Bound, Reason::Verified, ""),
    }
}

/// What on this host keeps a device from being bound, if anything does. Such a device is left as it is.
fn obstacle(npu: &Npu, choice: Choice, host: &Host) -> Option<(Reason, String)> {
    if choice == Choice::Unknown {
        let id = npu.device;
        let why = format!("this version does not know device id {id:04x}; set VFIO_WHEN_UNKNOWN=bind if it is an NPU");
        return Some((Reason::UnknownDeviceId, why));
    }
    let Some(group) = &npu.group else {
        let message = if host.has_iommu {
            (
                Reason::NoIommuGroup,
                "no IOMMU covers this device; look at the firmware's settings for its slot".to_owned(),
            )
        } else {
            let what = "no IOMMU is on; enable VT-d or AMD-Vi in the firmware, and intel_iommu=on on Intel's kernels";
            (Reason::NoIommu, what.to_owned())
        };
        return Some(message);
    };
    if group.is_unsafe {
        return Some((Reason::NoIommu, "the kernel's no-IOMMU mode protects nobody; enable the IOMMU".into()));
    }
    if !host.has_vfio_groups {
        return Some((Reason::NoVfioGroups, NO_VFIO_GROUPS.into()));
    }
    if let Some(why) = shared(npu, Member::is_in_the_way) {
        return Some((Reason::IommuGroupShared, why));
    }
    host.vfio_pci.as_ref().err().map(|why| (Reason::VfioPciMissing, why.clone()))
}

/// Why the group cannot be handed over, if other members of it meet the condition.
fn shared(npu: &Npu, is_obstacle: impl Fn(&Member) -> bool) -> Option<String> {
    let group = npu.group.as_ref()?;
    let others: Vec<_> = group
        .others
        .iter()
        .filter(|other| is_obstacle(other))
        .map(|other| format!("{} on {}", other.address, other.driver.as_deref().unwrap_or_default()))
        .collect();
    (!others.is_empty()).then(|| {
        let list = others.join(", ");
        format!("its IOMMU group {} cannot be handed over while it also has {list}", group.name)
    })
}

/// Returns a device to its state before the attempt, then rests.
fn undo(npu: &Npu, verdict: Verdict, attempt: &Attempt) -> Decision {
    if attempt.is_unrecoverable() {
        return Decision::Rest(verdict);
    }
    if npu.is_reserved() {
        return Decision::Do(Step::Unreserve);
    }
    // The probe gives it back to its previous driver.
    if npu.driver.is_none() && attempt.touched && !attempt.probed {
        return Decision::Do(Step::Probe);
    }
    Decision::Rest(verdict)
}

fn give_back(Facts { npu, choice, usage, .. }: Facts<'_>, attempt: &Attempt) -> Decision {
    if choice == Choice::Excluded {
        return Decision::Rest(not_selected());
    }
    let is_ours = npu.is_reserved() || attempt.touched || attempt.previous_driver.is_some();
    if let Some(verdict) = attempt.failed() {
        return Decision::Rest(verdict);
    }
    if npu.is_on_vfio() {
        return match usage {
            _ if !is_ours => rest(
                State::Excluded,
                Reason::NotOurs,
                "on vfio-pci without a reservation of ours: whoever put it there has to take it away",
            ),
            _ if attempt.probed && !npu.is_reserved() => rest(
                State::Failed,
                Reason::TakenByAnother,
                "vfio-pci takes it by its id; remove the id from its options",
            ),
            // Unbinding the card would take its functions from their users.
            _ if let Function::Physical { active: active @ 1.. } = npu.function => rest(
                State::Busy,
                Reason::ActiveVirtualFunctions,
                format!("{active} of its virtual functions are on; write 0 to its sriov_numvfs first"),
            ),
            Usage::NotChecked => Decision::Do(Step::CheckUsage),
            Usage::Held(holders) => Decision::Rest(Verdict::busy(holders)),
            Usage::Undetermined(why) => rest(State::Blocked, Reason::UseUnknown, why.clone()),
            Usage::Free => Decision::Do(Step::Unbind(VFIO_PCI.into())),
        };
    }
    if npu.is_reserved() {
        return Decision::Do(Step::Unreserve);
    }
    match (&npu.driver, &attempt.previous_driver) {
        (Some(driver), _) => rest(State::Native, Reason::OnNativeDriver, format!("on {driver}")),
        (None, _) if is_ours && !attempt.probed => Decision::Do(Step::Probe),
        (None, Some(PreviousDriver { driver, is_loaded: true })) => rest(
            State::Failed,
            Reason::NotTaken,
            format!("{driver}, which had it before, is loaded and did not take it"),
        ),
        (None, _) => rest(State::Native, Reason::NoNativeDriver, "no driver has it; one takes it when it is loaded"),
    }
}

#[cfg(test)]
mod tests;
