//! Progress lines on long work.

use std::io::Write;

/// Writes a line to standard error. Not with `eprintln!`, which the test runner would keep for itself: whoever waits for
/// the first build wants to see it now.
pub fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", line.as_ref());
}
