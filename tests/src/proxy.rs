//! A proxy between one program and the API server that sees every request and does harm by rule.
//!
//! It speaks TLS on both sides and passes the program's token through, so that rights and the audit log stay true.

mod rule;
mod serve;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use kube::{Client, Config};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

pub use self::rule::{Fault, Rule, Seen};
use self::serve::{Shared, lock, serve};
use crate::kubeconfig;

/// The proxy. Dropping it ends every connection.
pub struct Proxy {
    /// How to reach it, as in a kubeconfig.
    pub entry: Value,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
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
                    let shared = Shared::new(Client::try_from(config)?, log);
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
