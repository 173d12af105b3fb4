//! The only program of the guest. What it is depends on how it is started: the first process, which runs one scenario and
//! switches the machine off; a container runtime; a virtual machine that holds a device; a command in a container.

#![allow(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]
#![allow(clippy::print_stdout, reason = "the serial console is where it reports")]

mod agent;
mod checks;
mod container;
mod hold;
mod machine;
mod network;
mod scenarios;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["container", log, environment @ ..] => container::start(log, environment),
        ["inside", environment @ ..] => container::inside(environment),
        ["exec", pid, environment, command @ ..] => {
            container::exec(pid.parse()?, &environment.split(',').collect::<Vec<_>>(), command)
        }
        ["get", pid, path] => network::get(pid.parse()?, path),
        ["hold", address] => hold::hold(address),
        ["fork", node] => hold::fork(node),
        ["hide", node] => hold::hide(node),
        ["linger"] => {
            hold::linger();
            Ok(())
        }
        ["write", path, text] => Ok(std::fs::write(path, text)?),
        ["sleep"] => {
            std::thread::sleep(std::time::Duration::from_secs(1));
            Ok(())
        }
        ["orphan"] => machine::leave_an_orphan(),
        _ => machine::run(),
    }
}
