//! A small HTTP server for `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What Prometheus calls the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a client may take to send its request's head.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer to a GET.
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    text: String,
}

impl Answer {
    /// All is well.
    #[must_use]
    pub fn ok(text: &str) -> Self {
        Self::line(StatusCode::OK, text)
    }

    /// It is not, with the reason.
    #[must_use]
    pub fn unavailable(text: &str) -> Self {
        Self::line(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// There is nothing at this path.
    #[must_use]
    pub fn not_found() -> Self {
        Self::line(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics")
    }

    fn line(status: StatusCode, text: &str) -> Self {
        Self { status, content_type: "text/plain", text: format!("{text}\n") }
    }
}

/// Every metric of a registry.
#[must_use]
pub fn metrics(registry: &Registry) -> Answer {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => Answer { status: StatusCode::OK, content_type: OPEN_METRICS, text },
        Err(error) => Answer::line(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Opens the port, so that a port in use is an error at start. `0.0.0.0` means every address of both families: in a cluster
/// of IPv6 alone the kubelet would find nobody there otherwise.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    if address.ip() == Ipv4Addr::UNSPECIFIED {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
        // Unless the kernel knows no IPv6.
        if let Ok(listener) = TcpListener::bind(both).await {
            return Ok(listener);
        }
    }
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| {
        format!("could not listen on {address}; is the port taken? choose another with --admin-address, port 0 for any")
    })
}

/// Answers until the process ends: `answer` gets the path.
pub async fn serve(
    listener: TcpListener,
    answer: impl Fn(&str) -> Answer + Clone + Send + 'static,
) -> anyhow::Result<()> {
    loop {
        // A connection that could not be accepted is the client's or the kernel's trouble and passes.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = respond(answer(request.uri().path()));
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // A client that hangs up early is no news.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn respond(Answer { status, content_type, text }: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
