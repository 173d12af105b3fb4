//! One request after another, counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use kube::api::{GetParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::args::Access;
use crate::facts::{Facts, Kind, Unread};

/// Objects a page: 5,000 nodes are five pages. A page of nodes is some ten megabytes for as long as it is read.
const PAGE: u32 = 1000;

/// The most objects of a list that is only good to find causes in, such as events.
const MOST: usize = 5000;

/// How long the API server may take to accept a connection, and to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// Connects as the command line says.
pub async fn connect(access: &Access) -> anyhow::Result<Client> {
    let chosen = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let mut config = match (&access.kubeconfig, &access.context) {
        (Some(file), _) => {
            let kubeconfig =
                Kubeconfig::read_from(file).with_context(|| format!("could not read {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &chosen).await.context("could not use the kubeconfig")?
        }
        (None, Some(context)) => Config::from_kubeconfig(&chosen)
            .await
            .with_context(|| format!("could not use context {context:?}; see kubectl config get-contexts"))?,
        (None, None) => Config::infer().await.context("could not find a cluster; set KUBECONFIG or --kubeconfig")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let agent = concat!("kubectl-accelerator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, agent.parse()?));
    Client::try_from(config).context("could not set up the client")
}

/// Reads from a cluster.
pub struct Reader {
    client: Client,
    has_answered: AtomicBool,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    r#continue: Option<String>,
}

impl Reader {
    /// Reads with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, has_answered: AtomicBool::new(false) }
    }

    /// Whether the API server has ever answered a list.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// Every object of a list.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        params: ListParams,
    ) -> Result<Vec<T>, kube::Error> {
        self.list_up_to(path, params, usize::MAX).await
    }

    /// The first few thousand objects of a list.
    pub(super) async fn some<T: DeserializeOwned>(
        &self,
        path: &str,
        params: ListParams,
    ) -> Result<Vec<T>, kube::Error> {
        self.list_up_to(path, params, MOST).await
    }

    async fn list_up_to<T: DeserializeOwned>(
        &self,
        path: &str,
        params: ListParams,
        most: usize,
    ) -> Result<Vec<T>, kube::Error> {
        let mut all = vec![];
        let mut params = params.limit(PAGE);
        loop {
            let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
            let page: Page<T> = match self.client.request(request).await {
                // A list that took longer than the API server remembers begins anew.
                Err(kube::Error::Api(status)) if status.code == 410 && params.continue_token.is_some() => {
                    all.clear();
                    params.continue_token = None;
                    continue;
                }
                answer => answer?,
            };
            self.has_answered.store(true, Ordering::Relaxed);
            all.extend(page.items);
            match page.metadata.r#continue.filter(|token| !token.is_empty()) {
                Some(token) if all.len() < most => params.continue_token = Some(token),
                _ => return Ok(all),
            }
        }
    }

    /// One object; `None` when there is no such.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, name: &str) -> Result<Option<T>, kube::Error> {
        let request = Request::new(path).get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        match self.client.request(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a path answers, as text.
    pub async fn text(&self, path: &str) -> Result<String, kube::Error> {
        let request = http::Request::get(path).body(vec![]).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }
}

/// Takes an answer over. What the API server refuses to show is noted and does not end the rest; that it does not answer does.
pub(super) fn take<T: Default>(facts: &mut Facts, kind: Kind, answer: Result<T, kube::Error>) -> anyhow::Result<T> {
    match answer {
        Ok(value) => {
            facts.read.insert(kind);
            Ok(value)
        }
        // The API server does not know the kind: there is none.
        Err(kube::Error::Api(status)) if status.code == 404 => {
            facts.read.insert(kind);
            Ok(T::default())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
            facts.read.remove(&kind);
            facts.unread.push(Unread { kind, why: status.message.clone() });
            if status.code == 401 {
                anyhow::bail!("the API server does not know who asks: {}", status.message);
            }
            Ok(T::default())
        }
        Err(error) => Err(error).with_context(|| format!("could not read {kind:?}")),
    }
}
