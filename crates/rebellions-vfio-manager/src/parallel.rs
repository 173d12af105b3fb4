//! Runs a pass over every device, each in a thread of its own: a kernel call may never return, and must not delay the other
//! devices.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::decide::Goal;
use crate::pass::{PassResult, Worker};
use crate::report::{DeviceReport, Report, WhenNone};
use crate::step::Step;
use crate::sysfs::NpuEntry;
use crate::verdict::{Reason, State, Verdict};

/// The step that a pass is at, reported when the pass is stuck.
#[derive(Clone, Debug, Default)]
pub struct CurrentStep(Arc<Mutex<Option<Step>>>);

impl CurrentStep {
    /// Begins a step.
    pub fn begin(&self, step: &Step) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(step.clone());
    }

    /// The verdict on a device whose pass has not returned after `waited`.
    #[must_use]
    pub fn stuck(&self, waited: Duration) -> Verdict {
        let step = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let what = step.map_or_else(|| "read it".to_owned(), |step| step.to_string());
        let why = format!("the kernel has not come back for {} s from: {what}; somebody has it open", waited.as_secs());
        Verdict::new(State::Stuck, Reason::KernelBlocked, why)
    }
}

/// What to do with each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Tell where it stands. Returns whatever happens to the device meanwhile.
    Look,
    /// Tell what would be done. Takes the device's lock for a moment.
    DryRun,
    /// Bring it to its goal.
    Act,
}

/// Looks at every device, or acts on it, and gives up on those that take longer than `timeout`. Returns the report, and
/// the steps that were taken or would be.
pub fn run_all(
    worker: &Arc<Worker>,
    goal: Goal,
    mode: Mode,
    when_none: WhenNone,
    timeout: Duration,
) -> std::io::Result<(Report, Vec<(String, Step)>)> {
    let begun = Instant::now();
    let passes: Vec<_> = worker.tree.npus()?.into_iter().map(|entry| start(worker, goal, mode, entry)).collect();
    let (mut devices, mut steps) = (vec![], vec![]);
    for (entry, current, answer) in passes {
        let left = timeout.saturating_sub(begun.elapsed());
        let (npu, verdict) = match answer.recv_timeout(left) {
            Ok(PassResult { npu, verdict, steps: taken }) => {
                steps.extend(taken.into_iter().map(|step| (entry.address.to_string(), step)));
                (npu, verdict)
            }
            Err(RecvTimeoutError::Timeout) => (None, current.stuck(begun.elapsed())),
            Err(RecvTimeoutError::Disconnected) => {
                (None, Verdict::new(State::Failed, Reason::WriteFailed, "looking at it failed; see the log"))
            }
        };
        let driver = npu.as_ref().map_or(entry.driver, |npu| npu.driver.clone());
        devices.push(DeviceReport { driver, ..DeviceReport::new(entry.address, entry.device, npu.as_ref(), verdict) });
    }
    // The verdict on a group depends on all its members, and their passes ended at different times.
    let in_doubt = |device: &DeviceReport| mode == Mode::Act && device.reason == Reason::IommuGroupShared;
    if devices.iter().any(in_doubt) {
        let (now, _) = run_all(worker, goal, Mode::Look, when_none, timeout)?;
        for device in devices.iter_mut().filter(|device| in_doubt(device)) {
            if let Some(now) = now.devices.iter().find(|now| now.address == device.address) {
                device.clone_from(now);
            }
        }
    }
    Ok((Report::new(goal, devices, when_none), steps))
}

type Pass = (NpuEntry, CurrentStep, std::sync::mpsc::Receiver<PassResult>);

fn start(worker: &Arc<Worker>, goal: Goal, mode: Mode, entry: NpuEntry) -> Pass {
    let (send, receive) = channel();
    let current = CurrentStep::default();
    let (worker, told, address) = (Arc::clone(worker), current.clone(), entry.address);
    std::thread::spawn(move || {
        let finding = match mode {
            Mode::Look => worker.look(goal, address),
            Mode::DryRun => worker.dry_run(goal, address),
            Mode::Act => worker.run(goal, address, &mut |step| told.begin(step)),
        };
        // The receiver is gone when the pass took too long.
        let _ = send.send(finding);
    });
    (entry, current, receive)
}
