//! The loop of a component controller: see, plan, write what differs, report.

mod daemon_set;
mod diagnosis;
mod extension;
mod install_owner;
mod managed;
mod pod_watch;
mod reporting;
mod rotation;
mod transitions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use accelerator_api::{ObservedConfig, Reason, Rebellions};
use accelerator_operand::{
    Desire, Desired, Operand, Outcome, PlanContext, Template, Write, combine, desire, is_removable, write,
};
use clap::{Args, Command, FromArgMatches};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use tokio::time::Instant;

use self::daemon_set::Pods;
use self::extension::OneDaemonSet;
pub use self::extension::{Extension, Layout, Stance};
use self::install_owner::InstallOwner;
use self::managed::{Context, ManagedDaemonSet, News};
use self::rotation::Rotation;
use self::transitions::Transitions;
use crate::{AbsenceCheck, EventRequest, Options, Program, Reconcile, Runtime, Shared, StatusWriter, Store};

/// When to ask again for what a plan cannot do without.
const UNANSWERED: Duration = Duration::from_secs(5);

/// The whole `main` of a component controller.
pub fn run_component(operand: &'static Operand, version: &'static str) -> anyhow::Result<()> {
    run_extended(operand, version, |_, _| OneDaemonSet)
}

/// The whole `main` of a component controller that does more than keep one DaemonSet.
pub fn run_extended<E: Extension>(
    operand: &'static Operand,
    version: &'static str,
    extension: impl FnOnce(&mut Runtime, &Options) -> E,
) -> anyhow::Result<()> {
    let component = operand.component;
    let command = Options::augment_args(Command::new(component.controller).version(version)).about(format!(
        "Deploys {}: keeps the DaemonSet {} as the AcceleratorConfig asks for, and reports on it",
        component.name, component.operand
    ));
    let options = Options::from_arg_matches(&command.get_matches())?;
    let namespace = options.operand_namespace.clone();
    let program = Program { name: component.controller, version };
    program.run(&options, async |mut runtime| {
        let extension = extension(&mut runtime, &options);
        let controller = Controller::new(operand.template()?, namespace, extension, &mut runtime);
        runtime.run(controller).await
    })
}

struct Controller<E> {
    template: Template,
    extension: E,
    configs: Shared<Store<Arc<ObservedConfig>>>,
    absence: AbsenceCheck,
    install_owner: InstallOwner,
    context: Context,
    /// The component's DaemonSets, by name.
    managed: BTreeMap<String, ManagedDaemonSet>,
    status: StatusWriter,
    /// What was told of the AcceleratorConfig with this uid.
    transitions: Option<(String, Transitions)>,
}

impl<E: Extension> Reconcile for Controller<E> {
    async fn reconcile(&mut self, runtime: &Runtime) -> Option<Instant> {
        let configs = self.configs.with(|store| store.snapshot())?;
        self.context.daemon_sets.with(|store| store.snapshot())?;
        if !self.install_owner.ensure().await {
            return Some(Instant::now() + UNANSWERED);
        }
        let started = Instant::now();
        let references: Vec<_> = configs.iter().map(AsRef::as_ref).collect();
        let Desire { active, desired } = self.desire(&references).await;
        let config = active.map(|index| references[index]);
        let stance = match (&desired, config) {
            (Desired::Present(_, settings), Some(config)) => Stance::Wanted(config, settings),
            (Desired::Absent(_), _) => Stance::Unwanted,
            _ => Stance::Unknown,
        };
        let outcome = self.carry_out(desired, config, &references, runtime).await;
        let acted = self.extension.act(stance, runtime).await;
        let outcome = outcome.map(|outcome| self.extension.refine(outcome));
        let next = self.report(outcome.as_ref(), &references, active, runtime).await;
        let is_failing = self.managed.values().any(ManagedDaemonSet::is_failing);
        runtime.metrics.reconciled(!is_failing, started.elapsed());
        let due = [next, acted, self.absence.due_at(), self.install_owner.due_at()];
        due.into_iter().chain(self.managed.values().map(ManagedDaemonSet::due_at)).flatten().min()
    }

    fn on_leadership_lost(&mut self) {
        self.absence.forget();
        self.transitions = None;
        self.managed.values_mut().for_each(ManagedDaemonSet::on_leadership_lost);
        self.extension.on_leadership_lost();
    }
}

impl<E: Extension> Controller<E> {
    fn new(template: Template, namespace: String, extension: E, runtime: &mut Runtime) -> Self {
        let component = template.component();
        let client = runtime.client.clone();
        let api = Api::<DaemonSet>::namespaced(client.clone(), &namespace);
        Self {
            configs: runtime.store(Api::all(client.clone()), ListParams::default()),
            absence: AbsenceCheck::new(client.clone()),
            install_owner: InstallOwner::new(client.clone(), component),
            context: Context {
                client: client.clone(),
                namespace,
                component,
                metrics: runtime.metrics.clone(),
                changed: Arc::clone(&runtime.changed),
                daemon_sets: runtime.store(api, extension.selector(component)),
                rotation: Rotation::default(),
            },
            managed: BTreeMap::new(),
            transitions: None,
            status: StatusWriter::new(client, component.controller, runtime.events.clone()),
            template,
            extension,
        }
    }

    /// The DaemonSets of the component that exist.
    fn own(&self) -> Vec<Arc<DaemonSet>> {
        self.context.daemon_sets.with(|store| store.snapshot()).unwrap_or_default()
    }

    /// What the AcceleratorConfig that counts asks for.
    async fn desire<'a>(&mut self, configs: &[&'a ObservedConfig]) -> Desire<'a> {
        let vacant = self.absence.look(configs.is_empty()).await;
        let owner = self.install_owner.owner(self.own().first().map(AsRef::as_ref));
        let context = PlanContext { namespace: &self.context.namespace, anchor: owner.as_ref(), vacant };
        desire(&self.template, context, configs)
    }

    /// Writes what differs. `None` when there is nothing to report: nobody asks, or the API server did not answer, which
    /// is no news about the operand.
    async fn carry_out(
        &mut self,
        desired: Desired<'_>,
        config: Option<&ObservedConfig>,
        configs: &[&ObservedConfig],
        runtime: &Runtime,
    ) -> Option<Outcome> {
        match desired {
            Desired::Unknown => {
                self.managed.values_mut().for_each(ManagedDaemonSet::rest);
                None
            }
            Desired::Unreadable(why) => {
                self.managed.values_mut().for_each(ManagedDaemonSet::rest);
                let why = format!("this version cannot read the AcceleratorConfig, everything stays as it is: {why}");
                Some(Outcome::Refused(Reason::Unreadable, why))
            }
            Desired::Absent(why) => self.remove(|_| Some(Pods::End), &why, config, runtime).await,
            Desired::Present(wanted, settings) => self.keep(*wanted, settings, config, configs, runtime).await,
        }
    }

    /// Keeps what is wanted as it is wanted, and removes what is not.
    async fn keep(
        &mut self,
        wanted: DaemonSet,
        settings: &Rebellions,
        config: Option<&ObservedConfig>,
        configs: &[&ObservedConfig],
        runtime: &Runtime,
    ) -> Option<Outcome> {
        let mut layout = self.extension.lay_out(wanted, settings, &self.own())?;
        let mut writes = self.writes(std::mem::take(&mut layout.wanted));
        if self.would_apply(&writes) && self.install_owner.refresh().await {
            // Whom the DaemonSets belong to is made sure of before one is written.
            if let Desired::Present(wanted, settings) = self.desire(configs).await.desired {
                layout = self.extension.lay_out(*wanted, settings, &self.own())?;
                writes = self.writes(std::mem::take(&mut layout.wanted));
            }
        }
        let Layout { retained, orphaned, otherwise, .. } = layout;
        let pods = |name: &str| match () {
            () if writes.iter().any(|(one, _)| one == name) || retained.contains(name) => None,
            () if orphaned.contains(name) => Some(Pods::RunOn),
            () => Some(Pods::End),
        };
        let removed = self.remove(pods, "no node needs it", config, runtime).await;
        let mut outcomes = vec![];
        for (name, write) in writes {
            let (outcome, news) = self.managed(&name).carry_out(write).await;
            tell(config, news, runtime);
            outcomes.push((name, outcome));
        }
        if let Some(Outcome::Refused(..)) = removed {
            outcomes.push((String::new(), removed));
        }
        combine(outcomes, otherwise)
    }

    /// Removes DaemonSets of ours, and says what became of that.
    async fn remove(
        &mut self,
        pods: impl Fn(&str) -> Option<Pods>,
        why: &str,
        config: Option<&ObservedConfig>,
        runtime: &Runtime,
    ) -> Option<Outcome> {
        let live = self.own();
        self.managed.retain(|name, _| live.iter().any(|live| live.name_any() == *name) || pods(name).is_none());
        let mut outcome = config.map(|_| Outcome::Disabled(why.to_owned()));
        let component = self.component();
        for live in live.iter().filter(|live| is_removable(component, live)) {
            let Some(pods) = pods(&live.name_any()) else { continue };
            let (removed, news) = self.managed(&live.name_any()).remove(live, pods, why).await;
            tell(config, news, runtime);
            match removed {
                Some(Outcome::Disabled(_)) => {}
                other => outcome = other,
            }
        }
        outcome
    }

    /// What to write to each of these DaemonSets, by name.
    fn writes(&self, wanted: Vec<DaemonSet>) -> Vec<(String, Write)> {
        let write = |wanted: DaemonSet| {
            let name = wanted.name_any();
            let live = self.context.daemon_sets.with(|store| store.get(&name).cloned());
            (name, write(self.component(), wanted, live.as_deref()))
        };
        wanted.into_iter().map(write).collect()
    }

    fn would_apply(&mut self, writes: &[(String, Write)]) -> bool {
        writes.iter().any(|(name, write)| self.managed(name).would_apply(write))
    }

    fn managed(&mut self, name: &str) -> &mut ManagedDaemonSet {
        let new = || ManagedDaemonSet::new(name, &self.context);
        self.managed.entry(name.to_owned()).or_insert_with(new)
    }
}

/// An event about what was done to a DaemonSet.
fn tell(active: Option<&ObservedConfig>, news: Option<News>, runtime: &Runtime) {
    if let (Some(config), Some((action, reason, note))) = (active, news) {
        let regarding = config.object_ref(&());
        runtime.events.publish(EventRequest { regarding, warning: false, reason, action, note });
    }
}
