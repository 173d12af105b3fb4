//! The rules, as a state machine: times and answers are arguments, requests are results.
//!
//! - Whether a lease has run out is judged by our own monotonic clock, from when *we* saw it change. What another
//!   process's clock wrote into it is for people.
//! - Every write is a compare-and-swap: it names the version that it replaces.
//! - We lead from before the request left that took or renewed the lease, and no longer than the renew deadline from
//!   then. Others wait for the whole lease duration from when they see the same write, which is later. So we have stopped
//!   before anybody else can begin, by the difference of the two.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

/// How long things take. Valid when `lease > renew_deadline > retry * JITTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long others wait before they take a lease that is not renewed.
    pub lease: Duration,
    /// How long a leader that cannot renew goes on.
    pub renew_deadline: Duration,
    /// How often everybody looks.
    pub retry: Duration,
}

/// A follower waits up to this many retry periods, so that followers do not all ask at once.
pub(crate) const JITTER: f64 = 1.2;

/// What to send.
#[allow(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Read,
    /// Replace the version that the lease names.
    Replace(Lease),
}

/// What to do next.
#[allow(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    Ask(Request),
    Wait(Instant),
}

/// What came back for a [`Request`].
#[allow(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Response {
    /// The lease as it is, read or written.
    Is(Lease),
    /// There is none.
    Absent,
    /// Somebody else was faster.
    Conflict,
    /// No answer, or none that says anything about the lease. A write may have happened.
    Failed,
}

/// What we are, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// We may write.
    Leader,
    /// Somebody else may.
    Follower,
    /// No leader is known; this process tries to become it.
    Candidate,
}

/// One candidate.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    timing: Timing,
    /// The lease as we last saw it, and since when it has been like that.
    seen: Option<(Lease, Instant)>,
    /// Whether `seen` is all that is known. If not, a write would be a guess.
    is_current: bool,
    /// When the last request left that made us leader or kept us so.
    renewed: Option<Instant>,
    /// What is being asked.
    asking: Option<Request>,
    not_before: Instant,
}

impl Election {
    pub(crate) fn new(identity: String, timing: Timing, now: Instant) -> Self {
        Self { identity, timing, seen: None, is_current: false, renewed: None, asking: None, not_before: now }
    }

    /// Until when we lead, if we do.
    pub(crate) fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.renew_deadline).filter(|until| *until > now)
    }

    /// What we are.
    pub(crate) fn state(&self, now: Instant) -> State {
        match &self.seen {
            _ if self.leads_until(now).is_some() => State::Leader,
            Some(_) if !self.is_free(now) => State::Follower,
            _ => State::Candidate,
        }
    }

    /// Who holds the lease, as we last saw it.
    pub(crate) fn holder(&self) -> &str {
        self.seen.as_ref().map(|(lease, _)| holder(lease)).unwrap_or_default()
    }

    /// What to do. `wall` is what people read in the lease.
    pub(crate) fn next(&mut self, now: Instant, wall: Timestamp) -> Next {
        if now < self.not_before {
            return Next::Wait(self.not_before);
        }
        let request = match &self.seen {
            Some((lease, _)) if self.is_current && self.is_free(now) => Request::Replace(self.taken(lease, wall)),
            _ => Request::Read,
        };
        self.asking = Some(request.clone());
        Next::Ask(request)
    }

    /// Takes the answer to what [`Self::next`] asked at `asked`. `random` is between 0 and 1.
    pub(crate) fn answered(&mut self, asked: Instant, now: Instant, answer: Response, random: f64) {
        let wrote = !matches!(self.asking.take(), None | Some(Request::Read));
        let later = now + self.timing.retry.mul_f64(1.0 + (JITTER - 1.0) * random.clamp(0.0, 1.0));
        match answer {
            Response::Is(lease) if wrote => {
                self.seen = Some((lease, asked));
                self.is_current = true;
                self.renewed = Some(asked);
                self.not_before = asked + self.timing.retry;
            }
            Response::Is(lease) => {
                self.see(lease, now);
                self.not_before = if self.is_free(now) { now } else { later };
            }
            // Whoever installs us makes it.
            Response::Absent => {
                self.is_current = false;
                self.seen = None;
                self.renewed = None;
                self.not_before = later;
            }
            // Whoever was faster holds it now. We, if that was a write of ours whose answer got lost.
            Response::Conflict => {
                self.is_current = false;
                self.not_before = if self.renewed.is_some() { now } else { later };
            }
            Response::Failed => {
                self.is_current = false;
                self.not_before = later;
            }
        }
    }

    /// Stops leading. The lease to write so that others need not wait, if it is still ours.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Lease> {
        let leads = self.leads_until(now).is_some();
        self.renewed = None;
        let (lease, _) = self.seen.as_ref().filter(|_| leads && self.is_current)?;
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        Some(lease)
    }

    fn see(&mut self, lease: Lease, now: Instant) {
        let unchanged = self.seen.as_ref().filter(|(seen, _)| seen.resource_version() == lease.resource_version());
        let since = unchanged.map_or(now, |(_, since)| *since);
        if holder(&lease) != self.identity {
            self.renewed = None;
        }
        self.seen = Some((lease, since));
        self.is_current = true;
    }

    /// Whether we may take what we saw.
    fn is_free(&self, now: Instant) -> bool {
        let Some((lease, since)) = &self.seen else { return true };
        let holder = holder(lease);
        // The holder knows how long it counts on others to wait; our own option says nothing about it.
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let lasts =
            seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(self.timing.lease, Duration::from_secs);
        holder.is_empty() || holder == self.identity || *since + lasts <= now
    }

    /// The lease with us as its holder.
    fn taken(&self, lease: &Lease, wall: Timestamp) -> Lease {
        let mut taken = lease.clone();
        let spec = taken.spec.get_or_insert_with(LeaseSpec::default);
        let is_ours = spec.holder_identity.as_ref() == Some(&self.identity);
        if !is_ours {
            spec.acquire_time = Some(MicroTime(wall));
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.renew_time = Some(MicroTime(wall));
        // Whole seconds, rounded up: others must never wait less than we count on.
        let seconds = self.timing.lease.as_millis().div_ceil(1000);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        taken
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
