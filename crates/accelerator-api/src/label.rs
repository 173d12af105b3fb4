//! Labels: what a value may look like, and a node's labels as they are kept in memory.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use schemars::JsonSchema;

/// A label's value.
#[derive(JsonSchema)]
#[schemars(inline, transparent)]
pub(crate) struct LabelValue(
    #[schemars(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    #[expect(dead_code, reason = "only its schema is used")]
    String,
);

/// The labels of a node as hashes, 8 bytes each: enough to ask whether a label is there, for thousands of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSet(Box<[(u32, u32)]>);

impl LabelSet {
    /// Whether a label of this key is there.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Whether a label of this key is there and has this value.
    #[must_use]
    pub fn contains(&self, key: &str, value: &str) -> bool {
        self.value(key) == Some(hash(value))
    }

    /// The hash of a label's value.
    fn value(&self, key: &str) -> Option<u32> {
        let key = hash(key);
        self.0.binary_search_by_key(&key, |(key, _)| *key).ok().map(|index| self.0[index].1)
    }
}

impl From<&BTreeMap<String, String>> for LabelSet {
    fn from(labels: &BTreeMap<String, String>) -> Self {
        let mut hashes: Vec<_> = labels.iter().map(|(key, value)| (hash(key), hash(value))).collect();
        hashes.sort_unstable();
        Self(hashes.into())
    }
}

/// The upper half of a hash that is the same as long as the process lives.
fn hash(text: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key_and_value() {
        let labels = [("zone", "a"), ("empty", ""), ("example.com/rack", "r-1")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let set = LabelSet::from(&BTreeMap::from(labels));
        assert!(set.contains("zone", "a") && set.contains("empty", "") && set.contains("example.com/rack", "r-1"));
        assert!(!set.contains("zone", "b") && !set.contains("rack", "r-1") && !set.contains("zone", ""));
        assert!(set.contains_key("empty") && !set.contains_key("a"));
        assert!(!LabelSet::default().contains_key("zone"));
    }
}
