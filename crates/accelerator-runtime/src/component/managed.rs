//! One DaemonSet of a component: what is written to it and what is seen of it.

use std::sync::Arc;

use accelerator_api::Reason;
use accelerator_api::contract::Component;
use accelerator_operand::{Observation, Outcome, Write};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::daemon_set::{Change, DaemonSetWriter, Pods};
use super::diagnosis::Diagnosis;
use super::rotation::Rotation;
use crate::{Metrics, Shared, Store};

/// An event about what was done: its action, reason and note.
pub(super) type News = (&'static str, &'static str, String);

/// What the DaemonSets of a component have in common.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) component: &'static Component,
    pub(super) metrics: Metrics,
    pub(super) changed: Arc<Notify>,
    pub(super) daemon_sets: Shared<Store<Arc<DaemonSet>>>,
    pub(super) rotation: Rotation,
}

pub(super) struct ManagedDaemonSet {
    name: String,
    daemon_sets: Shared<Store<Arc<DaemonSet>>>,
    writer: DaemonSetWriter,
    diagnosis: Diagnosis,
}

impl ManagedDaemonSet {
    pub(super) fn new(name: &str, context: &Context) -> Self {
        let api = Api::<DaemonSet>::namespaced(context.client.clone(), &context.namespace);
        Self {
            name: name.to_owned(),
            daemon_sets: context.daemon_sets.clone(),
            writer: DaemonSetWriter::new(api, context.component, name, context.metrics.clone()),
            diagnosis: Diagnosis::new(
                context.client.clone(),
                &context.namespace,
                name,
                Arc::clone(&context.changed),
                context.rotation.clone(),
            ),
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.writer.is_failing()
    }

    /// When to look again although nothing changes.
    pub(super) fn due_at(&self) -> Option<Instant> {
        [self.writer.retry_at(), self.diagnosis.due_at()].into_iter().flatten().min()
    }

    /// There is nothing to write and nothing to look at.
    pub(super) fn rest(&mut self) {
        self.writer.rest();
        self.diagnosis.rest();
    }

    /// This process leads no longer.
    pub(super) fn on_leadership_lost(&mut self) {
        self.writer.rest();
        self.diagnosis.forget();
    }

    /// Whether carrying this out would send a request.
    pub(super) fn would_apply(&mut self, write: &Write) -> bool {
        let live = self.live();
        match write {
            Write::Apply { wanted, difference } => self.writer.instead(wanted, live.as_deref(), difference).is_none(),
            _ => false,
        }
    }

    /// Brings the DaemonSet to its wanted state and says where it stands. `None` when there is nothing to report: the API
    /// server did not answer, which is no news about the operand.
    pub(super) async fn carry_out(&mut self, write: Write) -> (Option<Outcome>, Option<News>) {
        let live = self.live();
        let change = match write {
            Write::NameTaken(why) => {
                self.rest();
                return (Some(Outcome::Refused(Reason::NameTaken, why)), None);
            }
            Write::Apply { wanted, difference } => {
                let (change, applied) = self.writer.apply(&wanted, live.as_deref(), &difference).await;
                if let Some(applied) = applied {
                    self.daemon_sets.with(|store| store.answered(&self.name, Arc::new(applied)));
                }
                change
            }
            _ => {
                self.writer.rest();
                Change::None
            }
        };
        let (mut overridden, mut news) = (String::new(), None);
        match change {
            Change::None => {}
            Change::Overridden(what) => {
                overridden =
                    format!("; the API server keeps another {what} than was applied, as an admission policy may");
            }
            Change::Done((reason, note)) => news = Some(("Apply", reason, note)),
            Change::Contested(why) => return (Some(Outcome::Refused(Reason::Contested, why)), None),
            Change::Refused(why) => return (Some(Outcome::Refused(Reason::ApplyFailed, why)), None),
            Change::Unanswered => return (None, None),
        }
        (self.observe(&overridden), news)
    }

    /// Removes the DaemonSet; `why` nobody wants it. `None` when the API server did not answer.
    pub(super) async fn remove(&mut self, live: &DaemonSet, pods: Pods, why: &str) -> (Option<Outcome>, Option<News>) {
        self.diagnosis.rest();
        let gone = Some(Outcome::Disabled(why.to_owned()));
        match self.writer.delete(live, pods).await {
            Change::Done((reason, note)) => (gone, Some(("Delete", reason, note))),
            Change::Contested(why) => (Some(Outcome::Refused(Reason::Contested, why)), None),
            Change::Refused(why) => (Some(Outcome::Refused(Reason::ApplyFailed, why)), None),
            Change::Unanswered => (None, None),
            // The watch will tell that it is gone.
            Change::None | Change::Overridden(_) => (gone, None),
        }
    }

    fn observe(&mut self, overridden: &str) -> Option<Outcome> {
        let live = self.live()?;
        let observation = self.diagnosis.observe(&live, Instant::now())?;
        let message = observation.message + overridden;
        Some(Outcome::Observed(Observation { message, ..observation }))
    }

    fn live(&self) -> Option<Arc<DaemonSet>> {
        self.daemon_sets.with(|store| store.get(&self.name).cloned())
    }
}
