//! Why a pod is not ready, in words that name its node.

use std::fmt;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::pod_view::{Container, PodView, Terminated};

/// How long a pod may take to end beyond its grace period before that is told as a fault.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// For how long the end of a container explains why the next one is not ready. An init container has no probe and either
/// succeeds or fails: while it runs again, however long, its last failure is the news.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// The most of a cause that a message quotes, in characters.
const QUOTED: usize = 300;
/// How much of it is the beginning. Container runtimes put the cause last.
const HEAD: usize = 90;

/// How bad it is that a pod is not ready, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It ends, and still may.
    Terminating,
    /// It starts.
    Starting,
    /// Its node does not answer; the pod is not to blame.
    NodeNotReady,
    /// It runs and its readiness probe fails.
    NotReady,
    /// The scheduler finds no place for it.
    Unschedulable,
    /// It fails, and does not get ready without a change.
    Failing,
    /// It could not be made.
    NotCreated,
}

impl ProblemKind {
    /// Whether it does not pass by itself, as starting does.
    #[must_use]
    pub fn is_failure(self) -> bool {
        self >= Self::Unschedulable
    }
}

/// What only events can tell of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unexplained {
    /// What it waits for before its containers run.
    Start,
    /// What its readiness probe says.
    Probe,
    /// Why its image cannot be pulled.
    Pull,
}

/// A pod that is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProblem {
    /// The node that it is on or meant for; empty when that is not known.
    pub node: String,
    /// How bad it is.
    pub kind: ProblemKind,
    /// In a few words: `CrashLoopBackOff`, `not ready`.
    pub reason: String,
    /// The cause, as far as it is known.
    pub cause: Option<String>,
    /// What its status leaves open.
    pub(crate) unexplained: Option<Unexplained>,
    /// When a pod that ends is overdue.
    pub(crate) overdue_at: Option<Timestamp>,
}

impl PodProblem {
    fn new(kind: ProblemKind, reason: &str, cause: Option<String>) -> Self {
        let (node, unexplained, overdue_at) = (String::new(), None, None);
        Self { node, kind, reason: reason.to_owned(), cause, unexplained, overdue_at }
    }

    fn unexplained(mut self, by: Unexplained) -> Self {
        self.unexplained = Some(by);
        self
    }

    /// A pod that could not be made, in the words of the DaemonSet controller's event.
    pub(crate) fn not_created(message: &str) -> Self {
        Self::new(ProblemKind::NotCreated, "FailedCreate", Some(clip(message)))
    }

    /// Why this pod is not ready; `None` when it is.
    #[must_use]
    pub fn of(pod: &PodView, now: Timestamp) -> Option<Self> {
        let problem = if let Some(deleted) = &pod.metadata.deletion_timestamp {
            terminating(pod, deleted.0)
        } else if pod.is("Ready") {
            return None;
        } else {
            alive(pod, now)
        };
        Some(Self { node: pod.node(), ..problem })
    }

    /// What it is at this time.
    pub(crate) fn at(&self, now: Timestamp) -> Self {
        let mut problem = self.clone();
        if self.kind == ProblemKind::Terminating && self.overdue_at.is_some_and(|overdue| overdue <= now) {
            problem.kind = ProblemKind::Failing;
            problem.reason = "terminating for longer than its grace period".into();
        }
        problem
    }

    /// Keeps what the previous status of the same pod said, where this one says less: the kubelet tells the cause of a
    /// failed pull once and then only that it waits before the next.
    pub(crate) fn remember(&mut self, previous: &Self) {
        if self.unexplained == Some(Unexplained::Pull) && is_pull(&previous.reason) && previous.cause.is_some() {
            self.cause.clone_from(&previous.cause);
            self.unexplained = None;
        }
    }
}

impl fmt::Display for PodProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match &self.cause {
            Some(cause) => format!("{}: {cause}", self.reason),
            None => self.reason.clone(),
        };
        match self.node.as_str() {
            "" => f.write_str(&why),
            node => write!(f, "{node} ({why})"),
        }
    }
}

fn terminating(pod: &PodView, deleted: Timestamp) -> PodProblem {
    if pod.is_on_a_lost_node() {
        return PodProblem::new(ProblemKind::NodeNotReady, "the node is not ready, its pod cannot end", None);
    }
    let disrupted = pod.condition("DisruptionTarget").filter(|condition| condition.status == "True");
    let cause = disrupted.and_then(|condition| condition.message.as_deref().or(condition.reason.as_deref()));
    let mut problem = PodProblem::new(ProblemKind::Terminating, "terminating", cause.map(clip));
    // The deletion timestamp is when the grace period ends.
    problem.overdue_at = deleted.checked_add(OVERDUE).ok();
    problem
}

fn alive(pod: &PodView, now: Timestamp) -> PodProblem {
    let status = &pod.status;
    if status.phase == "Failed" {
        let cause = status.message.as_deref().or(status.reason.as_deref()).map(clip);
        return PodProblem::new(ProblemKind::Failing, "Failed", cause);
    }
    if pod.is_on_a_lost_node() {
        return PodProblem::new(ProblemKind::NodeNotReady, "the node is not ready", None);
    }
    if let Some(scheduled) = pod.condition("PodScheduled").filter(|scheduled| scheduled.status == "False") {
        let reason = scheduled.reason.as_deref().unwrap_or("Unschedulable");
        return PodProblem::new(ProblemKind::Unschedulable, reason, scheduled.message.as_deref().map(clip));
    }
    let init = status.init_container_statuses.iter().map(|container| waiting(pod, container, None));
    let main = status.container_statuses.iter().map(|container| waiting(pod, container, Some(now)));
    // Of equals the last is taken, which is the first of the pod.
    let worst = init.chain(main).rev().flatten().max_by_key(|one| one.kind);
    worst.unwrap_or_else(|| match status.phase.as_str() {
        "Running" => PodProblem::new(ProblemKind::NotReady, "not ready", None).unexplained(Unexplained::Probe),
        _ if !pod.is_bound() => PodProblem::new(ProblemKind::Starting, "not scheduled yet", None),
        _ => PodProblem::new(ProblemKind::Starting, "starting", None).unexplained(Unexplained::Start),
    })
}

/// What a container waits for, or how it ended; `None` when it runs well or is done. With a time, its previous end counts
/// only while that is [`RECENT`].
fn waiting(pod: &PodView, container: &Container, recent_at: Option<Timestamp>) -> Option<PodProblem> {
    let death = |terminated: &Terminated| death(terminated, &container.name, pod.memory_limit(&container.name));
    let failed = |terminated: &&Terminated| terminated.exit_code != 0;
    let last = container.last_state.terminated.as_ref().filter(failed);
    if let Some(waiting) = &container.state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        let message = waiting.message.as_deref().filter(|message| !message.is_empty());
        // Starting is not failing: the kubelet uses these two names while all goes well.
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return Some(PodProblem::new(ProblemKind::Starting, reason, None).unexplained(Unexplained::Start));
        }
        if is_pull(reason) {
            let cause = message.and_then(pull_cause);
            let problem = PodProblem::new(ProblemKind::Failing, reason, cause.or(message).map(clip));
            return Some(if cause.is_some() { problem } else { problem.unexplained(Unexplained::Pull) });
        }
        // How it ended tells more than that it waits to be started again.
        let cause = last.map(death).or(message.map(clip));
        return Some(PodProblem::new(ProblemKind::Failing, reason, cause));
    }
    if let Some(terminated) = container.state.terminated.as_ref().filter(failed) {
        return Some(PodProblem::new(ProblemKind::Failing, &death(terminated), None));
    }
    let is_recent = |last: &&Terminated| match (recent_at, &last.finished_at) {
        (Some(now), Some(end)) => now.duration_since(end.0) < RECENT,
        _ => true,
    };
    let last = last.filter(is_recent);
    let restarted = last.filter(|_| !container.ready && container.state.terminated.is_none());
    restarted.map(|last| PodProblem::new(ProblemKind::Failing, "restarted", Some(death(last))))
}

/// How a container ended: its last words, and what a memory limit has to do with it.
fn death(terminated: &Terminated, container: &str, memory_limit: Option<&str>) -> String {
    let mut how = match (terminated.reason.as_deref(), memory_limit) {
        (Some("OOMKilled"), Some(limit)) => {
            format!("container {container} was OOMKilled, it needs more than its memory limit of {limit}")
        }
        (Some("OOMKilled"), None) => format!("container {container} was OOMKilled, the node ran out of memory"),
        (None | Some("Error" | "Completed"), _) => {
            format!("container {container} exited with code {}", terminated.exit_code)
        }
        (Some(reason), _) => format!("container {container} ended with {reason}"),
    };
    let message = terminated.message.as_deref().unwrap_or_default();
    if let Some(last_line) = message.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        how = format!("{how}: {}", clip(last_line));
    }
    how
}

/// Whether a container waits with this reason because of its image.
fn is_pull(reason: &str) -> bool {
    matches!(reason, "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable")
}

/// The cause in what the kubelet says of a pull, if there is one.
fn pull_cause(message: &str) -> Option<&str> {
    match message.strip_prefix("Back-off pulling image ") {
        None => Some(message),
        // Since Kubernetes 1.32 the cause is repeated after the name of the image.
        Some(rest) => rest.split_once("ErrImagePull: ").map(|(_, cause)| cause),
    }
}

/// A text on one line, with its beginning and its end when it is too long to be quoted.
pub(crate) fn clip(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    if length <= QUOTED {
        return line;
    }
    let head: String = line.chars().take(HEAD).collect();
    let tail: String = line.chars().skip(length - (QUOTED - HEAD)).collect();
    format!("{} … {}", head.trim_end(), tail.trim_start())
}

#[cfg(test)]
mod tests;
