//! The agent: keeps every NPU of the node on vfio-pci and publishes the state of each. This is the event loop: it waits for
//! uevents and timers, starts passes, and publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use accelerator_process::{Signals, clock};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::decide::Goal;
use crate::modules::Modules;
use crate::parallel::CurrentStep;
use crate::pass::{PassResult, Worker};
use crate::pci::Address;
use crate::publish::Publisher;
use crate::records::Lock;
use crate::report::{DeviceReport, Report, WhenNone};
use crate::schedule::{RESCAN, STABLE_AFTER, event_matters, next_look, rebind_delay};
use crate::sysfs::NpuEntry;
use crate::uevent::{Uevent, Uevents};
use crate::verdict::{Reason, State, Verdict};

/// Uevents that arrive within this time are handled together.
const COALESCE_WINDOW: Duration = Duration::from_millis(100);

/// A pass that takes longer is reported as stuck in a kernel call.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How often a waiting agent tries to take the lock of another one.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// How long running passes may take after a stop signal.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(700);

/// Everything that the agent needs.
pub struct Agent {
    /// The context of every pass. Its `host` is refreshed on every turn of the loop.
    pub worker: Worker,
    /// Where vfio-pci comes from; `None` for a tree that is not the kernel's own.
    pub modules: Option<Modules>,
    /// Whether a node without NPUs is ready.
    pub when_none: WhenNone,
    /// Where the report goes.
    pub publisher: Publisher,
}

/// The state of a device between passes.
struct Device {
    entry: NpuEntry,
    report: Option<DeviceReport>,
    due: Instant,
    /// The earliest start of the next pass, whatever uevents arrive.
    not_before: Instant,
    failures: u32,
    /// Since when it has been bound, if it is.
    bound_since: Option<Instant>,
    /// How often in a row another process unbound it soon after it was bound.
    losses: u32,
    /// Start and current step of the running pass.
    running: Option<(Instant, CurrentStep)>,
}

impl Agent {
    /// Runs until a stop signal arrives.
    pub async fn run(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let Some(_lock) = self.lock(&mut signals).await? else { return Ok(()) };
        let uevents = self.modules.is_some().then(Uevents::subscribe).transpose();
        let mut uevents = uevents.unwrap_or_else(|error| {
            warn!(err = %error, "Could not subscribe to uevents; looking every {} s", RESCAN.as_secs());
            None
        });
        let mut devices: BTreeMap<Address, Device> = BTreeMap::new();
        let mut passes: JoinSet<(Address, PassResult)> = JoinSet::new();
        let mut loading = ModuleLoad::default();
        let mut rescan_at = Instant::now();
        loop {
            self.publisher.heartbeat();
            if rescan_at <= Instant::now() {
                rescan_at = Instant::now() + RESCAN;
                self.discover(&mut devices);
            }
            self.look_at_host(&mut devices, &mut loading);
            let due = if let Some(until) = loading.holds_until() {
                rescan_at.min(until)
            } else {
                self.start_passes(&mut devices, &mut passes);
                devices.values().map(Device::next).chain(loading.next()).fold(rescan_at, Instant::min)
            };
            self.publish(&devices);
            tokio::select! {
                signal = signals.next() => {
                    info!(signal, "Stopping; devices stay as they are");
                    break;
                }
                Some(done) = passes.join_next() => {
                    match done {
                        Ok((address, finding)) => finish_pass(&mut devices, address, finding),
                        Err(error) => warn!(err = %error, "A pass failed"),
                    }
                    // Uevents of the device were ignored during the pass; a rescan finds what they told.
                    rescan_at = Instant::now();
                }
                outcome = loading.ended() => loading.note(outcome),
                event = next_uevent(&mut uevents) => {
                    tokio::time::sleep(COALESCE_WINDOW).await;
                    let more = uevents.iter_mut().flat_map(Uevents::more);
                    std::iter::once(event).chain(more).for_each(|event| handle_uevent(&mut devices, event));
                    rescan_at = Instant::now();
                }
                () = sleep_until(due) => {}
            }
        }
        // Running passes may finish within the grace period.
        let ended = async { while passes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, ended).await;
        Ok(())
    }

    /// Waits for the lock. `None` when a stop signal arrives first.
    async fn lock(&mut self, signals: &mut Signals) -> anyhow::Result<Option<Lock>> {
        let mut told = false;
        loop {
            match self.worker.records.lock()? {
                Ok(lock) => return Ok(Some(lock)),
                Err(taken) => {
                    self.publisher.heartbeat();
                    if !std::mem::replace(&mut told, true) {
                        warn!(err = %taken, "Another agent is at work; waiting for its end");
                        self.publisher.serve(&Report::without_devices(Goal::Bind, "AnotherAgent", taken.to_string()));
                    }
                }
            }
            tokio::select! {
                _ = signals.next() => return Ok(None),
                () = tokio::time::sleep(LOCK_POLL) => {}
            }
        }
    }

    /// Lists the NPUs and updates the known devices.
    fn discover(&mut self, devices: &mut BTreeMap<Address, Device>) {
        let found = match self.worker.tree.npus() {
            Ok(found) => found,
            Err(error) => {
                warn!(err = %error, "Could not list PCI devices");
                return;
            }
        };
        devices.retain(|address, device| {
            let stays = device.running.is_some() || found.iter().any(|entry| entry.address == *address);
            if !stays {
                info!(address = %address, "Device is gone");
            }
            stays
        });
        self.publisher.count(found.len());
        let now = Instant::now();
        for entry in found {
            let known = devices.entry(entry.address).or_insert_with(|| Device {
                entry: entry.clone(),
                report: None,
                due: now,
                not_before: now,
                failures: 0,
                bound_since: None,
                losses: 0,
                running: None,
            });
            if known.entry != entry {
                known.entry = entry;
                // A running pass changes the driver itself; a rescan follows when it ends.
                if known.running.is_none() {
                    known.changed(now);
                }
            }
        }
    }

    /// Refreshes the facts about the host, and loads vfio-pci when a device needs it.
    fn look_at_host(&mut self, devices: &mut BTreeMap<Address, Device>, loading: &mut ModuleLoad) {
        self.worker.host = self.worker.tree.host();
        let Some(modules) = &self.modules else { return };
        let now = Instant::now();
        if self.worker.host.vfio_pci.is_ok() || devices.is_empty() {
            if std::mem::take(loading).attempts > 0 {
                for device in devices.values_mut() {
                    device.due = now;
                }
            }
            return;
        }
        if loading.task.is_none() && loading.due.is_none_or(|due| due <= now) {
            let modules = modules.clone();
            loading.attempts += 1;
            // In a thread of its own, because the call may never return.
            loading.task = Some((now, tokio::task::spawn_blocking(move || modules.load())));
        }
        if loading.task.is_some() && loading.error.is_empty() {
            loading.error = "the kernel has not come back from loading vfio_pci".into();
        }
        if !loading.error.is_empty() {
            self.worker.host.vfio_pci = Err(loading.error.clone());
        }
    }

    fn start_passes(&self, devices: &mut BTreeMap<Address, Device>, passes: &mut JoinSet<(Address, PassResult)>) {
        let now = Instant::now();
        let worker = Arc::new(self.worker.clone());
        for (address, device) in
            devices.iter_mut().filter(|(_, device)| device.running.is_none() && device.due() <= now)
        {
            let (worker, address, current) = (Arc::clone(&worker), *address, CurrentStep::default());
            device.running = Some((now, current.clone()));
            // In a thread of its own, because a kernel call may never return.
            passes.spawn_blocking(move || {
                let finding = worker.run(Goal::Bind, address, &mut |step| {
                    current.begin(step);
                    info!(address = %address, step = %step, "Changing device");
                });
                (address, finding)
            });
        }
    }

    fn publish(&mut self, devices: &BTreeMap<Address, Device>) {
        let reports = devices.values().filter_map(Device::report);
        let all_seen = devices.values().all(|device| device.report().is_some());
        let report = Report::new(Goal::Bind, reports.collect(), self.when_none);
        // Nothing is published before every device has been looked at once.
        if all_seen {
            self.publisher.publish(report, clock::now());
        }
    }
}

/// The state of loading vfio-pci.
#[derive(Default)]
struct ModuleLoad {
    /// Start and task of the running attempt.
    task: Option<(Instant, JoinHandle<anyhow::Result<()>>)>,
    /// When to try again.
    due: Option<Instant>,
    attempts: u32,
    error: String,
}

impl ModuleLoad {
    /// Until when passes are held back, because vfio-pci is being loaded.
    fn holds_until(&self) -> Option<Instant> {
        let (since, _) = self.task.as_ref()?;
        Some(*since + STUCK_AFTER).filter(|until| *until > Instant::now())
    }

    /// When to try again.
    fn next(&self) -> Option<Instant> {
        self.due.filter(|_| self.task.is_none())
    }

    /// Waits for the end of the running attempt.
    async fn ended(&mut self) -> Result<anyhow::Result<()>, JoinError> {
        match &mut self.task {
            Some((_, task)) => task.await,
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, outcome: Result<anyhow::Result<()>, JoinError>) {
        self.task = None;
        self.due = Some(Instant::now() + next_look(State::Failed, self.attempts));
        match outcome {
            Ok(Ok(())) => self.error.clear(),
            Ok(Err(error)) => self.error = format!("{error:#}"),
            Err(error) => self.error = error.to_string(),
        }
    }
}

impl Device {
    /// Handles a change of the driver by another process.
    fn changed(&mut self, now: Instant) {
        if let Some(since) = self.bound_since.take() {
            self.losses = if now.duration_since(since) < STABLE_AFTER { self.losses.saturating_add(1) } else { 1 };
            let wait = rebind_delay(self.losses);
            self.due = now;
            self.not_before = now + wait;
            let message = match self.losses {
                1 => "somebody took it away".to_owned(),
                times => format!("somebody took it away {times} times in a row; bound again in {} s", wait.as_secs()),
            };
            self.report = Some(self.report_as(Verdict::new(State::Unbound, Reason::NotBound, message)));
        } else if event_matters(self.state(), false) {
            self.due = self.due.min(now);
        }
    }

    fn state(&self) -> State {
        self.report.as_ref().map_or(State::Unbound, |report| report.state)
    }

    /// When the loop has to look at this device again.
    fn next(&self) -> Instant {
        match &self.running {
            // The report of a stuck device is refreshed now and then.
            Some((since, _)) if since.elapsed() > STUCK_AFTER => Instant::now() + RESCAN,
            Some((since, _)) => *since + STUCK_AFTER,
            None => self.due(),
        }
    }

    fn due(&self) -> Instant {
        self.due.max(self.not_before)
    }

    /// A report from what is known without a pass.
    fn report_as(&self, verdict: Verdict) -> DeviceReport {
        let NpuEntry { address, device, driver } = &self.entry;
        DeviceReport { driver: driver.clone(), ..DeviceReport::new(*address, *device, None, verdict) }
    }

    fn report(&self) -> Option<DeviceReport> {
        match &self.running {
            Some((since, current)) if since.elapsed() >= STUCK_AFTER => {
                Some(self.report_as(current.stuck(since.elapsed())))
            }
            _ => self.report.clone(),
        }
    }
}

/// Records the result of a pass.
fn finish_pass(devices: &mut BTreeMap<Address, Device>, address: Address, finding: PassResult) {
    let PassResult { npu, verdict, steps } = finding;
    if verdict.reason == Reason::DeviceGone {
        info!(address = %address, "Device is gone");
        devices.remove(&address);
        return;
    }
    if let Some(device) = devices.get_mut(&address) {
        let Verdict { state, .. } = verdict;
        device.failures = if state == State::Failed { device.failures.saturating_add(1) } else { 0 };
        device.due = Instant::now() + next_look(state, device.failures);
        device.running = None;
        device.bound_since = (state == State::Bound).then(|| device.bound_since.unwrap_or_else(Instant::now));
        if let Some(npu) = &npu {
            device.entry.driver.clone_from(&npu.driver);
        }
        device.report = Some(DeviceReport::new(address, device.entry.device, npu.as_ref(), verdict));
    }
    // A change of one device can change the verdict on the others of its IOMMU group.
    if let Some(group) = npu.and_then(|npu| npu.group).filter(|_| !steps.is_empty()) {
        for mate in group.others {
            if let Some(device) = devices.get_mut(&mate.address).filter(|mate| event_matters(mate.state(), false)) {
                device.due = Instant::now();
            }
        }
    }
}

/// Makes the devices due that a uevent is about.
fn handle_uevent(devices: &mut BTreeMap<Address, Device>, Uevent { address, is_new }: Uevent) {
    for (known, device) in devices.iter_mut().filter(|(known, _)| address.is_none_or(|address| address == **known)) {
        // The rescan that follows shows whether a bound device is still bound.
        if device.bound_since.is_none() && event_matters(device.state(), is_new && address == Some(*known)) {
            device.due = device.due.min(Instant::now());
        }
    }
}

async fn next_uevent(uevents: &mut Option<Uevents>) -> Uevent {
    match uevents {
        Some(uevents) => uevents.next().await,
        None => std::future::pending().await,
    }
}
