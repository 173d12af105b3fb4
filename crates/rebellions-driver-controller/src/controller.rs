//! The thin shell around pools and upgrades: sees nodes and pods, asks the pure modules, and carries out what they say.

mod look;
mod planning;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use accelerator_api::contract::{Component, DRIVER};
use accelerator_api::{AcceleratorConfigStatus, Reason, Rebellions, condition_types};
use accelerator_operand::{Observation, Outcome, Report};
use accelerator_runtime::{Extension, Layout, Options, Runtime, Shared, Stance, chain, now};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use tracing::warn;

use self::look::{Basis, Seen};
use self::planning::Sight;
use crate::actions::Actor;
use crate::claims::Claims;
use crate::customize::for_pool;
use crate::follower::Follower;
use crate::metrics::UpgradeMetrics;
use crate::news::News;
use crate::node::{Node, NodeView};
use crate::pods::{DriverPod, Pod};
use crate::policy::Policy;
use crate::pool_status::statuses;
use crate::pools::{self, Existing, Pools, Request};
use crate::seen::{Counted, Kept};
use crate::standing::{self, Counts, Upgrades};
use crate::strays::Strays;
use crate::upgrade::Summary;
use crate::upgrade_report::{Context, ROLLED_BACK, add_upgrade};

/// When to ask again for what a plan cannot do without.
const UNANSWERED: Duration = Duration::from_secs(2);

/// What the driver's controller does beyond keeping DaemonSets.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Driver {
    nodes: Shared<Counted<NodeView>>,
    pods: Shared<Counted<DriverPod>>,
    seen: Seen,
    follower: Follower,
    actor: Actor,
    strays: Strays,
    claims: Claims,
    metrics: UpgradeMetrics,
    news: News,
    operands: String,
    controllers: String,
    own_node: Option<String>,
    /// Since when no job has been seen on a node that is followed.
    jobs_gone: BTreeMap<String, Timestamp>,
    /// What is wanted, as of the last look, and from what that was worked out.
    pools: Pools,
    basis: Option<Basis>,
    /// What the pools' DaemonSets install, as of the last look.
    installed: BTreeMap<Option<String>, String>,
    is_preinstalled: bool,
    rollback: Rollback,
    /// What the API server says to labels without which nodes get no driver.
    refused_moves: Option<String>,
    upgrades: bool,
    /// As of the last plan, if one has been made.
    summary: Option<Summary>,
    is_trouble_told: bool,
}

impl Driver {
    /// Begins to watch nodes with the driver's deploy label, and the driver's pods.
    #[must_use]
    pub fn new(runtime: &mut Runtime, options: &Options) -> Self {
        let client = runtime.client.clone();
        let (nodes, pods) = (Shared::new(Counted::default()), Shared::new(Counted::default()));
        runtime.watch(
            Api::<Node>::all(client.clone()),
            ListParams::default().labels(DRIVER.deploy_label),
            nodes.clone(),
        );
        let own = ListParams::default().labels(&format!("app.kubernetes.io/name={}", DRIVER.operand));
        runtime.watch(Api::<Pod>::namespaced(client.clone(), &options.operand_namespace), own, pods.clone());
        let events = runtime.events.clone();
        let metrics = UpgradeMetrics::register(runtime);
        Self {
            follower: Follower::new(client.clone(), Arc::clone(&runtime.changed)),
            actor: Actor::new(
                client.clone(),
                DRIVER.controller,
                &options.operand_namespace,
                nodes.clone(),
                events,
                metrics.clone(),
            ),
            strays: Strays::new(client.clone()),
            claims: Claims::new(client),
            metrics,
            news: News::default(),
            nodes,
            pods,
            seen: Seen::default(),
            operands: options.operand_namespace.clone(),
            controllers: options.namespace(),
            own_node: options.node_name.clone(),
            jobs_gone: BTreeMap::new(),
            pools: Pools::default(),
            basis: None,
            installed: BTreeMap::new(),
            is_preinstalled: false,
            rollback: Rollback::default(),
            refused_moves: None,
            upgrades: false,
            summary: None,
            is_trouble_told: false,
        }
    }
}

/// Whether the spec's driver is given up for the last one that worked.
#[derive(Clone, Copy, Debug, Default)]
struct Rollback {
    /// By the last plan.
    is_wanted: bool,
    /// By what is written on DaemonSets.
    is_written: bool,
}

impl Extension for Driver {
    fn selector(&self, component: &Component) -> ListParams {
        // Names of pools are not known beforehand.
        ListParams::default().labels(&format!("app.kubernetes.io/managed-by={}", component.controller))
    }

    fn condition_types(&self) -> &'static [&'static str] {
        &[condition_types::DRIVER_UPGRADE_BLOCKED, condition_types::DRIVER_UPGRADE_PROGRESSING]
    }

    fn lay_out(&mut self, wanted: DaemonSet, settings: &Rebellions, live: &[Arc<DaemonSet>]) -> Option<Layout> {
        let seen = self.see()?;
        let section = settings.driver.as_ref()?;
        self.is_preinstalled = section.is_preinstalled();
        let request = if self.is_preinstalled { None } else { Request::of(section, &wanted) };
        let mut existing: Vec<_> = live.iter().filter_map(|live| Existing::of(live)).collect();
        self.installed = pools::installed(&existing);
        if self.rollback.is_wanted {
            for one in &mut existing {
                if let Some(back) = one.history.roll_back() {
                    one.history = back;
                }
            }
        }
        self.work_out(request, existing, &seen);
        self.rollback.is_written = self.pools.wanted.iter().any(|pool| pool.history.rolled_back.is_some());
        let wanted: Vec<_> = self.pools.wanted.iter().map(|pool| for_pool(&wanted, pool)).collect();
        let removed = |keeps_pods: bool| {
            let removals = self.pools.removals.iter().filter(move |one| one.keeps_pods == keeps_pods);
            removals.map(|one| one.name.clone()).collect::<BTreeSet<_>>()
        };
        let (orphaned, ended) = (removed(true), removed(false));
        let names: BTreeSet<_> = wanted.iter().map(ResourceExt::name_any).collect();
        let live = live.iter().map(|live| live.name_any());
        let retained =
            live.filter(|name| !names.contains(name) && !orphaned.contains(name) && !ended.contains(name)).collect();
        Some(Layout { wanted, retained, orphaned, otherwise: otherwise(self.is_preinstalled) })
    }

    async fn act(&mut self, stance: Stance<'_>, runtime: &Runtime) -> Option<Instant> {
        let seen = self.see()?;
        let policy = match stance {
            Stance::Unknown => return None,
            Stance::Wanted(_, settings) => {
                Policy::of(settings.driver.as_ref().and_then(|section| section.upgrade_policy.as_ref()))
            }
            Stance::Unwanted => {
                self.work_out(None, vec![], &seen);
                Policy::of(None)
            }
        };
        self.upgrades = policy.auto_upgrade;
        let now = now();
        let caught_up = match self.catch_up(&seen.nodes).await {
            Ok(()) => self.sort_pods(&policy, now).await,
            Err(error) => Err(error),
        };
        let sorted = match caught_up {
            Ok(sorted) => sorted,
            Err(error) => {
                if !std::mem::replace(&mut self.is_trouble_told, true) {
                    warn!(err = chain(&error), "Could not read what an upgrade depends on; trying again");
                }
                return Some(Instant::now() + UNANSWERED);
            }
        };
        self.is_trouble_told = false;
        let seen = self.see()?;
        if self.strays.is_behind(&seen.nodes) {
            // It left while others were read, and would neither be undone nor counted.
            return Some(Instant::now());
        }
        let strays: Vec<_> = self.strays.iter().cloned().collect();
        let nodes: Vec<_> = seen.nodes.iter().chain(&strays).map(Deref::deref).collect();
        let refused = self.actor.refused(now);
        let sight = Sight { nodes: &nodes, pods: &seen.pods, sorted: &sorted, refused: &refused, now };
        let mut plan = self.plan(&policy, &sight);
        self.follower.follow(&plan.follow);
        let by_name = nodes.iter().map(|node| (node.name.as_str(), *node)).collect();
        let actions = self.actions(&mut plan, &by_name);
        let acted = self.actor.carry_out(actions, &plan.held_back, &by_name, now).await;
        self.refused_moves = standing::refused(&self.pools, &self.actor.refused(now));
        for node in self.actor.take_answers() {
            self.strays.answered(node);
        }
        for name in self.actor.take_gone() {
            self.strays.gone(&name);
        }
        self.metrics.nodes(&plan.summary.counts);
        if let Stance::Wanted(config, _) = stance {
            self.news.tell(config, &plan.summary, self.rollback.is_written, runtime);
        }
        self.summary = Some(plan.summary);
        let rolls_back = std::mem::replace(&mut self.rollback.is_wanted, plan.roll_back);
        let again = (plan.roll_back && !rolls_back).then(Instant::now);
        let due = plan.due.map(|due| Instant::now() + Duration::try_from(due.duration_since(now)).unwrap_or_default());
        [acted, again, due].into_iter().flatten().min()
    }

    fn refine(&self, outcome: Outcome) -> Outcome {
        let summary = self.summary.as_ref();
        let blocked = summary.and_then(|summary| summary.blocked.as_ref()).map(|(_, why)| why);
        let progress = blocked.or(summary.and_then(|summary| summary.progressing.as_ref()));
        let upgrades = Upgrades {
            are_on: self.upgrades,
            progress: progress.map(String::as_str),
            rolled_back: self.rollback.is_written.then_some(ROLLED_BACK),
            refused: self.refused_moves.as_deref(),
        };
        standing::refine(outcome, &self.pools, &references(&self.seen.pods), upgrades)
    }

    fn complete(
        &self,
        report: &mut Report,
        previous: &AcceleratorConfigStatus,
        generation: Option<i64>,
        now: Timestamp,
    ) {
        if matches!(report.reason, Reason::Disabled | Reason::Unreadable | Reason::Preinstalled) {
            return;
        }
        let pods = references(&self.seen.pods);
        let counts = Counts::of(&self.pools, &pods);
        // As a DaemonSet counts, which leaves out nodes that a taint keeps its pods off: node-labeler finds those by the difference.
        let has_common = self.basis.as_ref().is_some_and(Basis::has_common);
        let orphans = pods.iter().filter(|pod| !has_common && pod.pool.is_none() && !pod.is_terminating).count();
        report.entry.desired += i64::try_from(orphans).unwrap_or(i64::MAX);
        report.entry.updated = counts.updated;
        report.entry.ready = counts.ready;
        report.entry.pools = statuses(&self.pools, &pods);
        let context = Context { previous, generation, now };
        add_upgrade(report, self.summary.as_ref(), self.rollback.is_written, context);
    }

    fn on_leadership_lost(&mut self) {
        self.follower.follow(&[]);
        self.actor.forget();
        self.strays.forget();
        self.jobs_gone.clear();
        self.news = News::default();
        self.rollback = Rollback::default();
        (self.summary, self.refused_moves) = (None, None);
        self.metrics.forget_nodes();
    }
}

fn references<T>(all: &[Kept<T>]) -> Vec<&T> {
    all.iter().map(Deref::deref).collect()
}

/// Where the driver stands when it has no DaemonSet.
fn otherwise(is_preinstalled: bool) -> Observation {
    if !is_preinstalled {
        return Observation::default();
    }
    let message = "every host has a driver of its own (driver.mode is preinstalled); none is deployed".into();
    Observation { reason: Reason::Preinstalled, message, needs_attention: false }
}
