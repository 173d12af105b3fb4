//! A registry that nobody can pull from: it answers everything with the same status, as one that wants credentials (401) or
//! does not have the image (404).

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use testbed::HOST;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    /// Where nodes reach it.
    pub url: String,
    server: JoinHandle<()>,
}

impl Registry {
    /// Starts one on a free port of every address of this machine.
    pub async fn start(status: StatusCode) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        let url = format!("http://{HOST}:{}", listener.local_addr()?.port());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(move |_: Request<Incoming>| async move { Ok::<_, Infallible>(refuse(status)) });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Ok(Self { url, server })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Source: OCI Distribution Specification, error codes.
fn refuse(status: StatusCode) -> Response<Full<Bytes>> {
    let code = if status == StatusCode::NOT_FOUND { "MANIFEST_UNKNOWN" } else { "UNAUTHORIZED" };
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"refused by the test bed"}}]}}"#);
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
