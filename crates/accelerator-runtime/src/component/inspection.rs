//! Looks at an operand's pods, but only when nothing else can say what is missing, and never at all of them.

use std::time::Duration;

use accelerator_api::contract::Component;
use accelerator_operand::{Observation, PodTrouble, PodView, observe, troubles};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use kube::api::{ListParams, Request};
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{info, warn};

use accelerator_process::chain;

/// A rollout that goes well is over sooner than this; only then are its pods asked what they wait for.
const LOOK_AFTER: Duration = Duration::from_secs(5);
/// How often they are asked while the trouble lasts.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How many running pods are looked at, at most, to find some that are not ready.
const LOOK_AT: usize = 250;
/// Pods per page.
const PAGE: u32 = 25;
/// How many troubles a message can name.
const ENOUGH: usize = 3;

/// A page of a list of which only some fields are read.
#[derive(Deserialize)]
struct Page<T> {
    metadata: ListMeta,
    items: Vec<T>,
}

/// What is read of an event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventView {
    message: Option<String>,
    last_timestamp: Option<Time>,
}

pub(super) struct Inspection {
    client: Client,
    namespace: String,
    component: &'static Component,
    /// When to look next, while there is something to look for.
    due: Option<Instant>,
    troubles: Vec<PodTrouble>,
    is_failing: bool,
}

impl Inspection {
    pub(super) fn new(client: Client, namespace: &str, component: &'static Component) -> Self {
        Self { client, namespace: namespace.into(), component, due: None, troubles: vec![], is_failing: false }
    }

    /// There is nothing to look at.
    pub(super) fn rest(&mut self) {
        self.due = None;
        self.troubles.clear();
    }

    /// When to look again, if there is something to look for.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due
    }

    /// Where the operand stands, its pods consulted when only they can tell.
    pub(super) async fn observe(&mut self, live: &DaemonSet) -> Observation {
        let observation = observe(live, &self.troubles);
        if !observation.is_about_pods() {
            self.rest();
            return observation;
        }
        let now = Instant::now();
        if *self.due.get_or_insert(now + LOOK_AFTER) > now {
            return observation;
        }
        match self.look(live).await {
            Ok(troubles) => {
                self.troubles = troubles;
                if std::mem::take(&mut self.is_failing) {
                    info!("Pods and events can be looked at again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(err = chain(&error), "Could not look at pods and events; trying again");
                }
            }
        }
        self.due = Some(Instant::now() + LOOK_EVERY);
        observe(live, &self.troubles)
    }

    /// Pods that do not even run are found by the server; the others page by page, and only so many.
    async fn look(&self, live: &DaemonSet) -> Result<Vec<PodTrouble>, kube::Error> {
        let own = ListParams::default().labels(&format!("name={}", self.component.operand)).limit(PAGE);
        let mut found = troubles(&self.pods(&own.clone().fields("status.phase!=Running")).await?.items);
        let missing =
            live.status.as_ref().is_some_and(|now| now.current_number_scheduled < now.desired_number_scheduled);
        if missing && let Some(why) = self.why_not_created().await? {
            found.insert(0, PodTrouble::not_created(&why));
        }
        let mut page = own.fields("status.phase=Running");
        let mut seen = 0;
        while found.len() < ENOUGH && seen < LOOK_AT {
            let pods = self.pods(&page).await?;
            seen += pods.items.len();
            found.extend(troubles(&pods.items));
            page.continue_token = pods.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                break;
            }
        }
        for trouble in found.iter_mut().take(ENOUGH) {
            if let Some(pod) = trouble.unexplained()
                && let Some(why) = self.last_event("Pod", pod, "Unhealthy").await?
            {
                trouble.explain_by_probe(&why);
            }
        }
        Ok(found)
    }

    /// What keeps the DaemonSet controller from making pods (a quota, an admission policy): it says so in events alone.
    async fn why_not_created(&self) -> Result<Option<String>, kube::Error> {
        self.last_event("DaemonSet", self.component.operand, "FailedCreate").await
    }

    /// The newest event of this reason about an object, in the words of whoever wrote it.
    async fn last_event(&self, kind: &str, name: &str, reason: &str) -> Result<Option<String>, kube::Error> {
        let fields = format!("involvedObject.kind={kind},involvedObject.name={name},reason={reason}");
        let events: Page<EventView> = self.list::<Event, _>(&ListParams::default().fields(&fields).limit(PAGE)).await?;
        let newest = events.items.into_iter().max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        Ok(newest.and_then(|event| event.message))
    }

    async fn pods(&self, params: &ListParams) -> Result<Page<PodView>, kube::Error> {
        self.list::<Pod, _>(params).await
    }

    /// Lists objects of kind `K`, reading no more of them than `T` asks for.
    async fn list<K, T>(&self, params: &ListParams) -> Result<Page<T>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        T: DeserializeOwned,
    {
        let request = Request::new(K::url_path(&(), Some(&self.namespace))).list(params);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        // As kube marks its own requests, for the metrics.
        request.extensions_mut().insert("list");
        self.client.request(request).await
    }
}
