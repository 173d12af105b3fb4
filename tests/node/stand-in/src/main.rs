//! Plays the vendor's closed programs: what it does is told by the name that it is started under and, for trouble made on
//! purpose, by the variable `STAND_IN`.

#![expect(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a program of the test bed")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// Where the driver's container has the host's `/run/rbln/driver`.
const DRIVER: &str = "/host/run/rbln/driver";

/// What a scrape of the metric exporter finds.
const METRICS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\nConnection: close\r\n\r\n\
                       rbln_npu_health{} 1\n";

fn main() -> ExitCode {
    // The first process of a PID namespace gets no signal that it does not ask for.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block().expect("signals can be blocked");

    let called = std::env::args().next().unwrap_or_default();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    println!("stand-in for {name} {}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    match std::env::var("STAND_IN").unwrap_or_default().as_str() {
        "" => {}
        "fail" => return fail(),
        "fail-later" => {
            thread::sleep(Duration::from_secs(3));
            return fail();
        }
        "eat-memory" => eat_memory(),
        path if path.starts_with('/') => return hold(path, ends),
        other => {
            eprintln!("STAND_IN={other} is not known");
            return ExitCode::from(2);
        }
    }
    match name {
        // What the driver's pod and its probes run to the end.
        "driver-manager" | "sh" | "rbln-smi" => return ExitCode::SUCCESS,
        "rbln-driver" => {
            if let Err(error) = install_driver() {
                eprintln!("could not write to {DRIVER}: {error}");
                return ExitCode::FAILURE;
            }
        }
        "rbln_daemon" => serve(50051, ""),
        name if name.contains("exporter") => serve(9090, METRICS),
        _ => {}
    }
    ends.wait().expect("signals can be waited for");
    ExitCode::SUCCESS
}

/// As a program of the vendor's on a node that lost its device.
fn fail() -> ExitCode {
    eprintln!("cannot open /dev/rsd0: No such device");
    ExitCode::from(7)
}

/// As a virtual machine, which keeps a device open until it ends.
fn hold(path: &str, ends: SigSet) -> ExitCode {
    match fs::File::options().read(true).write(true).open(path) {
        Ok(_device) => ends.wait().map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("could not open {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn eat_memory() {
    let mut eaten: Vec<Vec<u8>> = vec![];
    loop {
        eaten.push(vec![1; 1 << 20]);
        thread::sleep(Duration::from_millis(20));
    }
}

/// The driver leaves its tools where the device plugin looks for them.
fn install_driver() -> std::io::Result<()> {
    let tools = Path::new(DRIVER).join("usr/bin");
    fs::create_dir_all(&tools)?;
    fs::write(tools.join("rbln-smi"), "stand-in")
}

/// Answers every connection with the same words.
fn serve(port: u16, answer: &'static str) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 2048]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}
