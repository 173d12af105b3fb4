//! Writes the operand's DaemonSet. What is remembered here is only about our own writes; the cluster's state is seen anew
//! each time.

use std::time::Duration;

use accelerator_api::contract::{Component, RENDERED_ANNOTATION};
use accelerator_operand::{daemon_set_difference, last_other_writer};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::{Backoff, Metrics, RepairBackoff, random};
use accelerator_process::chain;

/// What became of a write.
#[derive(Debug)]
pub(super) enum Change {
    /// There was nothing to write.
    None,
    /// It was written: an event's reason and note.
    Done((&'static str, String)),
    /// It was written, or needs not be, but the API server keeps something else there.
    Overridden(String),
    /// Somebody else keeps changing it back; who and what. It is put right later.
    Contested(String),
    /// The API server said no, in these words. It is asked again later.
    Refused(String),
    /// The API server did not answer, or is in trouble itself. It is asked again later.
    Unanswered,
}

/// What becomes of the pods of a DaemonSet that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pods {
    End,
    RunOn,
}

pub(super) struct DaemonSetWriter {
    api: Api<DaemonSet>,
    component: &'static Component,
    name: String,
    metrics: Metrics,
    backoff: Backoff,
    failure: Option<Failure>,
    deleted: Option<Deleted>,
    settled: Option<Settled>,
    repairs: RepairBackoff,
    contested_until: Option<Instant>,
}

/// What came of our last apply. If the object differs from what we want exactly as it did right after that, the server
/// stores it in other words, or an admission policy rewrites it; applying it again at once would change nothing.
#[derive(PartialEq)]
struct Settled {
    what: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    /// Where it differed.
    difference: Option<String>,
}

/// The last write, if it failed.
struct Failure {
    /// What it tried to write; something else may be tried at once.
    what: Option<String>,
    retry_at: Instant,
    refused: Option<String>,
}

/// What somebody else did to what we wrote.
enum Undone {
    Deleted,
    /// Who changed it.
    Changed(String),
}

/// An object that we deleted, of which the watch has not told yet.
struct Deleted {
    uid: Option<String>,
    /// When to delete it again if it is still there.
    again_at: Instant,
}

impl Settled {
    fn of(live: &DaemonSet, what: Option<String>, difference: Option<String>) -> Self {
        Self { what, uid: live.uid(), generation: live.metadata.generation, difference }
    }
}

impl DaemonSetWriter {
    pub(super) fn new(api: Api<DaemonSet>, component: &'static Component, name: &str, metrics: Metrics) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        Self {
            api,
            component,
            name: name.to_owned(),
            metrics,
            backoff,
            failure: None,
            deleted: None,
            settled: None,
            repairs: RepairBackoff::default(),
            contested_until: None,
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// When a failed write is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        let failed = self.failure.as_ref().map(|failure| failure.retry_at);
        failed.or(self.contested_until).or(self.deleted.as_ref().map(|deleted| deleted.again_at))
    }

    /// There is nothing to write; what failed before is not tried again.
    pub(super) fn rest(&mut self) {
        self.backoff.succeed();
        self.failure = None;
        self.deleted = None;
        self.contested_until = None;
    }

    /// What there is to say in place of writing this, if it is not to be written now.
    pub(super) fn instead(&mut self, wanted: &DaemonSet, live: Option<&DaemonSet>, difference: &str) -> Option<Change> {
        let what = mark(wanted);
        let wait = self.repairs.wait(Instant::now().into_std()).map(Instant::from_std);
        if self.had_no_effect(live, what.clone(), difference) && wait.is_some() {
            self.rest();
            self.contested_until = wait;
            return Some(Change::Overridden(difference.into()));
        }
        if let Some(change) = self.waiting(what.as_ref()) {
            return Some(change);
        }
        let undone = self.undone(wanted, live);
        self.contested_until = undone.as_ref().and(wait);
        self.contested_until?;
        let object = object(wanted);
        Some(Change::Contested(match undone? {
            Undone::Deleted => {
                format!("DaemonSet {object} is deleted again each time; it is made again ever less often")
            }
            Undone::Changed(who) => format!("{who} keeps changing {difference} of DaemonSet {object}"),
        }))
    }

    /// Whether the object is still exactly what the API server made of our last apply.
    fn had_no_effect(&self, live: Option<&DaemonSet>, what: Option<String>, difference: &str) -> bool {
        let settled = live.map(|live| Settled::of(live, what, Some(difference.into())));
        settled.is_some() && self.settled == settled
    }

    /// What became of what we wrote, if writing it would put it right again; `None` if it never was as it should be.
    fn undone(&self, wanted: &DaemonSet, live: Option<&DaemonSet>) -> Option<Undone> {
        let what = mark(wanted);
        let was_written = self.settled.as_ref().is_some_and(|settled| settled.what == what);
        let Some(live) = live else { return was_written.then_some(Undone::Deleted) };
        (was_written || mark(live) == what).then(|| {
            Undone::Changed(last_other_writer(live, self.component.controller).unwrap_or("somebody").to_owned())
        })
    }

    /// Creates the object or brings it to this state; returns it as it is now. `difference` tells where `live` is not as
    /// `wanted`.
    pub(super) async fn apply(
        &mut self,
        wanted: &DaemonSet,
        live: Option<&DaemonSet>,
        difference: &str,
    ) -> (Change, Option<DaemonSet>) {
        if let Some(change) = self.instead(wanted, live, difference) {
            return (change, None);
        }
        let (what, undone) = (mark(wanted), self.undone(wanted, live));
        let had_no_effect = self.had_no_effect(live, what.clone(), difference);
        let params = PatchParams::apply(self.component.controller).force();
        match self.api.patch(&self.name, &params, &Patch::Apply(wanted)).await {
            Ok(applied) => {
                let object = object(wanted);
                // An API server that has fallen behind knew nothing of it, and there it was.
                let was_there = live.is_none()
                    && applied.status.as_ref().is_some_and(|status| status.observed_generation.is_some());
                let left = daemon_set_difference(&applied, wanted);
                // Something else than before is a new beginning: what an admin changes is not what somebody undoes.
                if self.settled.as_ref().is_some_and(|settled| settled.what != what) {
                    self.repairs = RepairBackoff::default();
                }
                if undone.is_some() || left.is_some() {
                    self.repairs.repaired(Instant::now().into_std(), random());
                }
                let news = match (live, undone) {
                    _ if was_there || had_no_effect => None,
                    (None, None) => Some(("Created", format!("created DaemonSet {object}"))),
                    (Some(_), None) => Some(("Updated", format!("updated DaemonSet {object}"))),
                    (_, Some(undone)) => {
                        let why = match undone {
                            Undone::Deleted => "it had been deleted".into(),
                            Undone::Changed(who) => format!("{who} had changed {difference}"),
                        };
                        Some(("Repaired", format!("repaired DaemonSet {object}: {why}")))
                    }
                };
                info!(daemonSet = object, generation = applied.metadata.generation, "Applied DaemonSet");
                self.metrics.applied(true);
                self.rest();
                // Nothing else wakes the loop: an apply that changes nothing makes no event.
                let wait = left.as_ref().and_then(|_| self.repairs.wait(Instant::now().into_std()));
                self.contested_until = wait.map(Instant::from_std);
                self.settled = Some(Settled::of(&applied, what, left.clone()));
                let change = news.map(Change::Done).or(left.map(Change::Overridden));
                (change.unwrap_or(Change::None), Some(applied))
            }
            Err(error) => (self.fail(what, &error, wanted), None),
        }
    }

    /// Removes exactly this object: if somebody made another of its name meanwhile, that one is looked at first. Its pods go
    /// with it, or run on.
    pub(super) async fn delete(&mut self, live: &DaemonSet, pods: Pods) -> Change {
        if let Some(change) = self.waiting(None) {
            return change;
        }
        let deleted = self.deleted.as_ref().filter(|deleted| deleted.uid == live.uid());
        if deleted.is_some_and(|deleted| Instant::now() < deleted.again_at) {
            return Change::None;
        }
        let was_deleted = deleted.is_some();
        let only = Preconditions { uid: live.uid(), resource_version: None };
        let params = match pods {
            Pods::End => DeleteParams::background(),
            Pods::RunOn => DeleteParams::orphan(),
        };
        let params = params.preconditions(only);
        match self.api.delete(&self.name, &params).await {
            Ok(_) => info!(daemonSet = object(live), "Deleted DaemonSet"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return self.fail(None, &error, live),
        }
        self.metrics.applied(true);
        self.failure = None;
        self.settled = None;
        self.deleted = Some(Deleted { uid: live.uid(), again_at: Instant::now() + self.backoff.fail(random()) });
        if was_deleted {
            return Change::None;
        }
        Change::Done(("Removed", format!("removed DaemonSet {}", object(live))))
    }

    /// What to say while the time to try the same again has not come.
    fn waiting(&self, what: Option<&String>) -> Option<Change> {
        let failure = self.failure.as_ref()?;
        let again = failure.what.as_ref() == what && Instant::now() < failure.retry_at;
        again.then(|| failure.refused.clone().map_or(Change::Unanswered, Change::Refused))
    }

    fn fail(&mut self, what: Option<String>, error: &kube::Error, daemon_set: &DaemonSet) -> Change {
        let refused = refusal(error);
        if self.failure.as_ref().is_none_or(|known| known.refused != refused) {
            warn!(daemonSet = object(daemon_set), err = chain(error), "Could not write DaemonSet; trying again");
        }
        self.metrics.applied(false);
        let retry_at = Instant::now() + self.backoff.fail(random());
        self.failure = Some(Failure { what, retry_at, refused: refused.clone() });
        refused.map_or(Change::Unanswered, Change::Refused)
    }
}

/// The API server's words, if it judged the request and said no. Throttling and its own trouble are no judgement.
fn refusal(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

/// The digest of what was rendered.
fn mark(daemon_set: &DaemonSet) -> Option<String> {
    daemon_set.annotations().get(RENDERED_ANNOTATION).cloned()
}

fn object(daemon_set: &DaemonSet) -> String {
    format!("{}/{}", daemon_set.namespace().unwrap_or_default(), daemon_set.name_any())
}
