//! A number that no other node on this machine has, whoever runs it: its address, link and control group are named by it.

use std::fs::File;

use anyhow::Context;
use testbed::programs::cache;

/// As many nodes as this machine may have at once, those of other runs included.
const NODES: u8 = 200;

/// A reserved number. It is free again when this is dropped or the process is gone.
#[derive(Debug)]
pub struct Reservation {
    /// The number, from 1.
    pub number: u8,
    _lock: File,
}

impl Reservation {
    /// The lowest number that is free.
    pub fn make() -> anyhow::Result<Self> {
        let folder = cache("node-numbers")?;
        std::fs::create_dir_all(&folder)?;
        let free = (1..=NODES).find_map(|number| {
            let lock = File::create(folder.join(number.to_string())).ok()?;
            lock.try_lock().is_ok().then_some(Self { number, _lock: lock })
        });
        free.with_context(|| format!("all {NODES} numbers of nodes are taken; end other runs of the node suite"))
    }
}
