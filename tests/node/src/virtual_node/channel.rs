//! Commands for a virtual node by way of a serial port: a JSON object a line, and one a line in return. Both ends are here.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

use super::TAKES_COMMANDS;
use crate::node::init;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A line of shell to run.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    /// Tells its answer from one to somebody who has given up.
    number: u64,
    line: String,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    number: u64,
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it printed as errors.
    pub errors: String,
}

/// Our end.
pub struct Channel {
    socket: PathBuf,
}

impl Channel {
    /// The channel whose other end is behind this socket of the emulator.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// Has a line run and waits until it has ended.
    pub fn ask(&self, line: &str) -> anyhow::Result<Answer> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stream = UnixStream::connect(&self.socket).context("the machine has no power")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        writeln!(&stream, "{}", serde_json::to_string(&Question { number, line: line.into() })?)?;
        for answer in BufReader::new(&stream).lines() {
            let answer = answer.with_context(|| format!("no answer to {line}"))?;
            // A rest of an answer to somebody else may come first.
            match serde_json::from_str::<Answer>(&answer) {
                Ok(answer) if answer.number == number => return Ok(answer),
                _ => {}
            }
        }
        anyhow::bail!("the machine lost power during {line}")
    }
}

/// The node's end: answers until the machine ends.
pub fn answer(terminal: &str) -> anyhow::Result<()> {
    let port = std::fs::File::options().read(true).write(true).open(terminal)?;
    let mut settings = tcgetattr(&port)?;
    settings.make_raw();
    settings.set_speed(115_200)?;
    tcsetattr(&port, OptionalActions::Now, &settings)?;
    testbed::say(TAKES_COMMANDS);
    serve(&port, &port)
}

fn serve(from: impl Read, mut to: impl Write) -> anyhow::Result<()> {
    for question in BufReader::new(from).lines() {
        // Half a line, from somebody who went away.
        let Ok(Question { number, line }) = serde_json::from_str(&question?) else { continue };
        let output = init::command("bash", &["-c", &line]).stdin(Stdio::null()).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (code, out, errors) = (output.status.code(), text(&output.stdout), text(&output.stderr));
        writeln!(to, "{}", serde_json::to_string(&Answer { number, code, out, errors })?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn half_a_question_and_answers_to_others_are_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("commands");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let node = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody who asks");
            let stale = Answer { number: u64::MAX, code: Some(0), out: "not yours".into(), errors: String::new() };
            writeln!(stream, "of an answer\"}}\n{}", serde_json::to_string(&stale).expect("JSON")).expect("written");
            serve("{\"number\": 1, \"li\n".as_bytes().chain(&stream), &stream)
        });
        let answer = Channel::new(&socket).ask("echo out; echo \"two\nlines\" >&2; exit 3").expect("an answer");
        assert_eq!((answer.code, answer.out.as_str(), answer.errors.as_str()), (Some(3), "out\n", "two\nlines\n"));
        node.join().expect("no panic").expect("the node's end");
    }
}
