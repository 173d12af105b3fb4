//! What is checked, a line each, for the host to read.

use std::cell::Cell;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Far more than anything takes on an emulated processor.
const PATIENCE: Duration = Duration::from_secs(20);

thread_local! {
    static DONE: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// One check. `detail` is what was seen.
pub fn check(name: &str, holds: bool, detail: impl Debug) {
    let (done, failed) = DONE.get();
    DONE.set((done + 1, failed + u32::from(!holds)));
    let verdict = if holds { "ok" } else { "FAILED" };
    println!("@@CHECK {verdict} {name}: {detail:?}");
}

/// One check that two things are equal.
#[expect(clippy::needless_pass_by_value, reason = "checks read better without references")]
pub fn equal<T: PartialEq + Debug>(name: &str, seen: T, expected: T) {
    let holds = seen == expected;
    check(name, holds, if holds { format!("{seen:?}") } else { format!("{seen:?}, and not {expected:?}") });
}

/// One check that something becomes true.
pub fn eventually<T: Debug>(name: &str, mut probe: impl FnMut() -> T, holds: impl Fn(&T) -> bool) {
    let begun = Instant::now();
    loop {
        let seen = probe();
        let so = holds(&seen);
        if so || begun.elapsed() > PATIENCE {
            check(name, so, (begun.elapsed().as_millis(), seen));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many checks there were and how many failed.
pub fn count() -> (u32, u32) {
    DONE.get()
}
