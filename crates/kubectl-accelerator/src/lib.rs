//! `kubectl accelerator`: what runs where, why not, and everything for support. It reads and never writes.
//!
//! [`facts`] are what is known of a cluster; [`explain`](mod@explain) and [`status`] make texts of them and are pure. [`read`] asks the
//! API server, [`collect`] writes a bundle, [`commands`] is the shell around all of them.

pub mod args;
pub mod collect;
pub mod commands;
pub mod explain;
pub mod facts;
pub mod read;
pub mod status;
pub mod style;
