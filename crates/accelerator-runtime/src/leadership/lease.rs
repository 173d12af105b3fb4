//! Asks the API server what the election wants to know, and tells the rest of the process whether it leads.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::election::{Election, Next, Request, Response, State};
use super::{Fence, Timing};
use crate::health::HealthHandle;
use crate::{Metrics, random};
use accelerator_process::{chain, clock};

/// How long giving the lease back may take. When it does not work, others wait for the lease to run out.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// What the last request found, so that a line is logged when that changes and not for each request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Lease,
    /// The API server says that there is no such lease.
    Nothing,
    Nobody,
}

/// Takes part in the election for one lease.
pub(crate) struct LeaderElector {
    pub api: Api<Lease>,
    pub namespace: String,
    /// Name of the lease: the program's.
    pub name: &'static str,
    pub identity: String,
    pub timing: Timing,
    pub fence: Fence,
    /// Wakes the controller's loop, which may begin to write.
    pub changed: Arc<Notify>,
    pub metrics: Metrics,
    pub health: HealthHandle,
}

impl LeaderElector {
    /// Takes part until told to stop, then gives the lease back.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut election = Election::new(self.identity.clone(), self.timing, Instant::now());
        let mut told = None;
        let mut reached = Reached::Lease;
        loop {
            self.health.beat();
            let now = Instant::now();
            match election.next(now, clock::now()) {
                Next::Ask(request) => {
                    let answer = tokio::select! {
                        answer = self.ask(&request, &mut reached) => answer,
                        () = stop.cancelled() => break,
                    };
                    election.answered(now, Instant::now(), answer, random());
                }
                Next::Wait(until) => {
                    let until = election.leads_until(now).map_or(until, |ends| ends.min(until));
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
            self.tell(&election, &mut told);
        }
        let lease = election.release(Instant::now());
        self.fence.set(None);
        if let Some(lease) = lease {
            let params = PostParams::default();
            match tokio::time::timeout(RELEASE_TIMEOUT, self.api.replace(self.name, &params, &lease)).await {
                Ok(Ok(_)) => info!(lease = self.name, "Released lease"),
                Ok(Err(error)) => warn!(lease = self.name, err = chain(&error), "Could not release lease"),
                Err(_) => warn!(lease = self.name, "Could not release lease in time"),
            }
        }
    }

    /// Sends a request and waits no longer than half of what a leader has left to renew.
    async fn ask(&self, request: &Request, reached: &mut Reached) -> Response {
        let params = PostParams::default();
        let answer = async {
            match request {
                Request::Read => self.api.get(self.name).await,
                Request::Replace(lease) => self.api.replace(self.name, &params, lease).await,
            }
        };
        let answer = tokio::time::timeout(self.timing.renew_deadline / 2, answer).await;
        let (answer, trouble) = match answer {
            Ok(Ok(lease)) => (Response::Is(lease), None),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => (Response::Absent, Some(self.remedy())),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => (Response::Conflict, None),
            Ok(Err(error)) => (Response::Failed, Some(chain(&error))),
            Err(_) => (Response::Failed, Some("no answer in time".into())),
        };
        match &trouble {
            None => self.health.synced(),
            Some(_) => self.health.failing(),
        }
        let now = match answer {
            Response::Absent => Reached::Nothing,
            Response::Failed => Reached::Nobody,
            Response::Is(_) | Response::Conflict => Reached::Lease,
        };
        let before = std::mem::replace(reached, now);
        match trouble {
            Some(err) if now == Reached::Nothing && now != before => {
                warn!(lease = self.name, err, "Lease does not exist; waiting for it");
            }
            Some(err) if now != before => warn!(lease = self.name, err, "Could not reach lease; trying again"),
            None if now != before => info!(lease = self.name, "Lease can be reached again"),
            _ => {}
        }
        answer
    }

    /// What to do when there is no lease, in the words of somebody who installs us.
    fn remedy(&self) -> String {
        let Self { name, namespace, .. } = self;
        format!(
            "there is no Lease {name} in the namespace {namespace}, and nothing is written without it: apply deploy/base/{name} or \
             what contains it, of which the Lease is a part, without namePrefix and nameSuffix; or correct --namespace"
        )
    }

    /// Opens or closes the fence; a log line and a metric when something changed.
    fn tell(&self, election: &Election, told: &mut Option<(State, String)>) {
        let now = Instant::now();
        let (state, holder) = (election.state(now), election.holder().to_owned());
        self.fence.set(election.leads_until(now));
        let previous = told.replace((state, holder.clone()));
        if previous.as_ref() == Some(&(state, holder.clone())) {
            return;
        }
        self.metrics.leading(state == State::Leader, state == State::Follower);
        match (previous.map(|(state, _)| state), state) {
            (Some(State::Leader), State::Leader) => {}
            (_, State::Leader) => info!(lease = self.name, identity = self.identity, "Leading"),
            (Some(State::Leader), _) => {
                warn!(lease = self.name, holder, "Lost lease; following, nothing is written any more");
            }
            (_, State::Follower) => info!(lease = self.name, holder, "Following"),
            (_, State::Candidate) => {}
        }
        self.changed.notify_one();
    }
}
