//! `null` in an object that the API server stored.

use serde::{Deserialize, Deserializer};

/// Reads `null` as nothing: server-side apply leaves it behind where it emptied a map or list.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
