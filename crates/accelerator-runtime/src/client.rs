//! The client: every request has a deadline, and is counted with the bytes of its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::MapFrame;
use hyper::body::{Body, Frame};
use kube::client::{Body as RequestBody, ClientBuilder};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service};

use crate::leadership::{Fence, FenceLayer};
use crate::watch_rate_limit::WatchRateLimitLayer;
use crate::{Metrics, Options};

/// The longest that any answer may take to begin. kube has no deadline of its own: a request that the API server never
/// answers would never return. [`READ_TIMEOUT`] bounds what comes after.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection that is waited on may be silent: an answer of which the rest never comes is given up. Longer than
/// a watch lasts, which may have nothing to tell for all that time.
const READ_TIMEOUT: Duration = Duration::from_secs(200);

/// How long the API server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects by `KUBECONFIG` or `~/.kube/config` outside a cluster, by the pod's service account inside one. Nothing is
/// sent yet: an API server that is down is waited for, not an error.
pub(crate) async fn connect(options: &Options, agent: &str, metrics: Metrics, fence: Fence) -> anyhow::Result<Client> {
    let mut config = match &options.context {
        None => Config::infer().await.context("could not find a cluster; set KUBECONFIG, or run in a pod")?,
        Some(context) => {
            let chosen = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
            let config = Config::from_kubeconfig(&chosen).await;
            config.with_context(|| format!("could not use context {context:?}; see kubectl config get-contexts"))?
        }
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // A connection that was idle before is not to blame for that.
    config.reset_reader_on_write = true;
    // Its retries hide a server that answers 429 for minutes. Every loop here retries by itself and says so.
    config.default_retry = false;
    config.headers.push((http::header::USER_AGENT, agent.parse()?));
    let builder = ClientBuilder::try_from(config).context("could not set up the client")?;
    // Outermost last: what the deadline cut off is counted too, what the fence held back was never a request.
    let builder = builder.with_layer(&TimeoutLayer::new(RESPONSE_TIMEOUT)).with_layer(&CountLayer(metrics));
    Ok(builder.with_layer(&FenceLayer(fence)).with_layer(&WatchRateLimitLayer::default()).build())
}

/// Counts every request by verb and HTTP code, 0 when there was no answer, and the bytes of each answer's body as they come.
struct CountLayer(Metrics);

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count { inner, metrics: self.0.clone() }
    }
}

struct Count<S> {
    inner: S,
    metrics: Metrics,
}

/// A body that counts what comes by.
type Counted<B> = MapFrame<B, Box<dyn FnMut(Frame<<B as Body>::Data>) -> Frame<<B as Body>::Data> + Send>>;

impl<S, B> Service<Request<RequestBody>> for Count<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: Body<Data: AsRef<[u8]>>,
{
    type Response = Response<Counted<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        // kube marks each request with its verb.
        let verb = request.extensions().get::<&'static str>().copied().unwrap_or("other");
        let (answer, metrics) = (self.inner.call(request), self.metrics.clone());
        Box::pin(async move {
            let answer = answer.await;
            metrics.requested(verb, answer.as_ref().map_or(0, |response| response.status().as_u16()).to_string());
            let received = metrics.received(verb);
            let count = move |frame: Frame<B::Data>| {
                received.inc_by(frame.data_ref().map_or(0, |data| data.as_ref().len() as u64));
                frame
            };
            Ok(answer?.map(|body| body.map_frame(Box::new(count) as Box<dyn FnMut(_) -> _ + Send>)))
        })
    }
}
