//! Takes requests, harms them by rule, and sends them on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::rule::{Fault, Rule, Seen};

/// How often an open watch looks whether a rule is about it.
const LOOK: Duration = Duration::from_millis(50);

/// What all connections share.
pub(super) struct Shared {
    upstream: Client,
    pub(super) rules: Mutex<Vec<Rule>>,
    pub(super) seen: Mutex<Vec<Seen>>,
    /// The first answer to each list, by path.
    lists: Mutex<BTreeMap<String, Bytes>>,
    /// Process id of the program, for signals.
    pub(super) program: AtomicI32,
    /// The program is about to get a signal: it must not do anything else before.
    pub(super) is_doomed: AtomicBool,
    log: Mutex<std::fs::File>,
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the proxy ended the connection")]
struct Gone;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
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
    pub(super) fn new(upstream: Client, log: std::fs::File) -> Self {
        Self {
            upstream,
            rules: Mutex::default(),
            seen: Mutex::default(),
            lists: Mutex::default(),
            program: AtomicI32::new(0),
            is_doomed: AtomicBool::new(false),
            log: Mutex::new(log),
        }
    }

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
            Some(Fault::Replay) => {
                if let Some(list) = lock(&self.lists).get(request.uri().path()) {
                    return Ok(json_answer(200, list.clone()));
                }
            }
            _ => {}
        }
        let path = request.uri().path().to_owned();
        let answer = self.forward(request).await?;
        match fault {
            Some(Fault::LoseAnswer) => {
                // Read to the end: it has been carried out.
                let _ = answer.into_body().collect().await;
                return Err(Gone);
            }
            Some(Fault::DelayAnswer(time)) => tokio::time::sleep(time).await,
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
        if seen.verb == "list" && head.status.is_success() {
            let bytes = body.collect().await.map_err(|_| Gone)?.to_bytes();
            lock(&self.lists).entry(path).or_insert_with(|| bytes.clone());
            return Ok(Response::from_parts(head, full(bytes)));
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
            let mut lines = Lines::default();
            let mut look = tokio::time::interval(LOOK);
            loop {
                let fits = |rule: &Rule| rule.is_about_streams() && rule.is_about(&seen);
                let stalls = || lock(&self.rules).iter().any(|rule| fits(rule) && rule.fault == Fault::Stall);
                if stalls() {
                    return Self::stall(send).await;
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
                        Some(Ok(chunk)) => {
                            // What came while nobody looked is held back as well.
                            if stalls() {
                                return Self::stall(send).await;
                            }
                            for line in lines.take(&chunk) {
                                match self.judge(&seen, &line).await {
                                    None => {}
                                    Some(Fault::Drop) => continue,
                                    Some(Fault::Stall) => return Self::stall(send).await,
                                    Some(_) => return,
                                }
                                if send.send(Ok(Frame::data(line))).await.is_err() {
                                    return;
                                }
                            }
                        }
                        _ => return,
                    },
                    _ = look.tick() => if send.is_closed() { return },
                }
            }
        });
        StreamBody::new(receive).boxed_unsync()
    }

    /// What is to be done to an event of a watch, once a delay or a signal has been seen to.
    async fn judge(&self, seen: &Seen, line: &Bytes) -> Option<Fault> {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        let event = seen.event(event["object"]["metadata"]["name"].as_str().unwrap_or_default());
        let fault = self.take(|rule| rule.is_about(&event));
        self.note(&event, fault.as_ref());
        match fault? {
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                None
            }
            Fault::SignalBeforeAnswer(signal) => {
                self.is_doomed.store(true, Ordering::SeqCst);
                self.signal(signal);
                Some(Fault::Cut)
            }
            fault => Some(fault),
        }
    }

    /// A connection that is dead without a word, whatever becomes of the rule: until the client gives it up.
    async fn stall(send: mpsc::Sender<Result<Frame<Bytes>, kube::Error>>) {
        while !send.is_closed() {
            tokio::time::sleep(LOOK).await;
        }
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

/// Whole lines of a stream: a watch has an event in each.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Vec<Bytes> {
        self.0.extend_from_slice(chunk);
        let end = self.0.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = self.0.drain(..end).collect();
        whole.split_inclusive(|byte| *byte == b'\n').map(Bytes::copy_from_slice).collect()
    }
}

/// What an API server says with this code.
fn refusal(code: u16, retry_after: Option<u32>) -> Answer {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": "Injected", "message": format!("refused by the test with {code}")});
    let mut answer = json_answer(code, Bytes::from(status.to_string()));
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

fn json_answer(code: u16, body: Bytes) -> Answer {
    Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(full(body)).unwrap_or_default()
}

fn full(body: Bytes) -> UnsyncBoxBody<Bytes, kube::Error> {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
