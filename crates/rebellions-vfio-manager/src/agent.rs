//! The agent: keeps every NPU of the node on vfio-pci, and tells where each stands. The thin shell: it waits for news and
//! for time to pass, starts passes, and publishes.

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

/// What happens within this time is looked at together.
const COALESCE_WINDOW: Duration = Duration::from_millis(100);

/// A pass that takes longer has met a kernel call that does not come back.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How often an agent that waits for another one looks whether that has ended.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// How long passes may go on when the agent is told to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(700);

/// Everything that the agent needs.
pub struct Agent {
    /// What a pass works with. The host's part is looked up anew.
    pub worker: Worker,
    /// Where vfio-pci comes from; `None` for a tree that is not the kernel's own.
    pub modules: Option<Modules>,
    /// What having no NPU means.
    pub when_none: WhenNone,
    /// Where the report goes.
    pub publisher: Publisher,
}

/// What is known of a device between passes.
struct Device {
    entry: NpuEntry,
    report: Option<DeviceReport>,
    due: Instant,
    /// No pass before, whatever is heard of it.
    not_before: Instant,
    failures: u32,
    /// Since when it has been bound, if it is.
    bound_since: Option<Instant>,
    /// How often in a row somebody took it away soon after.
    losses: u32,
    /// Since when a pass has been under way.
    running: Option<(Instant, CurrentStep)>,
}

impl Agent {
    /// Works until told to stop.
    pub async fn run(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let Some(_lock) = self.lock(&mut signals).await? else { return Ok(()) };
        let uevents = self.modules.is_some().then(Uevents::subscribe).transpose();
        let mut uevents = uevents.unwrap_or_else(|error| {
            warn!(err = %error, "Could not subscribe to the kernel's news; looking every {} s", RESCAN.as_secs());
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
                    // Somebody may have changed the device since the pass looked last, when news of it did not count.
                    rescan_at = Instant::now();
                }
                outcome = loading.ended() => loading.note(outcome),
                event = news(&mut uevents) => {
                    tokio::time::sleep(COALESCE_WINDOW).await;
                    let more = uevents.iter_mut().flat_map(Uevents::more);
                    std::iter::once(event).chain(more).for_each(|event| handle_uevent(&mut devices, event));
                    rescan_at = Instant::now();
                }
                () = sleep_until(due) => {}
            }
        }
        // What was begun is brought to an end if that takes no longer than a moment.
        let ended = async { while passes.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, ended).await;
        Ok(())
    }

    /// Waits until no other agent is at work. `None` when told to stop before.
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

    /// Finds out which devices there are. Those that were known stay known.
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
                // What a pass does itself is no news; what comes between is seen when it has ended.
                if known.running.is_none() {
                    known.changed(now);
                }
            }
        }
    }

    /// Looks whether vfio-pci is there, and has it loaded when a device needs it.
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
            // A thread: the kernel may take its time, or never come back.
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
            // A thread: what it calls may never return.
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
        // What has not been looked at yet is no reason to be ready, nor to say that there is none.
        if all_seen {
            self.publisher.publish(report, clock::now());
        }
    }
}

/// The driver vfio-pci, while it is not there.
#[derive(Default)]
struct ModuleLoad {
    /// An attempt that is under way, and since when.
    task: Option<(Instant, JoinHandle<anyhow::Result<()>>)>,
    /// When to try again.
    due: Option<Instant>,
    attempts: u32,
    error: String,
}

impl ModuleLoad {
    /// Until when devices are not looked at, because what they need is about to be there.
    fn holds_until(&self) -> Option<Instant> {
        let (since, _) = self.task.as_ref()?;
        Some(*since + STUCK_AFTER).filter(|until| *until > Instant::now())
    }

    /// When to try again.
    fn next(&self) -> Option<Instant> {
        self.due.filter(|_| self.task.is_none())
    }

    /// The end of the attempt that is under way.
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
    /// Somebody bound or unbound it.
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

    /// When to do something about it.
    fn next(&self) -> Instant {
        match &self.running {
            // Only to say how long it has been stuck, now and then.
            Some((since, _)) if since.elapsed() > STUCK_AFTER => Instant::now() + RESCAN,
            Some((since, _)) => *since + STUCK_AFTER,
            None => self.due(),
        }
    }

    fn due(&self) -> Instant {
        self.due.max(self.not_before)
    }

    /// What to say of it without looking closer.
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

/// Takes note of what a pass found.
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
    // Whether a group can be handed over depends on all that are in it.
    if let Some(group) = npu.and_then(|npu| npu.group).filter(|_| !steps.is_empty()) {
        for mate in group.others {
            if let Some(device) = devices.get_mut(&mate.address).filter(|mate| event_matters(mate.state(), false)) {
                device.due = Instant::now();
            }
        }
    }
}

/// What the kernel told makes devices due.
fn handle_uevent(devices: &mut BTreeMap<Address, Device>, Uevent { address, is_new }: Uevent) {
    for (known, device) in devices.iter_mut().filter(|(known, _)| address.is_none_or(|address| address == **known)) {
        // Whether it is still bound is seen in the list of devices, which is looked at next.
        if device.bound_since.is_none() && event_matters(device.state(), is_new && address == Some(*known)) {
            device.due = device.due.min(Instant::now());
        }
    }
}

async fn news(uevents: &mut Option<Uevents>) -> Uevent {
    match uevents {
        Some(uevents) => uevents.next().await,
        None => std::future::pending().await,
    }
}
