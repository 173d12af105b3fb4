//! Binds a node's NPUs to vfio-pci, so that virtual machines can have them, and gives them back to their native driver.
//!
//! What is decided is pure: [`decide`] turns facts about one device into the next step, [`schedule`] says when to look again,
//! [`report`] says where everything stands. [`pass`] carries steps out through a [`kernel::Kernel`]; [`agent`] and
//! [`commands`] are the shell.

pub mod agent;
pub mod attempt;
pub mod commands;
pub mod decide;
mod descriptors;
pub mod facts;
pub mod give_back;
pub mod holders;
pub mod kernel;
pub mod modules;
mod nodes;
pub mod options;
pub mod parallel;
pub mod pass;
pub mod pci;
mod probe;
pub mod publish;
pub mod records;
pub mod report;
pub mod schedule;
pub mod selection;
pub mod step;
mod stop;
pub mod sysfs;
pub mod uevent;
mod use_count;
pub mod verdict;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod scenarios;
