//! Says where each component runs: turns the admin's mode of a node into deploy labels, and every component's condition
//! into the condition Ready.
//!
//! [`view`] is what is kept of a node, [`rules`] decide about one, with [`pause`] and [`left_behind`] for the time in which its
//! driver is replaced; [`index`] keeps all of them in step with [`node`], [`queue`], [`hold_down`], [`effect`] and [`tally`],
//! and [`summary`] sums up. All of these are pure; [`controller`] acts.

pub mod contests;
pub mod controller;
pub mod effect;
pub mod exclusion;
mod exclusion_look;
mod exclusion_search;
pub mod hold_down;
pub mod index;
pub mod left_behind;
pub mod node;
pub mod options;
pub mod pause;
pub mod queue;
pub mod rules;
mod status;
pub mod summary;
pub mod tally;
mod tell;
pub mod view;
mod writer;
