//! Runs a virtual machine and reads what it reports.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use testbed::{Process, say};
use vm_suite::emulator::{self, Machine};
use vm_suite::{device, fetch::Fetched};

use crate::scenario::Scenario;

/// A machine that is emulated starts in 3 s and has done everything after 30.
const PATIENCE: Duration = Duration::from_mins(3);

/// How long a command to the emulator may be refused.
const REFUSALS: Duration = Duration::from_secs(5);

/// How a virtual machine ended. The emulator's own exit code says nothing: a guest that panics ends it well, too.
pub struct Outcome {
    /// Whether its last line says that every check held.
    pub passed: bool,
    /// For people.
    pub summary: String,
}

/// Runs one scenario.
pub fn run(
    scenario: &Scenario,
    fetched: &Fetched,
    image: &Path,
    folder: &Path,
    console: bool,
) -> anyhow::Result<Outcome> {
    let folder = &folder.join(scenario.name);
    std::fs::create_dir_all(folder)?;
    let (serial, monitor) = (folder.join("console"), folder.join("monitor"));
    let kernel = format!("{} scenario={}", scenario.kernel, scenario.name);
    let machine = Machine { memory: 512, has_iommu: scenario.has_iommu, kernel: &kernel, console: &serial };
    let mut command = machine.command(fetched);
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
    command.arg("-initrd").arg(image);
    let mut pluggable = vec![];
    for (number, (id, place)) in scenario.npus.iter().enumerate() {
        let name = format!("npu{number}");
        let socket = device::serve(folder, &name, *id)?;
        let mut argument = emulator::npu(&name, &socket);
        if let Some(place) = place {
            argument["addr"] = (*place).into();
            argument["multifunction"] = place.ends_with(".0").into();
            command.arg("-device").arg(argument.to_string());
        } else {
            argument["bus"] = format!("port{number}").into();
            command.arg("-device").arg(format!("pcie-root-port,id=port{number},chassis={number},slot={number}"));
        }
        pluggable.push(argument);
    }
    if scenario.has_foreign {
        command.args(["-blockdev", "null-co,node-name=disk,read-zeroes=on,size=1048576"]);
        command.args(["-device", "virtio-blk-pci,drive=disk,class=0x1200,disable-legacy=on,iommu_platform=on,addr=7"]);
    }
    let begun = Instant::now();
    let mut process = Process::start(&mut command, &folder.join("emulator.log"))?;
    let mut reader = Reader { shown: 0, console };
    let mut last = None;
    loop {
        let ended = process.ended().is_some();
        let text = std::fs::read(&serial).unwrap_or_default();
        for line in reader.news(&String::from_utf8_lossy(&text), ended) {
            if let Some(wish) = line.strip_prefix("@@HOST ") {
                plug(&monitor, wish, &pluggable)?;
            }
            last = line.strip_prefix("@@DONE ").map(str::to_owned).or(last);
        }
        if ended || begun.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let passed = last.as_ref().is_some_and(|last| last.ends_with(" 0 failed") && !last.starts_with("0 checks"));
    let summary = match &last {
        Some(last) => format!("{last}, {seconds:.1} s"),
        None => format!("it never came to its end, {seconds:.1} s"),
    };
    if !passed {
        say(format!("--- console of {}\n{}---", scenario.name, std::fs::read_to_string(&serial).unwrap_or_default()));
        say(process.tail());
    }
    Ok(Outcome { passed, summary })
}

/// What has been shown of the console.
struct Reader {
    shown: usize,
    console: bool,
}

impl Reader {
    /// Whole lines that are new.
    fn news(&mut self, text: &str, ended: bool) -> Vec<String> {
        let whole = if ended { text.len() } else { text.rfind('\n').map_or(0, |at| at + 1) };
        let lines: Vec<_> =
            text.get(self.shown..whole).unwrap_or_default().lines().map(|line| line.trim_end().to_owned()).collect();
        self.shown = whole;
        for line in &lines {
            if self.console || line.starts_with("@@CHECK FAILED") || line.starts_with("@@SCENARIO") {
                say(line);
            }
        }
        lines
    }
}

/// Plugs a device in or pulls it out: `plug 1`, `unplug 1`.
fn plug(monitor: &Path, wish: &str, devices: &[Value]) -> anyhow::Result<()> {
    let (what, number) = wish.split_once(' ').context("a wish without a number")?;
    let device = devices.get(number.parse::<usize>()?).context("no such device")?;
    let command = if what == "plug" {
        json!({"execute": "device_add", "arguments": device})
    } else {
        json!({"execute": "device_del", "arguments": {"id": device["id"]}})
    };
    let begun = Instant::now();
    // A device that has just been pulled out may still be on its way.
    while let Err(refusal) = ask(monitor, &command) {
        if begun.elapsed() > REFUSALS {
            say(format!("the emulator would not {wish}: {refusal:#}"));
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// One command to the emulator. Source: QEMU Machine Protocol.
fn ask(monitor: &Path, command: &Value) -> anyhow::Result<()> {
    let stream = UnixStream::connect(monitor)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(&stream).lines();
    for command in [&json!({"execute": "qmp_capabilities"}), command] {
        writeln!(&stream, "{command}")?;
        loop {
            let answer: Value = serde_json::from_str(&lines.next().context("the emulator hung up")??)?;
            if let Some(error) = answer.get("error") {
                bail!("{error}");
            }
            // Everything else is a greeting or an event.
            if answer.get("return").is_some() {
                break;
            }
        }
    }
    Ok(())
}
