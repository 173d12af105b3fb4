//! Ends what a test or the demo left behind. Started by the test bed, never by hand.

fn main() {
    testbed::watch_stdin_and_reap();
}
