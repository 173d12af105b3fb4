//! Programs whose clock is wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

const SHIM: &str = include_str!("clock.c");

/// What has to be in a program's environment so that its wall clock is ahead by so much, or behind. Building it takes a C
/// compiler, which Rust needs anyway.
pub fn skewed(folder: &Path, ahead: bool, by: Duration) -> anyhow::Result<[(&'static str, String); 2]> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, SHIM)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    let output = compiler.output().context("could not run cc; install a C compiler")?;
    ensure!(output.status.success(), "could not compile the clock: {}", String::from_utf8_lossy(&output.stderr));
    let sign = if ahead { "" } else { "-" };
    Ok([("LD_PRELOAD", library.display().to_string()), ("CLOCK_SKEW", format!("{sign}{}", by.as_secs()))])
}
