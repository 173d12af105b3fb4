//! Keeps watches from being opened over and over: kube's watcher opens the next one at once when one ends well, which a
//! broken proxy or load balancer can make happen hundreds of times a second.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Uri};
use kube::client::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// The least time between two openings of the same watch.
const INTERVAL: Duration = Duration::from_secs(1);

/// When each watch may be opened next, by what is watched: path and selectors. Those that may be opened at once are not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchRateLimitLayer(Arc<Mutex<BTreeMap<String, Instant>>>);

impl<S> Layer<S> for WatchRateLimitLayer {
    type Service = WatchRateLimit<S>;

    fn layer(&self, inner: S) -> WatchRateLimit<S> {
        WatchRateLimit { inner, limit: self.clone() }
    }
}

impl WatchRateLimitLayer {
    /// How long a watch of this has to wait, if it is to be opened now.
    fn wait(&self, watched: String, now: Instant) -> Duration {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        next.retain(|_, at| *at > now);
        let at = next.get(&watched).copied().unwrap_or(now);
        next.insert(watched, at + INTERVAL);
        at - now
    }
}

/// What a request watches; `None` if it is no watch. From where on it watches does not matter: the next one is the same watch.
fn watched(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let selectors =
        query.split('&').filter(|part| part.starts_with("labelSelector=") || part.starts_with("fieldSelector="));
    query.contains("watch=true").then(|| std::iter::once(uri.path()).chain(selectors).collect::<Vec<_>>().join("&"))
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
        let wait = watched(request.uri()).map_or(Duration::ZERO, |watched| self.limit.wait(watched, Instant::now()));
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
        let wait = |what: &str, now| limit.wait(what.to_owned(), now);
        assert_eq!(wait("/nodes", now), Duration::ZERO);
        assert_eq!(wait("/nodes", now), INTERVAL);
        assert_eq!(wait("/daemonsets", now), Duration::ZERO);
        assert_eq!(wait("/nodes", now + INTERVAL * 10), Duration::ZERO);
        assert_eq!(limit.0.lock().expect("nobody panicked").len(), 1, "what may be opened at once is not kept");
    }

    /// The pods of a hundred nodes are a hundred watches of one path.
    #[test]
    fn a_watch_is_told_by_its_path_and_selectors() {
        let of = |uri: &'static str| watched(&Uri::from_static(uri));
        let pods =
            "/api/v1/pods?&watch=true&timeoutSeconds=180&fieldSelector=spec.nodeName%3Dn1&allowWatchBookmarks=true";
        let later = "/api/v1/pods?&watch=true&timeoutSeconds=180&fieldSelector=spec.nodeName%3Dn1&resourceVersion=7";
        let others = "/api/v1/pods?&watch=true&timeoutSeconds=180&fieldSelector=spec.nodeName%3Dn2&resourceVersion=7";
        assert_eq!(of(pods).as_deref(), Some("/api/v1/pods&fieldSelector=spec.nodeName%3Dn1"));
        assert_eq!(of(later), of(pods));
        assert_ne!(of(others), of(pods));
        assert_ne!(of("/api/v1/pods?&watch=true"), of(pods));
        assert_eq!(of("/api/v1/pods?&fieldSelector=spec.nodeName%3Dn1&limit=100"), None);
        assert_eq!(of("/api/v1/pods"), None);
    }
}
