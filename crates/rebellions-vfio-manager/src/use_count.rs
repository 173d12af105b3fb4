//! Whether a driver counts users whom nobody sees. Pure.
//!
//! A driver's module counts open file descriptions, whichever of its devices they belong to. A description may have many
//! descriptors (inherited by a child, duplicated, sent to another process) or none (a memory mapping after `close`). From
//! outside two descriptors can be told apart only if something about them differs, so the number of descriptions is known
//! only between two bounds. A device is free when even the lower bound accounts for all that the driver counts.

use std::collections::BTreeSet;

use crate::descriptors::Descriptor;

/// What is known of the users of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// All of them are known.
    Known,
    /// At least one is not: the driver counts more than there are descriptors.
    Hidden {
        /// How many users are known at most.
        known: i64,
    },
    /// One may be hidden behind descriptors that cannot be told apart.
    Ambiguous,
}

/// Compares what a driver counts with the descriptors that were open while it was read. `modules` is the number of modules
/// that build on the driver; each counts as one user.
pub fn users(count: i64, modules: i64, descriptors: &[Descriptor]) -> Users {
    let number = |count: usize| modules.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
    let openings: BTreeSet<_> = descriptors.iter().filter_map(|one| one.opening).collect();
    let (least, most) = (number(openings.len()), number(descriptors.len()));
    match count {
        _ if count <= least => Users::Known,
        _ if count <= most => Users::Ambiguous,
        _ => Users::Hidden { known: most },
    }
}
