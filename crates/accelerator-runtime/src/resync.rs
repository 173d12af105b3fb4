//! Compares a [`Store`](crate::Store) with the API server every few hours. There should never be a difference: one that
//! is found is a fault, is told as such, and is put right by a new list.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::error;

use crate::store::{Shared, version_of};
use crate::watch::{Holder, PAGE_SIZE};
use crate::{Backoff, Metrics, random};

/// How long a watch may take to tell what a list has told. One that takes longer is broken, and says so itself.
const SETTLE: Duration = Duration::from_mins(2);
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many differences a line names.
const NAMED: usize = 3;

/// The comparison of one store.
pub(crate) struct Resync<K, H> {
    pub api: Api<K>,
    pub selector: ListParams,
    pub kind: String,
    pub holder: Shared<H>,
    /// Asks the watch for a new list.
    pub relist: Arc<Notify>,
    pub metrics: Metrics,
    /// The time between two comparisons, give or take a third.
    pub interval: Duration,
}

impl<K, H> Resync<K, H>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    H: Holder<K>,
{
    pub(crate) async fn run(self) {
        // Between two thirds and four thirds of the interval, so that controllers do not list together.
        let mut pause = Backoff::new(self.interval.mul_f64(4.0 / 3.0), self.interval.mul_f64(4.0 / 3.0));
        loop {
            tokio::time::sleep(pause.fail(random())).await;
            if !self.holder.with(|holder| holder.store().is_synced()) {
                continue;
            }
            self.holder.with(|holder| holder.store().begin_comparison());
            // Without an answer there is nothing to compare with; the next time will do.
            let Ok((listed, version)) = self.list().await else { continue };
            self.settle(version).await;
            let differences = self.holder.with(|holder| holder.store().compare(&listed, version));
            if !differences.is_empty() {
                self.report(&differences);
            }
        }
    }

    /// Names and versions of everything, and the version of the list. Metadata is enough to tell.
    async fn list(&self) -> Result<(BTreeMap<Box<str>, u64>, u64), kube::Error> {
        let mut params = self.selector.clone().limit(PAGE_SIZE);
        let mut listed = BTreeMap::new();
        let mut version = None;
        loop {
            let page = self.api.list_metadata(&params).await?;
            let its_version = page.metadata.resource_version.and_then(|version| version.parse().ok());
            version = version.or(its_version);
            listed.extend(page.items.iter().map(|object| (object.name_any().into(), version_of(&object.metadata))));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok((listed, version.unwrap_or(0)));
            }
        }
    }

    /// Waits until the watch has told what the list told, or has had time enough.
    async fn settle(&self, version: u64) {
        let until = Instant::now() + SETTLE.min(self.interval);
        while Instant::now() < until && self.holder.with(|holder| holder.store().complete_up_to()) < version {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn report(&self, differences: &[String]) {
        self.metrics.differed(&self.kind, differences.len());
        let named = differences.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        error!(
            kind = self.kind,
            count = differences.len(),
            err = named,
            "What this controller knew differs from the API server, which is a fault of the controller or of what is between \
             them; listing anew"
        );
        self.relist.notify_one();
    }
}
