//! Publishes the state of devices: a document, metrics, health, and a log line for each transition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accelerator_process::admin::{self, Answer};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::decide::Goal;
use crate::pci::{Address, VENDOR};
use crate::records::Records;
use crate::report::Report;
use crate::schedule::RESCAN;
use crate::verdict::{Reason, State};

/// An agent whose loop has made no turn for so long is not alive.
const DEAD: Duration = RESCAN.saturating_mul(3);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    address: String,
    product: &'static str,
    state: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabel {
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

/// The side of the agent's loop.
pub struct Publisher {
    records: Records,
    shared: Arc<Mutex<Shared>>,
    known: BTreeMap<Address, (State, Reason, Timestamp)>,
    document: String,
    /// How many NPUs were found last.
    found: Option<usize>,
    state: Family<DeviceLabels, Gauge>,
    since: Family<AddressLabel, Gauge>,
    transitions: Family<AddressLabel, Counter>,
    ready: Gauge,
    is_failing: bool,
}

/// What the admin server knows.
struct Shared {
    report: Report,
    heartbeat: Instant,
}

/// The side of the admin server.
#[derive(Clone)]
pub struct AdminEndpoint {
    shared: Arc<Mutex<Shared>>,
    registry: Arc<Registry>,
}

impl Publisher {
    /// Makes both sides.
    #[must_use]
    pub fn new(records: Records) -> (Self, AdminEndpoint) {
        let report = Report::without_devices(Goal::Bind, "AgentNotReady", "devices have not been looked at yet");
        let shared = Arc::new(Mutex::new(Shared { report, heartbeat: Instant::now() }));
        let mut registry = Registry::default();
        let publisher = Self {
            records,
            shared: Arc::clone(&shared),
            known: BTreeMap::new(),
            document: String::new(),
            found: None,
            state: Family::default(),
            since: Family::default(),
            transitions: Family::default(),
            ready: Gauge::default(),
            is_failing: false,
        };
        let ours = registry.sub_registry_with_prefix("rebellions_vfio_manager");
        let help = "1 for where an NPU stands, and why; see docs/reference/vfio-manager.md";
        ours.register("device_state", help, publisher.state.clone());
        let help = "When an NPU came to where it stands, in seconds since 1970";
        ours.register("device_state_timestamp_seconds", help, publisher.since.clone());
        ours.register("device_transitions", "How often an NPU came to stand elsewhere", publisher.transitions.clone());
        ours.register("ready", "1 when every NPU that is wanted is verified on vfio-pci", publisher.ready.clone());
        let build = Family::<VersionLabel, Gauge>::default();
        build.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        ours.register("build_info", "Always 1; the label tells the version", build);
        (publisher, AdminEndpoint { shared, registry: Arc::new(registry) })
    }

    /// Records that the loop is alive.
    pub fn heartbeat(&self) {
        self.share(|shared| shared.heartbeat = Instant::now());
    }

    /// Logs how many NPUs there are, at first and when their number changes.
    pub fn count(&mut self, found: usize) {
        if self.found.replace(found) == Some(found) {
            return;
        }
        match found {
            0 => warn!("Found no NPU (PCI vendor {VENDOR:04x}, class 12xx00)"),
            npus => info!(npus, "Found NPUs"),
        }
    }

    /// Serves a report without writing the document, which belongs to another agent.
    pub fn serve(&self, report: &Report) {
        self.share(|shared| shared.report.clone_from(report));
    }

    /// Serves a report, writes the document, sets metrics and logs transitions.
    pub fn publish(&mut self, mut report: Report, now: Timestamp) {
        self.serve(&report);
        self.ready.set(report.ready.into());
        self.state.clear();
        self.since.clear();
        self.known.retain(|address, _| report.devices.iter().any(|device| device.address == *address));
        for device in &mut report.devices {
            let is_news = self
                .known
                .get(&device.address)
                .is_none_or(|(state, reason, _)| (*state, *reason) != (device.state, device.reason));
            if is_news {
                self.known.insert(device.address, (device.state, device.reason, now));
                let label = AddressLabel { address: device.address.to_string() };
                self.transitions.get_or_create(&label).inc();
                let (address, driver) = (device.address, device.driver.as_deref().unwrap_or("none"));
                let (state, reason, note) =
                    (format!("{:?}", device.state), format!("{:?}", device.reason), &device.message);
                match device.state {
                    State::Bound | State::Excluded | State::Native => {
                        info!(%address, driver, state, reason, note, product = device.product, "Device stands");
                    }
                    _ => warn!(%address, driver, state, reason, note, product = device.product, "Device stands"),
                }
            }
            let since = self.known.get(&device.address).map_or(now, |(_, _, since)| *since);
            device.since = Some(Timestamp::from_second(since.as_second()).unwrap_or(since).to_string());
            let labels = DeviceLabels {
                address: device.address.to_string(),
                product: device.product,
                state: format!("{:?}", device.state),
                reason: format!("{:?}", device.reason),
            };
            self.state.get_or_create(&labels).set(1);
            self.since.get_or_create(&AddressLabel { address: labels.address }).set(since.as_second());
        }
        let document = report.json();
        if document != self.document {
            match self.records.publish(&document) {
                Ok(()) => {
                    self.document = document;
                    self.is_failing = false;
                }
                Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                    warn!(err = format!("{error:#}"), "Could not write the document");
                }
                Err(_) => {}
            }
        }
    }

    fn share(&self, change: impl FnOnce(&mut Shared)) {
        change(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl AdminEndpoint {
    /// Answers a GET.
    #[must_use]
    pub fn answer(&self, path: &str) -> Answer {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = "the agent's loop has stalled";
        match path {
            "/livez" | "/readyz" if shared.heartbeat.elapsed() > DEAD => Answer::unavailable(stalled),
            "/status" if shared.heartbeat.elapsed() > DEAD => {
                Answer::ok(&Report::without_devices(Goal::Bind, "AgentNotReady", stalled).json())
            }
            "/livez" => Answer::ok("ok"),
            "/readyz" if shared.report.ready => Answer::ok(&shared.report.message),
            "/readyz" => Answer::unavailable(&shared.report.message),
            "/status" => Answer::ok(&shared.report.json()),
            "/metrics" => admin::metrics(&self.registry),
            _ => Answer::not_found(),
        }
    }
}
