//! One pass over one device: read, decide, act, and read again, until there is nothing more to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::attempt::{Attempt, PreviousDriver};
use crate::decide::{Decision, Goal, decide};
use crate::facts::{Facts, Host, Npu, Usage};
use crate::holders::Processes;
use crate::kernel::{Failure, GroupLocks, Kernel, apply};
use crate::pci::Address;
use crate::records::Records;
use crate::selection::{Choice, Selection};
use crate::step::Step;
use crate::sysfs::Tree;
use crate::verdict::{Reason, State, Verdict};

/// The limit of steps in one pass; no device needs as many.
const STEPS: u32 = 24;

/// How long the effect of a write may take to show. The kernel has done it when the write returns; what creates device
/// nodes may take a moment.
const SETTLE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The context of a pass.
#[derive(Clone)]
pub struct Worker {
    /// Where devices are.
    pub tree: Tree,
    /// Where processes are.
    pub processes: Processes,
    /// Carries out writes.
    pub kernel: Arc<dyn Kernel>,
    /// The locks of the groups' device nodes.
    pub group_locks: GroupLocks,
    /// Which devices are for virtual machines.
    pub selection: Selection,
    /// The previous drivers, the lock and the report.
    pub records: Records,
    /// Whether vfio-pci is there, or why it is not.
    pub host: Host,
}

/// The result of a pass.
#[derive(Clone, Debug)]
pub struct PassResult {
    /// The device as it is now; `None` when it is gone.
    pub npu: Option<Npu>,
    /// Where it stands.
    pub verdict: Verdict,
    /// Steps that were taken, or would be.
    pub steps: Vec<Step>,
}

impl Worker {
    /// Brings a device to its goal, as far as the host allows. Calls `tell` before each step.
    pub fn run(&self, goal: Goal, address: Address, tell: &mut dyn FnMut(&Step)) -> PassResult {
        let mut attempt = self.attempt(address);
        let mut usage = Usage::NotChecked;
        let mut steps = vec![];
        if let Some(finding) = self.being_unbound(address) {
            return finding;
        }
        for _ in 0..STEPS {
            let Some(npu) = self.see(address) else { return gone(steps) };
            match decide(goal, self.facts(&npu, &usage), &attempt) {
                Decision::Rest(verdict) => {
                    self.remember(goal, &npu, &verdict);
                    return PassResult { npu: Some(npu), verdict, steps };
                }
                Decision::Do(Step::CheckUsage) => usage = self.processes.usage(&self.tree, &npu),
                Decision::Do(step) => {
                    tell(&step);
                    usage = Usage::NotChecked;
                    match self.act(goal, &npu, &step) {
                        Err(Failure::Held(holder)) => usage = Usage::Held(vec![holder]),
                        Err(Failure::Refused(Reason::UseUnknown, why)) => usage = Usage::Undetermined(why),
                        Err(Failure::Refused(reason, why)) => attempt.note(&step, Err((reason, why))),
                        Ok(()) => attempt.note(&step, Ok(())),
                    }
                    steps.push(step);
                }
            }
        }
        let verdict = Verdict::new(State::Failed, Reason::TakenByAnother, "somebody else keeps changing it");
        PassResult { npu: self.see(address), verdict, steps }
    }

    /// Where a device stands. Nothing is written, and nothing is read that takes the device's lock, which an unbind that
    /// hangs holds.
    #[must_use]
    pub fn look(&self, goal: Goal, address: Address) -> PassResult {
        self.predict(goal, self.read_without_lock(address))
    }

    /// Where a device stands, and what would be done, were every write to succeed. Nothing is written.
    #[must_use]
    pub fn dry_run(&self, goal: Goal, address: Address) -> PassResult {
        self.being_unbound(address).unwrap_or_else(|| self.predict(goal, self.see(address)))
    }

    fn predict(&self, goal: Goal, now: Option<Npu>) -> PassResult {
        let Some(now) = now else { return gone(vec![]) };
        let address = now.address;
        let (mut npu, mut attempt, mut usage) = (now.clone(), self.attempt(address), Usage::NotChecked);
        let mut steps = vec![];
        let mut verdict = to_do(goal, &now);
        for _ in 0..STEPS {
            match decide(goal, self.facts(&npu, &usage), &attempt) {
                Decision::Rest(end) => {
                    // The verdict of the end counts where the steps would not change what the device is bound to.
                    let stays = match goal {
                        Goal::Bind => now.is_on_vfio() || !npu.is_on_vfio(),
                        Goal::GiveBack => steps.is_empty(),
                    };
                    if stays {
                        verdict = end;
                    }
                    break;
                }
                Decision::Do(Step::CheckUsage) => usage = self.processes.usage(&self.tree, &npu),
                Decision::Do(step) => {
                    step.simulate(&mut npu);
                    attempt.note(&step, Ok(()));
                    steps.push(step);
                }
            }
        }
        PassResult { npu: Some(now), verdict, steps }
    }

    /// The device as it is now.
    #[must_use]
    pub fn see(&self, address: Address) -> Option<Npu> {
        self.tree.npu(address, &|address, device| self.is_wanted(address, device))
    }

    /// The verdict on a device that another process is unbinding while a user keeps it open. Reading its `driver_override`
    /// would not return.
    fn being_unbound(&self, address: Address) -> Option<PassResult> {
        let npu = self.read_without_lock(address).filter(Npu::may_be_unbinding)?;
        let Usage::Held(holders) = self.processes.usage(&self.tree, &npu) else { return None };
        Some(PassResult { npu: Some(npu), verdict: Verdict::busy(&holders), steps: vec![] })
    }

    fn read_without_lock(&self, address: Address) -> Option<Npu> {
        self.tree.read_without_lock(address, &|address, device| self.is_wanted(address, device))
    }

    fn facts<'a>(&'a self, npu: &'a Npu, usage: &'a Usage) -> Facts<'a> {
        Facts { npu, choice: self.selection.choose(npu.address, npu.device), host: &self.host, usage }
    }

    fn is_wanted(&self, address: Address, device: u16) -> bool {
        self.selection.choose(address, device) == Choice::Selected
    }

    fn attempt(&self, address: Address) -> Attempt {
        Attempt::after(self.records.previous_driver(address).map(|driver| {
            let is_loaded = !driver.is_empty() && self.tree.has_driver(&driver);
            PreviousDriver { driver, is_loaded }
        }))
    }

    /// Carries out a step and checks that it had its effect.
    fn act(&self, goal: Goal, npu: &Npu, step: &Step) -> Result<(), Failure> {
        if goal == Goal::Bind && matches!(step, Step::Reserve) {
            // Recorded before the first change, for the next process should this one be killed.
            self.records.set(npu.address, npu.driver.as_deref().unwrap_or_default()).map_err(|error| {
                Failure::Refused(Reason::WriteFailed, format!("could not note its previous driver: {error:#}"))
            })?;
        }
        debug!(address = %npu.address, ?step, "Writing");
        apply(self.kernel.as_ref(), &self.group_locks, &self.tree, npu, step)?;
        let begun = Instant::now();
        loop {
            let Some(now) = self.see(npu.address) else { return Ok(()) };
            match step.missing_effect(&now) {
                None => return Ok(()),
                Some((reason, why)) if begun.elapsed() > SETTLE => return Err(Failure::Refused(reason, why)),
                Some(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Keeps the record of previous drivers in step: a device that is on vfio-pci by its `driver_override` is to be given back,
    /// whoever wrote that.
    fn remember(&self, goal: Goal, npu: &Npu, verdict: &Verdict) {
        let is_known = self.records.previous_driver(npu.address).is_some();
        let result = match goal {
            Goal::Bind if npu.is_on_vfio() && npu.is_reserved() && !is_known => self.records.set(npu.address, ""),
            Goal::Bind if !npu.is_on_vfio() && !npu.is_reserved() && is_known => self.records.forget(npu.address),
            Goal::GiveBack if verdict.state == State::Native && is_known => self.records.forget(npu.address),
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::warn!(address = %npu.address, err = format!("{error:#}"), "Could not note its previous driver");
        }
    }
}

fn gone(steps: Vec<Step>) -> PassResult {
    PassResult { npu: None, verdict: Verdict::new(State::Failed, Reason::DeviceGone, "it was unplugged"), steps }
}

fn to_do(goal: Goal, npu: &Npu) -> Verdict {
    match (goal, &npu.driver) {
        (Goal::GiveBack, _) if npu.is_on_vfio() => {
            Verdict::new(State::Bound, Reason::NotGivenBack, "free, and not given back yet")
        }
        (Goal::GiveBack, _) => Verdict::new(State::Unbound, Reason::NotGivenBack, "not given back yet"),
        (Goal::Bind, Some(driver)) => Verdict::new(State::Unbound, Reason::NotBound, format!("free, on {driver}")),
        (Goal::Bind, None) => Verdict::new(State::Unbound, Reason::NotBound, "free, without a driver"),
    }
}
