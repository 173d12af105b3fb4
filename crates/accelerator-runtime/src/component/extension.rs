//! What a component's controller may do beyond keeping one DaemonSet as the settings ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use accelerator_api::contract::Component;
use accelerator_api::{AcceleratorConfigStatus, ObservedConfig, Rebellions};
use accelerator_operand::{Observation, Outcome, Report};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use tokio::time::Instant;

use crate::Runtime;

/// The part of a component's controller that is its own. What most components need is [`OneDaemonSet`].
pub trait Extension {
    /// Which DaemonSets of the operands' namespace are the component's.
    fn selector(&self, component: &Component) -> ListParams;

    /// The types of the conditions that [`Self::complete`] may add to a report, in the order in which it does.
    fn condition_types(&self) -> &'static [&'static str];

    /// The DaemonSets that are wanted in place of the one that the settings ask for; `None` as long as that is not known.
    fn lay_out(&mut self, wanted: DaemonSet, settings: &Rebellions, live: &[Arc<DaemonSet>]) -> Option<Layout>;

    /// Does what there is to do beside writing DaemonSets. Returns when to come back.
    fn act(&mut self, stance: Stance<'_>, runtime: &Runtime) -> impl Future<Output = Option<Instant>>;

    /// Where the component stands, given what its DaemonSets say of themselves.
    fn refine(&self, outcome: Outcome) -> Outcome;

    /// Adds what it knows to the report on the component.
    fn complete(
        &self,
        report: &mut Report,
        previous: &AcceleratorConfigStatus,
        generation: Option<i64>,
        now: Timestamp,
    );

    /// This process leads no longer: what only a leader knows is forgotten.
    fn on_leadership_lost(&mut self);
}

/// The DaemonSets of a component.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Those that are wanted.
    pub wanted: Vec<DaemonSet>,
    /// Names of those that are not wanted and stay for now.
    pub retained: BTreeSet<String>,
    /// Names of those that are not wanted and whose pods run on when they go.
    pub orphaned: BTreeSet<String>,
    /// Where the component stands when none is wanted.
    pub otherwise: Observation,
}

/// What the AcceleratorConfig that counts says about the component.
#[derive(Clone, Copy, Debug)]
pub enum Stance<'a> {
    /// It is to run, by these settings.
    Wanted(&'a ObservedConfig, &'a Rebellions),
    /// It is not to run.
    Unwanted,
    /// Nobody knows. Everything stays as it is.
    Unknown,
}

/// A component with the DaemonSet of its name and nothing else.
#[derive(Debug)]
pub(super) struct OneDaemonSet;

impl Extension for OneDaemonSet {
    fn selector(&self, component: &Component) -> ListParams {
        // By name, so that the right to watch can be limited to this one object.
        ListParams::default().fields(&format!("metadata.name={}", component.operand))
    }

    fn condition_types(&self) -> &'static [&'static str] {
        &[]
    }

    fn lay_out(&mut self, wanted: DaemonSet, _: &Rebellions, _: &[Arc<DaemonSet>]) -> Option<Layout> {
        Some(Layout {
            wanted: vec![wanted],
            retained: BTreeSet::new(),
            orphaned: BTreeSet::new(),
            otherwise: Observation::default(),
        })
    }

    async fn act(&mut self, _: Stance<'_>, _: &Runtime) -> Option<Instant> {
        None
    }

    fn refine(&self, outcome: Outcome) -> Outcome {
        outcome
    }

    fn complete(&self, _: &mut Report, _: &AcceleratorConfigStatus, _: Option<i64>, _: Timestamp) {}

    fn on_leadership_lost(&mut self) {}
}
