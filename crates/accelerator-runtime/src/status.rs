//! Writes our entries of an AcceleratorConfig's status: server-side apply, at most once a second.

use std::time::Duration;

use accelerator_api::{AcceleratorConfig, ObservedConfig, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::token_bucket::TokenBucket;
use crate::{Backoff, EventRequest, Events, random};
use accelerator_process::chain;

/// The shortest time between two writes, however fast things change.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two writes that only change numbers, as those of a rollout that goes on: each costs the API
/// server and everybody who watches.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Writes: so many at once, then one per [`REFILL`], so that a cluster in which something always changes is not written
/// about all the time. An edit of the AcceleratorConfig fills the bucket: somebody waits for what becomes of it.
const BURST: u32 = 12;
const REFILL: Duration = Duration::from_secs(6);

/// How long until an installed CRD that is too old is tried again.
const CRD_TOO_OLD_RETRY: Duration = Duration::from_secs(30);

/// How soon something has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It takes back that something is ready, and does not wait for its turn. What it takes back was told at the usual
    /// pace, so that there are at most two writes a second.
    Retract,
    /// A condition is about another spec.
    Edit,
    /// A condition has another status or reason.
    Transition,
    /// Other numbers or words, the same verdict.
    Progress,
}

impl Urgency {
    /// Of telling `new` where `old` was told last.
    #[must_use]
    pub fn of(old: Option<&Condition>, new: &Condition) -> Self {
        match old {
            Some(old) if old.observed_generation != new.observed_generation => Self::Edit,
            Some(old) if (&old.status, &old.reason) == (&new.status, &new.reason) => Self::Progress,
            _ => Self::Transition,
        }
    }
}

/// What became of a status write.
#[derive(Debug)]
pub enum StatusWrite {
    /// The object as it is now.
    Applied(Box<ObservedConfig>),
    /// The API server knows no such object. Whether it was deleted is for the watch to say.
    NotFound,
    /// Not now: try again no earlier than [`StatusWriter::ready_at`].
    Deferred,
}

/// Writes under one field manager, so that what is no longer sent is removed and what others wrote stays.
#[derive(Debug)]
pub struct StatusWriter {
    api: Api<ObservedConfig>,
    manager: &'static str,
    events: Events,
    backoff: Backoff,
    is_trouble_told: bool,
    /// When the last write was.
    written_at: Option<Instant>,
    bucket: TokenBucket,
    /// The generation that was written about last.
    generation: Option<i64>,
    /// No write before.
    blocked_until: Instant,
    crd_too_old: bool,
}

impl StatusWriter {
    /// A writer for `manager`, which is the program's name.
    #[must_use]
    pub fn new(client: Client, manager: &'static str, events: Events) -> Self {
        Self {
            api: Api::all(client),
            manager,
            events,
            backoff: Backoff::new(MIN_INTERVAL, Duration::from_mins(1)),
            is_trouble_told: false,
            written_at: None,
            bucket: TokenBucket::full(BURST, REFILL, Instant::now()),
            generation: None,
            blocked_until: Instant::now(),
            crd_too_old: false,
        }
    }

    /// The earliest time of the next write.
    #[must_use]
    pub fn ready_at(&self, urgency: Urgency) -> Instant {
        let interval = match urgency {
            Urgency::Retract => Duration::ZERO,
            Urgency::Edit | Urgency::Transition => MIN_INTERVAL,
            Urgency::Progress => PROGRESS_INTERVAL,
        };
        let ready = self.written_at.map_or(self.blocked_until, |at| self.blocked_until.max(at + interval));
        match urgency {
            Urgency::Retract | Urgency::Edit => ready,
            Urgency::Transition | Urgency::Progress => ready.max(self.bucket.ready_at()),
        }
    }

    /// There is nothing to write, perhaps because a write was carried out of which no answer came.
    pub fn up_to_date(&mut self) {
        // That what an old CRD refuses is not asked for at the moment does not end that trouble.
        if !self.crd_too_old {
            self.recovered();
        }
    }

    fn recovered(&mut self) {
        self.backoff.succeed();
        if std::mem::take(&mut self.crd_too_old) | std::mem::take(&mut self.is_trouble_told) {
            info!("Status is up to date again");
        }
    }

    /// Writes `status` as the whole of what this program says about the object.
    pub async fn write(&mut self, config: &ObservedConfig, status: &Value) -> StatusWrite {
        let name = config.name_any();
        // Not the typed object: it would claim the spec as well.
        let body = json!({
            "apiVersion": AcceleratorConfig::api_version(&()),
            "kind": AcceleratorConfig::kind(&()),
            "metadata": {"name": name},
            "status": status,
        });
        let params = PatchParams::apply(self.manager).force();
        let answer = self.api.patch_status(&name, &params, &Patch::Apply(&body)).await;
        let now = Instant::now();
        self.written_at = Some(now);
        if std::mem::replace(&mut self.generation, config.metadata.generation) == config.metadata.generation {
            self.bucket.take(now);
        } else {
            self.bucket = TokenBucket::full(BURST, REFILL, now);
        }
        match answer {
            Ok(config) => {
                self.recovered();
                StatusWrite::Applied(Box::new(config))
            }
            // If it was deleted, the watch will say so; until then it may still be there.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.blocked_until = Instant::now() + self.backoff.fail(random());
                StatusWrite::NotFound
            }
            Err(kube::Error::Api(status)) if is_crd_too_old(&status.message) => {
                if !self.crd_too_old {
                    self.tell_crd_too_old(config, &status.message);
                }
                self.crd_too_old = true;
                self.blocked_until = Instant::now() + CRD_TOO_OLD_RETRY;
                StatusWrite::Deferred
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_trouble_told, true) {
                    warn!(acceleratorConfig = name, err = chain(&error), "Could not write status; trying again");
                }
                self.blocked_until = Instant::now() + self.backoff.fail(random());
                StatusWrite::Deferred
            }
        }
    }

    /// It cannot be said in the status, so it is said in the log and in an event.
    fn tell_crd_too_old(&self, config: &ObservedConfig, message: &str) {
        let reason = Reason::CrdTooOld;
        let remedy = "install the CRD of this release: kubectl apply --server-side -k deploy/crds";
        warn!(
            acceleratorConfig = config.name_any(),
            reason = reason.as_str(),
            err = message,
            "The installed CRD does not know the status of this version; {remedy}"
        );
        self.events.publish(EventRequest {
            regarding: config.object_ref(&()),
            warning: reason.is_warning(),
            reason: reason.as_str(),
            action: "Report",
            note: format!("{} cannot report its status: {message}; {remedy}", self.manager),
        });
    }
}

/// The API server answers 500 with these words to a field that the CRD does not declare.
fn is_crd_too_old(message: &str) -> bool {
    message.contains("field not declared in schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use accelerator_operand::condition;

    #[test]
    fn other_numbers_are_progress_and_another_verdict_is_news() {
        let now = accelerator_process::clock::now();
        let told = |reason, message: &str, generation| condition(None, "X", reason, message, Some(generation), now);
        let old = told(Reason::RolloutInProgress, "1 of 2", 1);
        assert_eq!(Urgency::of(Some(&old), &told(Reason::RolloutInProgress, "2 of 2", 1)), Urgency::Progress);
        assert_eq!(Urgency::of(Some(&old), &told(Reason::PodsNotReady, "1 of 2", 1)), Urgency::Transition);
        assert_eq!(Urgency::of(Some(&old), &told(Reason::RolloutInProgress, "1 of 2", 2)), Urgency::Edit);
        assert_eq!(Urgency::of(None, &old), Urgency::Transition);
    }

    #[test]
    fn a_cluster_that_always_changes_is_written_about_now_and_then() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(BURST, REFILL, start);
        let mut writes = 0;
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            if bucket.ready_at() <= now {
                bucket.take(now);
                writes += 1;
            }
        }
        assert_eq!(writes, BURST + 120 / 6 - 1);
    }
}
