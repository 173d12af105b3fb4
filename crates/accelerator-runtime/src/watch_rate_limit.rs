//! Keeps watches from being opened over and over: kube's watcher opens the next one at once when one ends well, which a
//! broken proxy or load balancer can make happen hundreds of times a second.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use kube::client::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// The least time between two openings of the same watch.
const INTERVAL: Duration = Duration::from_secs(1);

/// When each watch may be opened next, by path. There are as many as a program has watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchRateLimitLayer(Arc<Mutex<BTreeMap<String, Instant>>>);

impl<S> Layer<S> for WatchRateLimitLayer {
    type Service = WatchRateLimit<S>;

    fn layer(&self, inner: S) -> WatchRateLimit<S> {
        WatchRateLimit { inner, limit: self.clone() }
    }
}

impl WatchRateLimitLayer {
    /// How long a watch of this path has to wait, if it is to be opened now.
    fn wait(&self, path: &str, now: Instant) -> Duration {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.get(path).copied().map_or(now, |at| at.max(now));
        next.insert(path.to_owned(), at + INTERVAL);
        at - now
    }
}

pub(crate) struct WatchRateLimit<S> {
    inner: S,
    limit: WatchRateLimitLayer,
}

impl<S> Service<Request<Body>> for WatchRateLimit<S>
where
    S: Service<Request<Body>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let wait = if is_watch { self.limit.wait(request.uri().path(), Instant::now()) } else { Duration::ZERO };
        // Nothing is sent before this is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_opened_at_most_once_a_second_and_others_do_not_wait_for_it() {
        let (limit, now) = (WatchRateLimitLayer::default(), Instant::now());
        assert_eq!(limit.wait("/nodes", now), Duration::ZERO);
        assert_eq!(limit.wait("/nodes", now), INTERVAL);
        assert_eq!(limit.wait("/daemonsets", now), Duration::ZERO);
        assert_eq!(limit.wait("/nodes", now + INTERVAL * 10), Duration::ZERO);
    }
}
