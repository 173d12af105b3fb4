//! What an explanation consists of.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

/// How much a finding weighs, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Weight {
    /// It is so because somebody wants it, or it does no harm.
    Note,
    /// It goes on by itself.
    Passes,
    /// Somebody has to act.
    Blocks,
}

/// One thing that keeps something from being as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// What it is, with names.
    pub what: String,
    /// Since when, as far as the cluster tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What to do, one step an entry; empty when there is nothing to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub todo: Vec<String>,
}

impl Finding {
    fn new(weight: Weight, what: impl Into<String>) -> Self {
        Self { weight, what: what.into(), since: None, todo: vec![] }
    }

    /// Somebody has to act.
    #[must_use]
    pub fn blocks(what: impl Into<String>) -> Self {
        Self::new(Weight::Blocks, what)
    }

    /// It goes on by itself.
    #[must_use]
    pub fn passes(what: impl Into<String>) -> Self {
        Self::new(Weight::Passes, what)
    }

    /// It is so because somebody wants it, or it does no harm.
    #[must_use]
    pub fn note(what: impl Into<String>) -> Self {
        Self::new(Weight::Note, what)
    }

    /// Since then.
    #[must_use]
    pub fn since(mut self, since: Option<&Time>) -> Self {
        self.since = since.map(|time| time.0);
        self
    }

    /// Since then.
    #[must_use]
    pub fn since_time(mut self, since: Option<Timestamp>) -> Self {
        self.since = since;
        self
    }

    /// One more thing to do.
    #[must_use]
    pub fn todo(mut self, step: impl Into<String>) -> Self {
        self.todo.push(step.into());
        self
    }
}

/// One row of what is: a name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Of what.
    pub name: String,
    /// Where it stands.
    pub text: String,
}

impl Line {
    /// A row.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

/// Where a subject stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// As it should be.
    AsWanted,
    /// Not yet as it should be, and it goes on by itself.
    Progressing,
    /// Not as it should be until somebody acts.
    Blocked,
    /// There is no such thing.
    NotFound,
}

/// Why a subject is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Of what: `node/n-1`.
    pub subject: String,
    /// Where it stands.
    pub state: State,
    /// What should be, for people.
    pub wanted: String,
    /// What is.
    pub found: Vec<Line>,
    /// The first thing that keeps it from being as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Finding>,
    /// What else is to be said, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Finding>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

impl Explanation {
    /// Of these findings, in the order in which one leads to the next. The first that somebody has to act on is the cause,
    /// else the first that passes; the others are told beside it.
    #[must_use]
    pub fn of(subject: String, wanted: impl Into<String>, found: Vec<Line>, findings: Vec<Finding>) -> Self {
        let mut rest: Vec<Finding> = vec![];
        for finding in findings {
            if !rest.iter().any(|other| other.what == finding.what) {
                rest.push(finding);
            }
        }
        let first = |weight| rest.iter().position(|finding| finding.weight == weight);
        let cause = first(Weight::Blocks).or_else(|| first(Weight::Passes)).map(|index| rest.remove(index));
        rest.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
        let state = match cause.as_ref().map(|cause| cause.weight) {
            Some(Weight::Blocks) => State::Blocked,
            Some(_) => State::Progressing,
            None => State::AsWanted,
        };
        Self { subject, state, wanted: wanted.into(), found, cause, also: rest, unknown: vec![] }
    }

    /// There is no such thing.
    #[must_use]
    pub fn not_found(subject: String, finding: Finding) -> Self {
        let explanation = Self::of(subject, String::new(), vec![], vec![finding]);
        Self { state: State::NotFound, ..explanation }
    }
}
