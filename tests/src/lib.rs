//! A test bed: a real control plane without containers, simulated NPU nodes, and the controllers as real processes with
//! their own rights.
//!
//! [`ControlPlane`] starts and ends the processes; [`Cluster`] is what a test talks to; [`Cluster::lease`] hands out
//! control planes that tests share one after the other.

pub mod access;
pub mod admin;
pub mod audit;
mod certificates;
pub mod chart;
mod clock;
mod cluster;
pub mod control_group;
mod control_plane;
pub mod controller;
pub mod debian;
mod expect;
pub mod generate;
pub mod gitops;
pub mod guard_rails;
pub mod history;
pub mod image_list;
pub mod install;
pub mod kubeconfig;
mod kubelet;
pub mod monitoring;
pub mod nodes;
mod pool;
mod process;
pub mod programs;
mod progress;
pub mod prometheus;
pub mod promql;
pub mod proxy;
pub mod releases;
pub mod repository;
mod wait;
pub mod workload;

pub use access::Access;
pub use audit::Request;
pub use clock::skewed;
pub use cluster::Cluster;
pub use control_plane::{ControlPlane, HOST, PLAYED, Profile, start_kwok};
pub use controller::Controller;
pub use history::{History, Recording};
pub use kubelet::{Kubelets, Trouble, is_ready};
pub use pool::Leased;
pub use process::{Folder, Process, watch_stdin_and_reap};
pub use progress::say;
pub use proxy::{Fault, Proxy, Rule};
pub use wait::{Wait, eventually, eventually_within};
pub use workload::Workload;
