//! Words for people.

use std::fmt::Display;

/// A count and its noun: `1 node`, `3 nodes`.
#[must_use]
pub fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first few of so many names: `a, b and 3 more`.
#[must_use]
pub fn first_of<T: Display>(most: usize, count: usize, names: impl Iterator<Item = T>) -> String {
    let text = names.take(most).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    if count > most { format!("{text} and {} more", count - most) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_none_is_plural() {
        assert_eq!([0, 1, 2].map(|number| count(number, "node")), ["0 nodes", "1 node", "2 nodes"]);
    }

    #[test]
    fn a_few_are_named_and_the_others_counted() {
        let first = |count: usize| first_of(2, count, (0..count).map(|number| format!("n{number}")));
        assert_eq!([1, 2, 3].map(first), ["n0", "n0, n1", "n0, n1 and 1 more"]);
    }
}
