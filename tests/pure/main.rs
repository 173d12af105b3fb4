//! What can be known without a cluster: the goldens, and that everything in the repository fits together.

#![allow(clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

mod compatibility;
mod files;
mod first_use;
mod fuzz;
mod generated;
mod goldens;
mod guard_rails;
mod image_list;
mod kubevirt_types;
mod layers;
mod manifests;
mod monitoring;
mod planning;
mod real_node;
mod reporting;
mod sixth_component;
mod trees;
mod words;
