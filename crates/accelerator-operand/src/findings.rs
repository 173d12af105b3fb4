//! What is known of an operand's pods that are not ready: kept up to date pod by pod, and summed up.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::pod_events::{EventView, Said};
use crate::pod_problem::{PodProblem, ProblemKind};
use crate::pod_view::PodView;

/// How many pods a message names before it only counts.
const NAMED: usize = 3;

/// How many events about pods that are not known to have a problem are kept: the news of the problem may come later.
const EVENTS: usize = 500;

/// The problems of one operand's pods, by the pod's name, and what events say of them. Pods that are ready take no room.
#[derive(Debug)]
pub struct PodProblems {
    daemon_set: String,
    pods: BTreeMap<String, Known>,
    said: BTreeMap<String, Said>,
    not_created: Option<Said>,
}

#[derive(Debug)]
struct Known {
    problem: PodProblem,
    since: Timestamp,
}

/// The problems at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    named: Vec<PodProblem>,
    counts: BTreeMap<ProblemKind, i64>,
}

impl PodProblems {
    /// The findings about a DaemonSet of whose pods nothing is known yet.
    #[must_use]
    pub fn new(daemon_set: &str) -> Self {
        Self { daemon_set: daemon_set.to_owned(), pods: BTreeMap::new(), said: BTreeMap::new(), not_created: None }
    }

    /// Forgets the pods that a complete list did not have. Returns whether anything changed.
    pub fn retain(&mut self, exists: impl Fn(&str) -> bool) -> bool {
        let before = self.pods.len();
        self.pods.retain(|pod, _| exists(pod));
        self.pods.len() != before
    }

    /// Takes over the state of a pod. Returns whether anything changed.
    pub fn apply(&mut self, pod: &PodView, now: Timestamp) -> bool {
        let Some(mut problem) = PodProblem::of(pod, now) else { return self.remove(pod.name()) };
        let known = self.pods.get(pod.name());
        if let Some(known) = known {
            problem.remember(&known.problem);
            if known.problem == problem {
                return false;
            }
        }
        let since = known.filter(|known| known.problem.unexplained == problem.unexplained);
        let since = since.map_or(now, |known| known.since);
        self.pods.insert(pod.name().to_owned(), Known { problem, since });
        true
    }

    /// The pod is gone. Returns whether anything changed.
    pub fn remove(&mut self, pod: &str) -> bool {
        self.said.remove(pod);
        self.pods.remove(pod).is_some()
    }

    /// Takes over what an event says. Returns whether anything changed.
    pub fn apply_event(&mut self, event: &EventView) -> bool {
        let Some(said) = event.said() else { return false };
        match event.about() {
            ("DaemonSet", name) if name == self.daemon_set && event.is_failed_create() => {
                newest(&mut self.not_created, said)
            }
            ("Pod", name) if self.is_own(name) && said.explains().is_some() => {
                let has_room = self.said.len() < EVENTS || self.pods.contains_key(name);
                if !has_room {
                    return false;
                }
                let mut known = self.said.remove(name);
                let changed = newest(&mut known, said);
                self.said.extend(known.map(|said| (name.to_owned(), said)));
                changed
            }
            _ => false,
        }
    }

    /// A DaemonSet's pods are named like it, with five random characters behind.
    fn is_own(&self, pod: &str) -> bool {
        pod.strip_prefix(self.daemon_set.as_str())
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|rest| !rest.contains('-'))
    }

    /// Whether some problem has been unexplained since before this time, so that events should be asked.
    #[must_use]
    pub fn unexplained_since(&self, before: Timestamp) -> bool {
        self.pods.values().any(|known| known.problem.unexplained.is_some() && known.since <= before)
    }

    /// The problems at this moment; `missing` pods do not exist although they should.
    #[must_use]
    pub fn findings(&self, missing: bool, now: Timestamp) -> Findings {
        let mut findings = Findings::default();
        let mut all: Vec<_> = self.pods.iter().map(|(pod, known)| (pod, known.problem.at(now))).collect();
        for (pod, problem) in &mut all {
            if let Some(said) = self.said.get(*pod) {
                said.explain(problem, now);
            }
        }
        let not_created = self.not_created.as_ref().filter(|_| missing);
        let not_created = not_created.map(|said| PodProblem::not_created(&said.message));
        let mut all: Vec<_> = not_created.into_iter().chain(all.into_iter().map(|(_, problem)| problem)).collect();
        for problem in &all {
            *findings.counts.entry(problem.kind).or_default() += 1;
        }
        all.sort_by(|a, b| b.kind.cmp(&a.kind).then_with(|| a.node.cmp(&b.node)));
        findings.named = worth_naming(all);
        findings
    }
}

/// Keeps the one that was said last. Returns whether that changed.
fn newest(known: &mut Option<Said>, said: Said) -> bool {
    let is_newer = known.as_ref().is_none_or(|known| known.at < said.at);
    let says_more = known.as_ref().is_none_or(|known| (&known.reason, &known.message) != (&said.reason, &said.message));
    if is_newer {
        *known = Some(said);
    }
    is_newer && says_more
}

/// The first few, where failures for another reason go before more of the same.
fn worth_naming(sorted: Vec<PodProblem>) -> Vec<PodProblem> {
    let mut reasons: Vec<String> = vec![];
    let (mut first, mut rest) = (vec![], vec![]);
    for problem in sorted {
        if problem.kind.is_failure() && first.len() < NAMED && !reasons.contains(&problem.reason) {
            reasons.push(problem.reason.clone());
            first.push(problem);
        } else if rest.len() < NAMED {
            rest.push(problem);
        }
    }
    first.extend(rest);
    first.truncate(NAMED);
    first.sort_by(|a, b| b.kind.cmp(&a.kind).then_with(|| a.node.cmp(&b.node)));
    first
}

impl Findings {
    /// The findings about these pods, for tests and for callers that have all of them at hand.
    #[must_use]
    pub fn of<'a>(operand: &'static str, pods: impl IntoIterator<Item = &'a PodView>, now: Timestamp) -> Self {
        let mut problems = PodProblems::new(operand);
        for pod in pods {
            problems.apply(pod, now);
        }
        problems.findings(false, now)
    }

    /// The first few problems, the worst first.
    #[must_use]
    pub fn named(&self) -> &[PodProblem] {
        &self.named
    }

    /// Whether nothing is known to be wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many problems there are of this kind.
    #[must_use]
    pub fn count(&self, kind: ProblemKind) -> i64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    /// How many pods are known that exist and are not ready.
    #[must_use]
    pub fn pods(&self) -> i64 {
        self.counts.iter().filter(|(kind, _)| **kind != ProblemKind::NotCreated).map(|(_, count)| count).sum()
    }

    /// The worst that is known.
    #[must_use]
    pub fn worst(&self) -> Option<ProblemKind> {
        self.counts.last_key_value().map(|(kind, _)| *kind)
    }

    /// The first few as part of a sentence about so many pods; empty when there are none.
    pub(crate) fn sentence(&self, pods: i64) -> String {
        if self.named.is_empty() {
            return String::new();
        }
        let named: Vec<_> = self.named.iter().map(ToString::to_string).collect();
        let more = pods.saturating_sub(i64::try_from(named.len()).unwrap_or(i64::MAX));
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(": {}{rest}", named.join(", "))
    }

    /// The named pods of this kind as part of a sentence.
    pub(crate) fn sentence_of(&self, kind: ProblemKind) -> String {
        let named = self.named.iter().filter(|problem| problem.kind == kind).cloned().collect();
        Self { named, counts: BTreeMap::new() }.sentence(self.count(kind))
    }
}

#[cfg(test)]
mod tests;
