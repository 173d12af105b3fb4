//! `/livez`, `/readyz` and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::health::Health;

/// What Prometheus calls the OpenMetrics text format.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long a client may take to send its request's head.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the port, so that a port in use is an error at start.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| {
        format!("could not listen on {address}; is the port taken? choose another with --admin-address, port 0 for any")
    })
}

/// Answers until the process ends.
pub(crate) async fn serve(listener: TcpListener, health: Health, registry: Arc<Registry>) -> anyhow::Result<()> {
    loop {
        // A connection that could not be accepted is the client's or the kernel's trouble and passes.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (health, registry) = (health.clone(), Arc::clone(&registry));
        let service = service_fn(move |request| {
            let response = respond(&request, &health, &registry);
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

fn respond(request: &Request<Incoming>, health: &Health, registry: &Registry) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" => verdict(&health.dead(Instant::now())),
        "/readyz" => verdict(&health.unready(Instant::now())),
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => answer(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
            }
        }
        _ => answer(StatusCode::NOT_FOUND, "text/plain", "try /livez, /readyz or /metrics\n".into()),
    }
}

fn verdict(complaints: &[String]) -> Response<Full<Bytes>> {
    if complaints.is_empty() {
        answer(StatusCode::OK, "text/plain", "ok\n".into())
    } else {
        answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", complaints.join("\n") + "\n")
    }
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
