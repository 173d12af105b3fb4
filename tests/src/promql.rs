//! Which metrics an expression of Prometheus is about. Whether it is one is for Prometheus to say.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// Words that are neither metrics nor functions.
const OPERATORS: &[&str] = &["and", "bool", "offset", "or", "unless"];
const AGGREGATIONS: &[&str] =
    &["avg", "bottomk", "count", "count_values", "group", "max", "min", "quantile", "stddev", "stdvar", "sum", "topk"];
/// Words that a list of labels follows.
const GROUPINGS: &[&str] = &["by", "group_left", "group_right", "ignoring", "on", "without"];

/// A metric, and the labels that its selection names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Its name.
    pub metric: String,
    /// Names of labels.
    pub labels: BTreeSet<String>,
}

/// Every metric that an expression selects.
#[must_use]
pub fn selectors(expression: &str) -> Vec<Selector> {
    let (mut rest, mut found) = (expression.chars().peekable(), vec![]);
    while let Some(&next) = rest.peek() {
        match next {
            '"' => string(&mut rest),
            '[' => through(&mut rest, ']'),
            '0'..='9' => drop(word(&mut rest)),
            _ if starts_word(next) => {
                let name = word(&mut rest);
                space(&mut rest);
                let follows = rest.peek().copied();
                let known = [OPERATORS, AGGREGATIONS].concat();
                if GROUPINGS.contains(&name.as_str()) {
                    through(&mut rest, ')');
                } else if !known.contains(&name.as_str()) && follows != Some('(') {
                    let labels = if follows == Some('{') { labels(&mut rest) } else { BTreeSet::new() };
                    found.push(Selector { metric: name, labels });
                }
            }
            _ => drop(rest.next()),
        }
    }
    found
}

fn starts_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

fn word(rest: &mut Peekable<Chars<'_>>) -> String {
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| starts_word(*c) || c.is_ascii_digit() || *c == '.') {
        word.push(c);
    }
    word
}

fn space(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
}

fn through(rest: &mut Peekable<Chars<'_>>, end: char) {
    while rest.next().is_some_and(|c| c != end) {}
}

fn string(rest: &mut Peekable<Chars<'_>>) {
    rest.next();
    while let Some(c) = rest.next().filter(|c| *c != '"') {
        if c == '\\' {
            rest.next();
        }
    }
}

/// The names in `{name="value",…}`.
fn labels(rest: &mut Peekable<Chars<'_>>) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    while let Some(&next) = rest.peek() {
        match next {
            '}' => break,
            '"' => string(rest),
            _ if starts_word(next) => drop(labels.insert(word(rest))),
            _ => drop(rest.next()),
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_from_everything_else() {
        let expression = r#"histogram_quantile(0.9, sum by (le, state) (rate(a_bucket{x=~"b|c\"}",y!="d"}[5m] offset 5m)))
            unless on (namespace) e == 1 and max(f) > 0.5 or absent(g:h{}) or time() - vector(0)"#;
        let found: Vec<_> = selectors(expression)
            .into_iter()
            .map(|one| (one.metric, one.labels.into_iter().collect::<Vec<_>>().join(" ")))
            .collect();
        let expected = [("a_bucket", "x y"), ("e", ""), ("f", ""), ("g:h", "")];
        assert_eq!(found, expected.map(|(metric, labels)| (metric.to_owned(), labels.to_owned())));
    }
}
