//! The history of one attempt on a device, which facts alone do not show.

use crate::step::Step;
use crate::verdict::{Reason, State, Verdict};

/// The driver that a device was taken from, by us or by an agent before us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousDriver {
    /// Its name; empty if the device had none.
    pub driver: String,
    /// Whether it is loaded.
    pub is_loaded: bool,
}

/// The history of one attempt on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// The driver before the first attempt; `None` if the device was never taken.
    pub(crate) previous_driver: Option<PreviousDriver>,
    /// A step of this attempt changed the device.
    pub(crate) touched: bool,
    /// A probe was made since the last change.
    pub(crate) probed: bool,
    /// How often it was taken from a driver.
    unbinds: u32,
    /// Why the attempt failed; its steps are being undone.
    error: Option<AttemptError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct AttemptError {
    reason: Reason,
    why: String,
    /// Whether undoing failed as well.
    is_final: bool,
}

/// After so many unbinds in one attempt, another process is taken to bind the device each time.
const MAX_UNBINDS: u32 = 3;

impl Attempt {
    /// An attempt on a device that had this driver before.
    #[must_use]
    pub fn after(previous_driver: Option<PreviousDriver>) -> Self {
        Self { previous_driver, ..Self::default() }
    }

    /// Records the result of a step.
    pub fn note(&mut self, step: &Step, result: Result<(), (Reason, String)>) {
        self.touched = true;
        self.probed = *step == Step::Probe || (self.probed && *step == Step::Bind);
        match (step, result) {
            (Step::Unbind(driver), Ok(())) => {
                self.unbinds += 1;
                if self.unbinds > MAX_UNBINDS {
                    self.fail(Reason::TakenByAnother, format!("{driver} takes it again and again"));
                }
            }
            (Step::Bind, Err((_, why))) => self.fail(Reason::NotTaken, why),
            (_, Ok(())) => {}
            (_, Err((reason, why))) => self.fail(reason, why),
        }
    }

    fn fail(&mut self, reason: Reason, why: String) {
        match &mut self.error {
            Some(error) => error.is_final = true,
            None => self.error = Some(AttemptError { reason, why, is_final: false }),
        }
    }

    /// Whether undoing failed as well.
    pub(crate) fn is_unrecoverable(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.is_final)
    }

    /// The verdict of a failed attempt.
    pub(crate) fn failed(&self) -> Option<Verdict> {
        let AttemptError { reason, why, .. } = self.error.as_ref()?;
        Some(Verdict::new(State::Failed, *reason, why.clone()))
    }
}
