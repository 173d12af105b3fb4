//! Watches that never end: each has its own backoff, says once when it breaks and once when it is back, and starts over
//! where kube's watcher would try the same thing for ever.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::{info, warn};

use crate::health::Pulse;
use crate::{Backoff, Metrics};
use accelerator_process::chain;

/// Objects per page of a list. Small pages bound the memory that a list of thousands of nodes needs at once.
pub const PAGE_SIZE: u32 = 100;

/// Seconds after which the API server ends a watch and we open the next: also how soon, plus five seconds, a connection
/// that died without a word is noticed. Below the idle limits of common load balancers (240 s and more).
const WATCH_SECONDS: u32 = 180;

/// After a failure, a watch that has not failed again for this long is back, although nothing may have happened that it
/// could have told. Longer than a request's deadline and the longest wait between tries together.
const QUIET: Duration = Duration::from_secs(45);

/// Failures in a row to open a watch after which the list is taken anew. A server that answers 410, or knows no such
/// version because it was restored from a backup, would refuse the old version for ever.
const GIVE_UP_VERSION: u32 = 5;

/// Feeds every event of a watch to `take`, for ever.
pub(crate) async fn watch<K>(
    api: Api<K>,
    config: Config,
    kind: &str,
    pulse: Pulse,
    metrics: Metrics,
    mut take: impl FnMut(Event<K>),
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = config.timeout(WATCH_SECONDS).page_size(PAGE_SIZE);
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let recovered = |backoff: &mut Backoff| {
        if backoff.is_failing() {
            info!(kind, "Watch is back");
            backoff.succeed();
            pulse.recovered();
        }
    };
    loop {
        let mut stream = pin!(watcher(api.clone(), config.clone()));
        let mut refused = 0;
        while refused < GIVE_UP_VERSION {
            let item = match tokio::time::timeout(QUIET, stream.next()).await {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(_quiet) => {
                    pulse.beat();
                    recovered(&mut backoff);
                    continue;
                }
            };
            match item {
                Ok(event) => {
                    // `Init` only says that a list is about to be tried.
                    if !matches!(event, Event::Init) {
                        recovered(&mut backoff);
                        refused = 0;
                    }
                    let listed = matches!(event, Event::InitDone);
                    take(event);
                    if listed { pulse.synced() } else { pulse.beat() }
                }
                Err(error) => {
                    metrics.watch_failed(kind);
                    pulse.failing();
                    if !backoff.is_failing() {
                        warn!(kind, err = chain(&error), "Watch broke; trying again until it is back");
                    }
                    refused = match &error {
                        watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410 => {
                            GIVE_UP_VERSION
                        }
                        watcher::Error::WatchStartFailed(_) => refused + 1,
                        _ => 0,
                    };
                    tokio::time::sleep(backoff.fail(rand::random())).await;
                }
            }
        }
    }
}
