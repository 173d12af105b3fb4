//! Devices come and go while the agent runs.

use std::path::Path;
use std::time::Duration;

use super::{all_bound, bound, npus, ours};
use crate::agent::{Agent, Machine, document};
use crate::checks::{check, equal, eventually};

/// Asks the host to plug a device in or to pull it out.
fn ask(wish: &str) {
    println!("@@HOST {wish}");
}

pub fn run() {
    // At the same time as the agent looks for the first time.
    ask("plug 1");
    let mut agent = Agent::start();
    let bound_now =
        |count: usize| move |seen: &(Vec<String>, Vec<String>)| seen.0.len() == count && seen.1 == all_bound(&seen.0);
    let seen = || (npus(), document());
    eventually("a device that comes while others are bound is bound", seen, bound_now(2));
    ask("plug 2");
    eventually("a device that comes later is bound at once", seen, bound_now(3));
    let last = npus().pop().expect("a device");
    equal("for good", bound(&last), ours());

    ask("unplug 2");
    eventually("a device that goes is forgotten", seen, bound_now(2));
    ask("plug 2");
    eventually("and bound when it is back", seen, bound_now(3));

    let machine = Machine::start(&last).expect("a device for a virtual machine");
    ask("unplug 2");
    let folder = Path::new("/sys/bus/pci/devices").join(&last);
    eventually("a device that is pulled while held loses its driver", || bound(&last).0, |driver| driver == "none");
    eventually("it is told as in use", document, |seen| {
        seen.iter().any(|line| line.starts_with(&format!("{last} Busy/InUse")))
    });
    let (code, took) = agent.stop();
    equal("SIGTERM ends the agent well", code, Some(0));
    check("SIGTERM ends it within a second, a device in limbo", took < Duration::from_millis(1500), took);
    drop(machine);
    eventually("the device goes when it is let go", || folder.exists(), |exists| !exists);
    let agent = Agent::start();
    eventually("the others are adopted", seen, bound_now(2));
    equal("without a write", agent.said().matches("Changing device").count(), 0);
}
