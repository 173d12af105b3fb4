//! Waiting for something to become true, with a message that tells what was seen last.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// Far more than anything takes here, even on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_mins(3);

/// How a probe answers.
#[derive(Debug)]
pub enum Wait<T> {
    /// It is so.
    Done(T),
    /// Not yet; this is what was seen.
    NotYet(String),
}

impl<T: Debug> Wait<T> {
    /// Done when `seen` is as `expected`.
    pub fn until(seen: T, expected: impl FnOnce(&T) -> bool) -> Self {
        if expected(&seen) { Self::Done(seen) } else { Self::NotYet(format!("{seen:?}")) }
    }
}

/// Probes until it is done.
///
/// # Panics
/// When it takes longer than three minutes; the message says what for, and what was seen last.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Wait<T>) -> T {
    eventually_within(PATIENCE, what, probe).await
}

/// Probes until it is done.
///
/// # Panics
/// When it takes longer than `patience`; the message says what for, and what was seen last.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl AsyncFnMut() -> Wait<T>) -> T {
    let begun = Instant::now();
    loop {
        match probe().await {
            Wait::Done(value) => return value,
            Wait::NotYet(seen) if begun.elapsed() > patience => {
                #[expect(clippy::panic, reason = "this is how a test fails")]
                {
                    panic!("waited {} s for: {what}\nlast seen: {seen}", patience.as_secs());
                }
            }
            Wait::NotYet(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
