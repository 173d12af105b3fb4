//! A proxy between one program and the API server that sees every request and does harm by rule.
//!
//! It speaks TLS on both sides and passes the program's token through, so that rights and the audit log stay true.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::kubeconfig;

/// How often an open watch looks whether a rule is about it.
const LOOK: Duration = Duration::from_millis(50);

/// What is done to a request, or to an open watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// It is sent on after a while.
    Delay(Duration),
    /// It is never answered.
    Hang,
    /// The connection ends before it is sent on.
    Drop,
    /// It is refused with this code, and `Retry-After` in seconds.
    Refuse(u16, Option<u32>),
    /// It is carried out, and the connection ends before the answer.
    LoseAnswer,
    /// It is carried out, and the program gets a signal before the answer.
    SignalBeforeAnswer(Signal),
    /// It is carried out and answered, and the program gets a signal before it can send anything else.
    SignalAfterAnswer(Signal),
    /// An open watch ends.
    Cut,
    /// An open watch says nothing any more.
    Stall,
    /// An open watch is told that its version is too old.
    Expire,
}

/// Which requests, and what is done to them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `patch`, `list`, `watch`, …; `write` is any that changes something, `*` is any.
    pub verb: &'static str,
    /// `nodes`, `daemonsets`, `acceleratorconfigs/status`, …; `*` is any.
    pub resource: &'static str,
    /// Requests of this kind that are left alone first.
    pub skip: usize,
    /// Requests that are hit then.
    pub times: usize,
    /// What is done.
    pub fault: Fault,
}

impl Rule {
    /// Every request of a kind, until the rule is taken away.
    #[must_use]
    pub const fn every(verb: &'static str, resource: &'static str, fault: Fault) -> Self {
        Self { verb, resource, skip: 0, times: usize::MAX, fault }
    }

    /// The n-th request of a kind from now, counted from 1.
    #[must_use]
    pub const fn nth(n: usize, verb: &'static str, resource: &'static str, fault: Fault) -> Self {
        Self { verb, resource, skip: n.saturating_sub(1), times: 1, fault }
    }

    fn is_about(&self, seen: &Seen) -> bool {
        let verb = match self.verb {
            "*" => true,
            "write" => seen.is_write(),
            verb => verb == seen.verb,
        };
        verb && (self.resource == "*" || self.resource == seen.resource)
    }

    fn is_about_streams(&self) -> bool {
        matches!(self.fault, Fault::Cut | Fault::Stall | Fault::Expire)
    }
}

/// A request that came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As RBAC names it.
    pub verb: &'static str,
    /// With its subresource.
    pub resource: String,
    /// The object, if it is about one.
    pub name: String,
}

impl Seen {
    fn of(request: &Request<Incoming>) -> Self {
        let mut parts = request.uri().path().split('/').filter(|part| !part.is_empty()).skip(1).peekable();
        // Past the group and the version, or the version alone.
        if request.uri().path().starts_with("/apis/") {
            parts.next();
        }
        parts.next();
        let mut rest: Vec<_> = parts.collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let resource = [rest.first(), rest.get(2)].into_iter().flatten().copied().collect::<Vec<_>>().join("/");
        let query = request.uri().query().unwrap_or_default();
        let verb = match *request.method() {
            Method::GET if query.contains("watch=true") || query.contains("watch=1") => "watch",
            Method::GET if name.is_empty() || query.contains("limit=") => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            _ => "delete",
        };
        Self { verb, resource, name }
    }

    /// Whether it changes the cluster. Leases and events are talk.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch") && !matches!(self.resource.as_str(), "leases" | "events")
    }
}

/// The proxy. Dropping it ends every connection.
pub struct Proxy {
    /// How to reach it, as in a kubeconfig.
    pub entry: Value,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    upstream: Client,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    /// Process id of the program, for signals.
    program: AtomicI32,
    /// The program is about to get a signal: it must not do anything else before.
    is_doomed: AtomicBool,
    log: Mutex<std::fs::File>,
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the proxy ended the connection")]
struct Gone;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts a proxy for the control plane in this folder, on a free port, with a thread of its own: tests block theirs.
    pub fn start(upstream: &Value, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let server = upstream["server"].as_str().context("an entry without a server")?;
        let authority = folder.join("ca.crt");
        let mut config = Config::new(server.parse()?);
        config.root_cert = Some(
            CertificateDer::pem_file_iter(&authority)?.map(|one| Ok(one?.to_vec())).collect::<anyhow::Result<_>>()?,
        );
        config.default_retry = false;
        let log = std::fs::File::create(folder.join(format!("proxy.{name}.log")))?;
        let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(
            CertificateDer::pem_file_iter(folder.join("apiserver.crt"))?.collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_file(folder.join("apiserver.key"))?,
        )?;
        let stop = CancellationToken::new();
        let (ready, started) = std::sync::mpsc::channel::<anyhow::Result<(SocketAddr, Arc<Shared>)>>();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            runtime.block_on(async {
                let opened = async {
                    let shared = Shared {
                        upstream: Client::try_from(config)?,
                        rules: Mutex::default(),
                        seen: Mutex::default(),
                        program: AtomicI32::new(0),
                        is_doomed: AtomicBool::new(false),
                        log: Mutex::new(log),
                    };
                    let listener = TcpListener::bind("127.0.0.1:0").await?;
                    anyhow::Ok((listener.local_addr()?, listener, Arc::new(shared)))
                };
                match opened.await {
                    Err(error) => drop(ready.send(Err(error))),
                    Ok((address, listener, shared)) => {
                        let _ = ready.send(Ok((address, Arc::clone(&shared))));
                        tokio::select! {
                            () = serve(listener, TlsAcceptor::from(Arc::new(tls)), shared) => {}
                            () = stopped.cancelled() => {}
                        }
                    }
                }
            });
        });
        let (address, shared) = started.recv().context("the proxy did not start")??;
        let entry = kubeconfig::entry(&format!("https://{address}"), &authority);
        Ok(Self { entry, shared, stop, thread: Some(thread) })
    }

    /// Puts these rules in place of the ones before. The first that fits a request is the one.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        *lock(&self.shared.rules) = rules.into_iter().collect();
    }

    /// Lets everything through.
    pub fn heal(&self) {
        self.set([]);
    }

    /// Says who gets signals, and lets it send requests.
    pub fn aim(&self, process: u32) {
        self.shared.program.store(i32::try_from(process).unwrap_or(0), Ordering::SeqCst);
        self.shared.is_doomed.store(false, Ordering::SeqCst);
    }

    /// What came by so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.handle(request).await }
            });
            // A client that hangs up is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Shared {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Gone> {
        let seen = Seen::of(&request);
        if self.is_doomed.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        lock(&self.seen).push(seen.clone());
        let fault = self.take(|rule| !rule.is_about_streams() && rule.is_about(&seen));
        self.note(&seen, fault.as_ref());
        match &fault {
            Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::Drop) => return Err(Gone),
            Some(Fault::Refuse(code, retry_after)) => return Ok(refusal(*code, *retry_after)),
            _ => {}
        }
        let answer = self.forward(request).await?;
        match fault {
            Some(Fault::LoseAnswer) => {
                // Read to the end: it has been carried out.
                let _ = answer.into_body().collect().await;
                return Err(Gone);
            }
            Some(Fault::SignalBeforeAnswer(signal)) => {
                let _ = answer.into_body().collect().await;
                self.is_doomed.store(true, Ordering::SeqCst);
                self.signal(signal);
                return Err(Gone);
            }
            Some(Fault::SignalAfterAnswer(signal)) => {
                self.is_doomed.store(true, Ordering::SeqCst);
                let this = Arc::clone(&self);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    this.signal(signal);
                });
            }
            _ => {}
        }
        let (head, body) = answer.into_parts();
        if seen.verb == "watch" {
            return Ok(Response::from_parts(head, self.watched(seen, body)));
        }
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Gone> {
        let (mut head, body) = request.into_parts();
        head.headers.remove(http::header::HOST);
        let body = body.collect().await.map_err(|_| Gone)?.to_bytes();
        self.upstream.send(Request::from_parts(head, Body::from(body.to_vec()))).await.map_err(|_| Gone)
    }

    /// The events of a watch, until a rule says otherwise.
    fn watched(self: Arc<Self>, seen: Seen, body: Body) -> UnsyncBoxBody<Bytes, kube::Error> {
        let (mut send, receive) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut chunks = body.into_data_stream();
            let mut look = tokio::time::interval(LOOK);
            loop {
                let fits = |rule: &Rule| rule.is_about_streams() && rule.is_about(&seen);
                let stalls = lock(&self.rules).iter().any(|rule| fits(rule) && rule.fault == Fault::Stall);
                if stalls {
                    look.tick().await;
                    continue;
                }
                if let Some(fault) = self.take(fits) {
                    self.note(&seen, Some(&fault));
                    if fault == Fault::Expire {
                        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "reason": "Expired", "code": 410, "message": "too old resource version"});
                        let event = format!("{}\n", json!({"type": "ERROR", "object": status}));
                        let _ = send.send(Ok(Frame::data(Bytes::from(event)))).await;
                    }
                    return;
                }
                tokio::select! {
                    chunk = chunks.next() => match chunk {
                        Some(Ok(chunk)) => if send.send(Ok(Frame::data(chunk))).await.is_err() { return },
                        _ => return,
                    },
                    _ = look.tick() => if send.is_closed() { return },
                }
            }
        });
        StreamBody::new(receive).boxed_unsync()
    }

    /// The fault of the first rule that fits, which counts it.
    fn take(&self, fits: impl Fn(&Rule) -> bool) -> Option<Fault> {
        for rule in lock(&self.rules).iter_mut().filter(|rule| fits(rule)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= usize::from(rule.times < usize::MAX);
                return Some(rule.fault.clone());
            }
        }
        None
    }

    fn signal(&self, signal: Signal) {
        if let Some(program) = Pid::from_raw(self.program.load(Ordering::SeqCst)) {
            let _ = kill_process(program, signal);
        }
    }

    fn note(&self, seen: &Seen, fault: Option<&Fault>) {
        let mut line = format!("{} {} {}", seen.verb, seen.resource, seen.name);
        if let Some(fault) = fault {
            let _ = write!(line, " ! {fault:?}");
        }
        let _ = std::io::Write::write_all(&mut *lock(&self.log), (line + "\n").as_bytes());
    }
}

/// What an API server says with this code.
fn refusal(code: u16, retry_after: Option<u32>) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": "Injected", "message": format!("refused by the test with {code}")});
    let mut response = Response::builder().status(code);
    if let Some(seconds) = retry_after {
        response = response.header(http::header::RETRY_AFTER, seconds);
    }
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never: Infallible| match never {});
    response.header(http::header::CONTENT_TYPE, "application/json").body(body.boxed_unsync()).unwrap_or_default()
}
