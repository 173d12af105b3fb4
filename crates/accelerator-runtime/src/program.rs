//! From `main` to the end of the process: options, logs, the parts that run side by side, and an orderly stop.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use accelerator_process::admin::{self, Answer};
use accelerator_process::{Signals, log_panics};
use anyhow::{Context, anyhow};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::health::Health;
use crate::leadership::{Fence, LeaderElector, Timing};
use crate::resync::Resync;
use crate::watch::{Holder, Watch};
use crate::{Events, Metrics, Options, Shared, Store, client};

/// How long a write in flight may take to finish once the process is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Who this process is.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the binary: also field manager, user agent and label of its metrics.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// What a controller's own code gets to work with.
pub struct Runtime {
    /// Who this process is.
    pub program: Program,
    /// Every request has a deadline and is counted.
    pub client: Client,
    /// The metric families that every controller has.
    pub metrics: Metrics,
    /// Where a controller registers families of its own.
    pub registry: Arc<Mutex<Registry>>,
    /// Where event requests go.
    pub events: Events,
    /// Wakes the controller's loop: something that a watch feeds has changed.
    pub changed: Arc<Notify>,
    /// Cancelled when the process is told to stop.
    pub stop: CancellationToken,
    fence: Fence,
    health: Health,
    resync_interval: Duration,
    parts: JoinSet<()>,
}

/// A controller's own code.
pub trait Reconcile {
    /// One look at everything, after something has changed or the time has come. Returns when to look again even if
    /// nothing changes. Only called while this process leads.
    fn reconcile(&mut self, runtime: &Runtime) -> impl Future<Output = Option<tokio::time::Instant>>;

    /// This process leads no longer: what only a leader knows grows old from now on, and is forgotten.
    fn on_leadership_lost(&mut self);
}

impl Program {
    /// Runs a controller until the process is told to stop. Ends with an error when it could not start, or when one of
    /// its parts ended by itself, which none does: the kubelet then starts it anew.
    pub fn run<F>(self, options: &Options, controller: impl FnOnce(Runtime) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        // The client logs every server error that our own code already reports once, when trouble begins.
        options.log.init("kube=off")?;
        log_panics();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let outcome = runtime.block_on(self.supervise(options, controller));
        // Tasks that still wait for the API server are dropped, not waited for.
        runtime.shutdown_background();
        outcome
    }

    /// Starts everything that runs side by side, and ends all of it in order.
    async fn supervise<F>(self, options: &Options, controller: impl FnOnce(Runtime) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, self.name, self.version);
        let (timing, resync_interval) = (options.timing()?, options.resync_interval()?);
        let fence = if options.leader_elect { Fence::closed() } else { Fence::open() };
        metrics.leading(!options.leader_elect, false);
        let agent = format!("{}/{}", self.name, self.version);
        let client = client::connect(options, &agent, metrics.clone(), fence.clone()).await?;
        let (events, publisher) = Events::new(client.clone(), self.name, metrics.clone());
        let mut parts = JoinSet::new();
        parts.spawn(publisher);
        let health = Health::default();
        let registry = Arc::new(Mutex::new(registry));
        let server = self.serve_admin(options, health.clone(), Arc::clone(&registry)).await?;
        let signals = Signals::listen()?;
        let runtime = Runtime {
            program: self,
            client,
            metrics,
            registry,
            events,
            changed: Arc::default(),
            stop: CancellationToken::new(),
            fence,
            health,
            resync_interval,
            parts,
        };
        let stop = runtime.stop.clone();
        let elector = options.leader_elect.then(|| runtime.elector(options, timing));
        let released = CancellationToken::new();
        let elector = elector.map(|elector| tokio::spawn(elector.run(released.clone())));
        let outcome = until_stopped(controller(runtime), server, signals, &stop).await;
        // Only now: whoever leads next must not meet a write of ours.
        released.cancel();
        if let Some(elector) = elector {
            elector.await?;
        }
        match &outcome {
            Ok(()) => info!("Stopped"),
            Err(error) => error!(err = format!("{error:#}"), "Ending"),
        }
        outcome
    }

    async fn serve_admin(
        self,
        options: &Options,
        health: Health,
        registry: Arc<Mutex<Registry>>,
    ) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
        let listener = admin::bind(options.admin_address).await?;
        let address = listener.local_addr()?;
        info!(controller = self.name, version = self.version, adminAddress = %address, "Started");
        Ok(tokio::spawn(admin::serve(listener, move |path: &str| answer(path, &health, &registry))))
    }
}

/// Runs the controller until a signal tells the process to stop, or until something ends by itself.
async fn until_stopped(
    controller: impl Future<Output = anyhow::Result<()>>,
    server: JoinHandle<anyhow::Result<()>>,
    mut signals: Signals,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut controller = std::pin::pin!(controller);
    tokio::select! {
        outcome = &mut controller => outcome.and_then(|()| Err(anyhow!("the controller ended by itself"))),
        ended = server => Err(anyhow!("the admin server ended: {ended:?}")),
        name = signals.next() => {
            info!(signal = name, "Stopping");
            stop.cancel();
            // Ends early when nothing is in flight; a write that takes longer is dropped.
            tokio::time::timeout(STOP_TIMEOUT, controller).await.unwrap_or(Ok(()))
        }
    }
}

impl Runtime {
    fn elector(&self, options: &Options, timing: Timing) -> LeaderElector {
        let namespace = options.namespace();
        LeaderElector {
            api: Api::namespaced(self.client.clone(), &namespace),
            namespace,
            name: self.program.name,
            identity: Options::identity(),
            timing,
            fence: self.fence.clone(),
            changed: Arc::clone(&self.changed),
            metrics: self.metrics.clone(),
            health: self.health.part("lease"),
        }
    }

    /// Keeps a copy of what a list and watch of these objects see.
    pub fn store<K>(&mut self, api: Api<K>, selector: ListParams) -> Shared<Store<Arc<K>>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let store = Shared::new(Store::default());
        self.watch(api, selector, store.clone());
        store
    }

    /// Lists and watches these objects for ever, wakes the loop after each event, and compares what is held with the API
    /// server every few hours.
    pub fn watch<K, H>(&mut self, api: Api<K>, selector: ListParams, holder: Shared<H>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        H: Holder<K>,
    {
        let kind = K::plural(&()).into_owned();
        let relist = Arc::new(Notify::new());
        let resync = Resync {
            api: api.clone(),
            selector: selector.clone(),
            kind: kind.clone(),
            holder: holder.clone(),
            relist: Arc::clone(&relist),
            metrics: self.metrics.clone(),
            interval: self.resync_interval,
        };
        self.parts.spawn(resync.run());
        let watch = Watch {
            api,
            selector,
            health: self.health.part(kind.clone()),
            kind,
            holder,
            changed: Arc::clone(&self.changed),
            relist,
            metrics: self.metrics.clone(),
            backoff: Watch::<K, H>::backoff(),
        };
        self.parts.spawn(watch.run());
    }

    /// Has the controller look whenever something changed or the time that it asked for has come, until told to stop. A step that is
    /// under way then may finish. A replica that does not lead only watches, so that it can take over at once.
    pub async fn run(mut self, mut controller: impl Reconcile) -> anyhow::Result<()> {
        /// Nothing depends on it; it bounds how long a lost wake-up, which there should be none of, could matter.
        const LONGEST_WAIT: Duration = Duration::from_mins(5);
        /// What changes within this time after a look is looked at together: a thousand events are not a thousand looks.
        const DEBOUNCE: Duration = Duration::from_millis(20);
        let health = self.health.part("loop");
        let mut parts = std::mem::take(&mut self.parts);
        let mut has_led = false;
        loop {
            health.synced();
            let leads = self.fence.is_open();
            if !leads && has_led {
                controller.on_leadership_lost();
            }
            has_led = leads;
            let next = if leads { controller.reconcile(&self).await } else { None };
            tokio::time::sleep(DEBOUNCE).await;
            let longest = tokio::time::Instant::now() + LONGEST_WAIT;
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(next.map_or(longest, |next| next.min(longest))) => {}
                Some(ended) = parts.join_next() => return ended.context("a part of the controller panicked"),
            }
        }
    }
}

/// What the admin server says.
fn answer(path: &str, health: &Health, registry: &Mutex<Registry>) -> Answer {
    let verdict = |complaints: Vec<String>| {
        if complaints.is_empty() { Answer::ok("ok") } else { Answer::unavailable(&complaints.join("\n")) }
    };
    let now = tokio::time::Instant::now();
    match path {
        "/livez" => verdict(health.dead(now)),
        "/readyz" => verdict(health.unready(now)),
        "/metrics" => admin::metrics(&registry.lock().unwrap_or_else(PoisonError::into_inner)),
        _ => Answer::not_found(),
    }
}
