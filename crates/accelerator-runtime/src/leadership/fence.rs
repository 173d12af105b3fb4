//! Keeps a process that does not lead from writing to the cluster.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request};
use kube::client::Body;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// Until when this process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Always,
    Until(Instant),
    No,
}

/// Open while we lead.
#[derive(Clone, Debug)]
pub(crate) struct Fence(watch::Sender<Open>);

/// A write was not sent, or not waited for, because this process does not lead (any more).
#[derive(Debug, thiserror::Error)]
#[error("this replica does not lead; the one that does will do it")]
struct NotLeading;

impl Fence {
    /// Open for good: there is no election.
    pub(crate) fn open() -> Self {
        Self(watch::Sender::new(Open::Always))
    }

    /// Closed until told otherwise.
    pub(crate) fn closed() -> Self {
        Self(watch::Sender::new(Open::No))
    }

    /// Opens it until then, or closes it.
    pub(crate) fn set(&self, until: Option<Instant>) {
        self.0.send_replace(until.map_or(Open::No, Open::Until));
    }

    /// Whether this process may write now.
    pub(crate) fn is_open(&self) -> bool {
        match *self.0.borrow() {
            Open::Always => true,
            Open::Until(until) => until > Instant::now(),
            Open::No => false,
        }
    }

    /// Returns when it closes.
    async fn until_closed(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let open = *changes.borrow_and_update();
            match open {
                Open::Always => return std::future::pending().await,
                Open::Until(until) if until > Instant::now() => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        _ = changes.changed() => {}
                    }
                }
                Open::Until(_) | Open::No => return,
            }
        }
    }
}

/// Lets only reads, and what concerns the lease itself, through a closed fence; and gives up a write under way when the
/// fence closes, so that nobody acts on an answer that comes later.
pub(crate) struct FenceLayer(pub(crate) Fence);

impl<S> Layer<S> for FenceLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Fenced<S> {
        Fenced { inner, fence: self.0.clone() }
    }
}

pub(crate) struct Fenced<S> {
    inner: S,
    fence: Fence,
}

impl<S, R> Service<Request<Body>> for Fenced<S>
where
    S: Service<Request<Body>, Response = R, Error = BoxError>,
    S::Future: Send + 'static,
    R: 'static,
{
    type Response = R;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<R, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let passes = request.method() == Method::GET || request.uri().path().starts_with("/apis/coordination.k8s.io/");
        if !passes && !self.fence.is_open() {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let answer = self.inner.call(request);
        if passes {
            return Box::pin(answer);
        }
        let fence = self.fence.clone();
        Box::pin(async move {
            tokio::select! {
                answer = answer => answer,
                () = fence.until_closed() => Err(NotLeading.into()),
            }
        })
    }
}
