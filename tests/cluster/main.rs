//! What must hold on a real control plane. Each test leases one, starts the programs that it is about, each with its own
//! rights, and looks at the cluster as an admin would.

#![allow(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

mod attacks;
mod chart;
mod churn;
mod components;
mod contest;
mod crash;
mod crd;
mod demo;
mod driver_upgrade;
mod edits;
mod faults;
mod foreign;
mod gitops;
mod give_back;
mod harness;
mod installation;
mod kubectl;
mod labels;
mod leadership;
mod machines;
mod monitoring;
mod ownership;
mod pause;
mod programs;
mod quiet;
mod readiness;
mod reasons;
mod rights;
mod schema;
mod skew;
mod store;
mod taken;
mod transitions;

/// The components of a node in mode `container`.
const CONTAINER: &[&str] = &["device-plugin", "driver", "metric-exporter", "npu-feature-discovery"];
/// The components of a node in mode `vm-passthrough`.
const VM: &[&str] = &["npu-feature-discovery", "vfio-manager"];
/// The program that labels nodes.
const LABELER: &str = accelerator_api::contract::NODE_LABELER;
