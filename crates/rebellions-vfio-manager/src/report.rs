//! What is said of the devices: one document for programs, a table for people, one line for whoever asks why.

use serde::Serialize;

use crate::decide::Goal;
use crate::facts::{Function, Holder, Npu};
use crate::pci::{Address, VENDOR, product};
use crate::verdict::{Reason, State, Verdict};

/// How many devices a line names before it only counts.
const NAMED: usize = 3;

/// Where every device of a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the program that wrote it.
    pub version: &'static str,
    /// What the devices are to become: `Bind` or `GiveBack`.
    pub goal: &'static str,
    /// Whether they all are.
    pub ready: bool,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Every NPU, in the order of addresses.
    pub devices: Vec<DeviceReport>,
}

/// Where a device stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// `0000:03:00.0`
    pub address: Address,
    /// Vendor and device id: `1eff:1250`.
    pub device_id: String,
    /// `RBLN-CA25`; `unknown` when the id is not known.
    pub product: &'static str,
    /// `physical` or `virtual`.
    pub function: &'static str,
    /// The driver that it is bound to; `null` if none.
    pub driver: Option<String>,
    /// Number of its IOMMU group; `null` without an IOMMU.
    pub iommu_group: Option<String>,
    /// In one word.
    pub state: State,
    /// Why, in one word.
    pub reason: Reason,
    /// For people: what is the matter and what to do.
    pub message: String,
    /// Who uses it, if that is the matter.
    pub holders: Vec<Holder>,
    /// Since when it has been in this state, as far as the agent knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What having no NPU at all means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenNone {
    /// Nothing is missing.
    Ready,
    /// The node is in the wrong mode, or its NPUs are not seen.
    NotReady,
}

impl DeviceReport {
    /// Of a device that was looked at, or of one that went meanwhile.
    #[must_use]
    pub fn new(address: Address, device: u16, npu: Option<&Npu>, verdict: Verdict) -> Self {
        let is_virtual = npu.is_some_and(|npu| matches!(npu.function, Function::Virtual { .. }));
        Self {
            address,
            device_id: format!("{VENDOR:04x}:{device:04x}"),
            product: product(device),
            function: if is_virtual { "virtual" } else { "physical" },
            driver: npu.and_then(|npu| npu.driver.clone()),
            iommu_group: npu.and_then(|npu| npu.group.as_ref()).map(|group| group.name.clone()),
            state: verdict.state,
            reason: verdict.reason,
            message: verdict.message,
            holders: verdict.holders,
            since: None,
        }
    }

    /// Whether it is what it is to become.
    #[must_use]
    pub fn is_done(&self, goal: Goal) -> bool {
        match (goal, self.state) {
            (_, State::Excluded) | (Goal::Bind, State::Bound) | (Goal::GiveBack, State::Native) => true,
            _ => self.reason == Reason::DeviceGone,
        }
    }
}

impl Report {
    /// Of these devices.
    #[must_use]
    pub fn new(goal: Goal, devices: Vec<DeviceReport>, when_none: WhenNone) -> Self {
        let (ready, reason, message) = summary(goal, &devices, when_none);
        let goal = match goal {
            Goal::Bind => "Bind",
            Goal::GiveBack => "GiveBack",
        };
        Self { version: env!("CARGO_PKG_VERSION"), goal, ready, reason, message, devices }
    }

    /// Of no device, with the reason.
    #[must_use]
    pub fn without_devices(goal: Goal, reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: false, reason, message: message.into(), ..Self::new(goal, vec![], WhenNone::NotReady) }
    }

    /// Whether nothing is missing but the end of those who use devices.
    #[must_use]
    pub fn waits_for_users(&self, goal: Goal) -> bool {
        let missing = || self.devices.iter().filter(|device| !device.is_done(goal));
        missing().next().is_some() && missing().all(|device| device.state == State::Busy)
    }

    /// As JSON, for programs.
    #[must_use]
    pub fn json(&self) -> String {
        // Made of texts and numbers, which always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// As a table, for people; nothing when there is no device. A blank line ends it.
    #[must_use]
    pub fn table(&self) -> String {
        if self.devices.is_empty() {
            return String::new();
        }
        let head = ["ADDRESS", "PRODUCT", "DRIVER", "GROUP", "STATE", "REASON"].map(str::to_owned);
        let rows: Vec<_> = std::iter::once((head, "MESSAGE"))
            .chain(self.devices.iter().map(|one| {
                let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
                let cells = [
                    one.address.to_string(),
                    one.product.to_owned(),
                    or_none(&one.driver),
                    or_none(&one.iommu_group),
                    format!("{:?}", one.state),
                    format!("{:?}", one.reason),
                ];
                (cells, one.message.as_str())
            }))
            .collect();
        let width = |column: usize| rows.iter().map(|(cells, _)| cells[column].len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..6).map(width).collect();
        let line = |(cells, message): &([String; 6], &str)| {
            let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
            format!("{}\n", (padded.concat() + message).trim_end())
        };
        rows.iter().map(line).collect::<String>() + "\n"
    }
}

fn summary(goal: Goal, devices: &[DeviceReport], when_none: WhenNone) -> (bool, &'static str, String) {
    let wanted = devices.iter().filter(|one| one.state != State::Excluded).count();
    if goal == Goal::Bind && wanted == 0 {
        let what = if devices.is_empty() {
            format!("this node has no NPU (PCI vendor {VENDOR:04x}, class 12xx00)")
        } else {
            format!("none of this node's {} NPUs is for virtual machines", devices.len())
        };
        return (when_none == WhenNone::Ready, "NoDevices", what);
    }
    let missing: Vec<_> = devices.iter().filter(|one| !one.is_done(goal)).collect();
    let (done, all_done) = match goal {
        Goal::Bind => ("on vfio-pci", "AllDevicesBound"),
        Goal::GiveBack => ("given back", "AllDevicesGivenBack"),
    };
    if missing.is_empty() {
        return (true, all_done, format!("{wanted} of {wanted} NPUs are {done}"));
    }
    let why = |one: &&DeviceReport| {
        let message = if one.message.is_empty() { String::new() } else { format!(": {}", one.message) };
        format!("{} {:?} ({:?}){message}", one.address, one.state, one.reason)
    };
    let named: Vec<_> = missing.iter().take(NAMED).map(why).collect();
    let more = missing.len().saturating_sub(NAMED);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    let count = wanted.saturating_sub(missing.len());
    (false, "DevicesPending", format!("{count} of {wanted} NPUs are {done}; {}{rest}", named.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(slot: &str, state: State, reason: Reason, message: &str) -> DeviceReport {
        DeviceReport::new(slot.parse().expect("an address"), 0x1250, None, Verdict::new(state, reason, message))
    }

    #[test]
    fn ready_means_that_every_device_that_is_wanted_is_verified() {
        let bound = device("03:00.0", State::Bound, Reason::Verified, "");
        let excluded = device("04:00.0", State::Excluded, Reason::NotSelected, "");
        let busy = device("05:00.0", State::Busy, Reason::InUse, "process 7 (qemu) holds /dev/rbln1");
        let report = Report::new(Goal::Bind, vec![bound.clone(), excluded.clone()], WhenNone::NotReady);
        assert_eq!(
            (report.ready, report.reason, report.message.as_str()),
            (true, "AllDevicesBound", "1 of 1 NPUs are on vfio-pci")
        );
        let report = Report::new(Goal::Bind, vec![bound, excluded, busy], WhenNone::NotReady);
        assert!(!report.ready);
        assert_eq!(
            report.message,
            "1 of 2 NPUs are on vfio-pci; 0000:05:00.0 Busy (InUse): process 7 (qemu) holds /dev/rbln1"
        );
    }

    #[test]
    fn having_none_is_told_apart_and_means_what_the_admin_says() {
        let none = |when| Report::new(Goal::Bind, vec![], when);
        assert_eq!((none(WhenNone::Ready).ready, none(WhenNone::NotReady).ready), (true, false));
        assert_eq!(none(WhenNone::Ready).reason, "NoDevices");
        let excluded = device("04:00.0", State::Excluded, Reason::NotSelected, "");
        assert_eq!(Report::new(Goal::Bind, vec![excluded], WhenNone::NotReady).reason, "NoDevices");
        assert!(Report::new(Goal::GiveBack, vec![], WhenNone::NotReady).ready, "nothing to give back is fine");
    }

    #[test]
    fn a_line_names_three_and_counts_the_rest() {
        let devices = (0..6).map(|n| device(&format!("0{n}:00.0"), State::Unbound, Reason::NotBound, "")).collect();
        let message = Report::new(Goal::Bind, devices, WhenNone::NotReady).message;
        assert!(message.starts_with("0 of 6 NPUs are on vfio-pci; 0000:00:00.0 Unbound (NotBound); "), "{message}");
        assert!(message.ends_with("; and 3 more"), "{message}");
    }

    #[test]
    fn the_table_lines_up() {
        let devices = vec![
            device("03:00.0", State::Bound, Reason::Verified, ""),
            device("04:00.0", State::Busy, Reason::InUse, "in use"),
        ];
        let table = Report::new(Goal::Bind, devices, WhenNone::NotReady).table();
        assert_eq!(
            table,
            "ADDRESS       PRODUCT    DRIVER  GROUP  STATE  REASON    MESSAGE\n\
             0000:03:00.0  RBLN-CA25  -       -      Bound  Verified\n\
             0000:04:00.0  RBLN-CA25  -       -      Busy   InUse     in use\n\n"
        );
    }
}
