//! Says where each component runs: turns the admin's mode of a node into deploy labels, and every component's condition
//! into the condition Ready. The rules are pure ([`rules`], [`index`], [`summary`]); [`controller`] acts.

pub mod controller;
pub mod effect;
pub mod hold_down;
pub mod index;
pub mod queue;
pub mod rules;
mod status;
pub mod summary;
pub mod tally;
pub mod view;
mod writer;
