//! Nodes by components: all alike in one row, the worst first. Pure.

mod group;
mod summary;
mod table;

pub use group::{Cell, CellState, Group, Row};
pub use summary::{Filter, Summary, summarise};
pub use table::table;
