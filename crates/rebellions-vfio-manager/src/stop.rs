//! The stop signal of a command that waits.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use accelerator_process::Signals;

use crate::commands::Outcome;

/// How long a command may take to end after a stop signal.
const GRACE: Duration = Duration::from_millis(700);

/// Whether SIGTERM or SIGINT has arrived. The first process of a container has to ask: the kernel does not end it by itself.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Subscribes to the signals. A process that has not ended by itself soon after one, because a kernel call does not
    /// return, is ended; what it left half done is continued by the next.
    pub fn listen() -> anyhow::Result<Self> {
        let stop = Self::default();
        let told = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::listen() })?;
        std::thread::spawn(move || {
            runtime.block_on(signals.next());
            told.tell();
            std::thread::sleep(GRACE);
            std::process::exit(Outcome::Pending as i32);
        });
        Ok(stop)
    }

    fn tell(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits for `time`, or less when the signal arrives. Returns whether it has.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let told = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(told, time, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
