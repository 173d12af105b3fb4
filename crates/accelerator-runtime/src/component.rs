//! The loop of a component controller: see, plan, write what differs, report.

mod daemon_set;
mod diagnosis;
mod follow;
mod install_owner;
mod pod_watch;
mod transitions;

use std::sync::Arc;
use std::time::Duration;

use accelerator_api::contract::Component;
use accelerator_api::{ObservedConfig, Reason, active_first, condition_types};
use accelerator_operand::{Operand, Outcome, Plan, PlanContext, Report, Template, Write, plan, report};
use accelerator_process::clock;
use clap::{Args, Command, FromArgMatches};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use self::daemon_set::{Change, DaemonSetWriter};
use self::diagnosis::Diagnosis;
use self::install_owner::InstallOwner;
use self::transitions::{Seen, Transitions};
use crate::{
    AbsenceCheck, EventRequest, Options, Program, Reconcile, Runtime, Shared, StatusWrite, StatusWriter, Store, Urgency,
};

/// When to ask again for what a plan cannot do without.
const UNANSWERED: Duration = Duration::from_secs(5);

/// The whole `main` of a component controller.
pub fn run_component(operand: &'static Operand, version: &'static str) -> anyhow::Result<()> {
    let component = operand.component;
    let command = Options::augment_args(Command::new(component.controller).version(version)).about(format!(
        "Deploys {}: keeps the DaemonSet {} as the AcceleratorConfig asks for, and reports on it",
        component.name, component.operand
    ));
    let options = Options::from_arg_matches(&command.get_matches())?;
    let namespace = options.operand_namespace.clone();
    let program = Program { name: component.controller, version };
    program.run(&options, async |mut runtime| {
        let controller = Controller::new(operand.template()?, namespace, &mut runtime);
        runtime.run(controller).await
    })
}

struct Controller {
    template: Template,
    namespace: String,
    configs: Shared<Store<Arc<ObservedConfig>>>,
    absence: AbsenceCheck,
    install_owner: InstallOwner,
    daemon_sets: Shared<Store<Arc<DaemonSet>>>,
    daemon_set: DaemonSetWriter,
    status: StatusWriter,
    diagnosis: Diagnosis,
    /// What was told of the AcceleratorConfig with this uid.
    transitions: Option<(String, Transitions)>,
}

impl Reconcile for Controller {
    async fn reconcile(&mut self, runtime: &Runtime) -> Option<Instant> {
        let configs = self.configs.with(|store| store.snapshot())?;
        self.daemon_sets.with(|store| store.snapshot())?;
        if !self.install_owner.ensure().await {
            return Some(Instant::now() + UNANSWERED);
        }
        let started = Instant::now();
        let references: Vec<_> = configs.iter().map(AsRef::as_ref).collect();
        let plan = self.plan(&references).await;
        let active = plan.active.map(|index| references[index]);
        let outcome = self.carry_out(plan.write, active, runtime).await;
        if matches!(outcome, Some(Outcome::Disabled(_) | Outcome::Refused(..))) {
            self.diagnosis.rest();
        }
        let next = self.report(outcome.as_ref(), &references, plan.active, runtime).await;
        runtime.metrics.reconciled(!self.daemon_set.is_failing(), started.elapsed());
        let due = [
            next,
            self.daemon_set.retry_at(),
            self.diagnosis.due_at(),
            self.absence.due_at(),
            self.install_owner.due_at(),
        ];
        due.into_iter().flatten().min()
    }

    fn on_leadership_lost(&mut self) {
        self.absence.forget();
        self.diagnosis.forget();
        self.transitions = None;
        self.daemon_set.rest();
    }
}

impl Controller {
    fn new(template: Template, namespace: String, runtime: &mut Runtime) -> Self {
        let component = template.component();
        let client = runtime.client.clone();
        let api = Api::<DaemonSet>::namespaced(client.clone(), &namespace);
        // By name, so that the right to watch can be limited to this one object.
        let own = ListParams::default().fields(&format!("metadata.name={}", component.operand));
        Self {
            configs: runtime.store(Api::all(client.clone()), ListParams::default()),
            absence: AbsenceCheck::new(client.clone()),
            install_owner: InstallOwner::new(client.clone(), component),
            daemon_sets: runtime.store(api.clone(), own),
            daemon_set: DaemonSetWriter::new(api, component, runtime.metrics.clone()),
            diagnosis: Diagnosis::new(client.clone(), &namespace, component, Arc::clone(&runtime.changed)),
            transitions: None,
            status: StatusWriter::new(client, component.controller, runtime.events.clone()),
            namespace,
            template,
        }
    }

    fn component(&self) -> &'static Component {
        self.template.component()
    }

    fn live(&self) -> Option<Arc<DaemonSet>> {
        self.daemon_sets.with(|store| store.snapshot())?.into_iter().next()
    }

    /// What to do now. If that is a write, whom the DaemonSet belongs to is made sure of first.
    async fn plan(&mut self, configs: &[&ObservedConfig]) -> Plan {
        let live = self.live();
        let vacant = self.absence.look(configs.is_empty()).await;
        let plan = |install_owner: &InstallOwner| {
            let owner = install_owner.owner(live.as_deref());
            let context = PlanContext { namespace: &self.namespace, anchor: owner.as_ref(), vacant };
            plan(&self.template, context, configs, live.as_deref())
        };
        let first = plan(&self.install_owner);
        let writes = match &first.write {
            Write::Apply { wanted, difference } => {
                self.daemon_set.instead(wanted, live.as_deref(), difference).is_none()
            }
            _ => false,
        };
        if writes && self.install_owner.refresh().await { plan(&self.install_owner) } else { first }
    }

    /// Writes what the plan says. `None` when there is nothing to report: nobody asks, or the API server did not answer,
    /// which is no news about the operand.
    async fn carry_out(&mut self, write: Write, active: Option<&ObservedConfig>, runtime: &Runtime) -> Option<Outcome> {
        let live = self.live();
        if !matches!(write, Write::Apply { .. } | Write::Delete(_)) {
            self.daemon_set.rest();
        }
        let change = match write {
            Write::LeaveAlone => {
                self.diagnosis.rest();
                return None;
            }
            Write::Unreadable(why) => {
                let why = format!("this version cannot read the AcceleratorConfig, everything stays as it is: {why}");
                return Some(Outcome::Refused(Reason::Unreadable, why));
            }
            Write::NameTaken(why) => return Some(Outcome::Refused(Reason::NameTaken, why)),
            Write::Absent(why) => return Some(Outcome::Disabled(why)),
            Write::Delete(why) => {
                let live = live?;
                match self.daemon_set.delete(&live).await {
                    Change::Done(news) => {
                        tell(active, "Delete", news, runtime);
                        return Some(Outcome::Disabled(why));
                    }
                    // The watch will tell that it is gone.
                    Change::None => return Some(Outcome::Disabled(why)),
                    change => change,
                }
            }
            Write::Apply { wanted, difference } => {
                let (change, applied) = self.daemon_set.apply(&wanted, live.as_deref(), &difference).await;
                if let Some(applied) = applied {
                    let name = self.component().operand;
                    self.daemon_sets.with(|store| store.answered(name, Arc::new(applied)));
                }
                change
            }
            Write::Nothing => Change::None,
        };
        let mut overridden = String::new();
        match change {
            Change::None => {}
            Change::Overridden(what) => {
                overridden =
                    format!("; the API server keeps another {what} than was applied, as an admission policy may");
            }
            Change::Done(news) => tell(active, "Apply", news, runtime),
            Change::Contested(why) => return Some(Outcome::Refused(Reason::Contested, why)),
            Change::Refused(why) => return Some(Outcome::Refused(Reason::ApplyFailed, why)),
            Change::Unanswered => return None,
        }
        let live = self.live()?;
        let mut observation = self.diagnosis.observe(&live)?;
        observation.message += &overridden;
        Some(Outcome::Observed(observation))
    }

    /// Brings our entries in every AcceleratorConfig up to date: the active one has them, the others have none. Returns
    /// when to come back.
    async fn report(
        &mut self,
        outcome: Option<&Outcome>,
        configs: &[&ObservedConfig],
        active: Option<usize>,
        runtime: &Runtime,
    ) -> Option<Instant> {
        for index in active_first(configs.len(), active) {
            let config = configs[index];
            let report = match (outcome, active == Some(index)) {
                (None, true) => continue,
                (_, false) if config.metadata.deletion_timestamp.is_some() => continue,
                (_, false) => None,
                (Some(outcome), true) => Some(report(
                    &self.template,
                    outcome,
                    self.live().as_deref(),
                    &config.status,
                    config.metadata.generation,
                    runtime.program.version,
                    clock::now(),
                )),
            };
            let observed = report.as_ref().and_then(|report| observed_generation(config, &report.condition));
            if report.as_ref().map(Report::parts) == self.reported(config)
                && has_observed(config, observed, self.component().controller)
            {
                self.tell_transition(config, report.as_ref(), outcome, runtime);
                continue;
            }
            let told = config.status.condition(self.component().condition_type);
            let urgency = report.as_ref().map_or(Urgency::Transition, |report| Urgency::of(told, &report.condition));
            if self.status.ready_at(urgency) <= Instant::now()
                && self.write_report(config, report.as_ref(), observed).await
            {
                self.tell_transition(config, report.as_ref(), outcome, runtime);
            }
            if self.status.ready_at(urgency) > Instant::now() {
                return Some(self.status.ready_at(urgency));
            }
        }
        if outcome.is_some() {
            self.status.up_to_date();
        }
        self.transitions.as_ref().and_then(|(_, transitions)| transitions.due_at())
    }

    /// What the status says of this component. Half an entry is as good as a wrong one, and is written anew.
    fn reported<'a>(&self, config: &'a ObservedConfig) -> Option<accelerator_operand::Parts<'a>> {
        let component = self.component();
        let entry = config.status.component(component.operand);
        let condition = config.status.condition(component.condition_type);
        (entry.is_some() || condition.is_some()).then_some((entry, condition))
    }

    /// Returns whether it is written.
    async fn write_report(&mut self, config: &ObservedConfig, report: Option<&Report>, observed: Option<i64>) -> bool {
        let mut body = report.map_or_else(
            || json!({}),
            |report| json!({"components": [&report.entry], "conditions": [&report.condition]}),
        );
        if let Some(observed) = observed {
            body["observedGeneration"] = observed.into();
        }
        match self.status.write(config, &body).await {
            StatusWrite::Applied(written) => {
                self.configs.with(|store| store.answered(&config.name_any(), Arc::new(*written)));
                return true;
            }
            StatusWrite::NotFound | StatusWrite::Deferred => {}
        }
        false
    }

    /// An event when the component became ready, and when somebody may have to act. `config` is as it was before this
    /// report.
    fn tell_transition(
        &mut self,
        config: &ObservedConfig,
        report: Option<&Report>,
        outcome: Option<&Outcome>,
        runtime: &Runtime,
    ) {
        let Some(report) = report else { return };
        let uid = config.metadata.uid.clone().unwrap_or_default();
        if self.transitions.as_ref().is_none_or(|(known, _)| *known != uid) {
            let told = config.status.condition(self.component().condition_type);
            let transitions = told.map(|told| Transitions::resume(&told.reason, &told.message)).unwrap_or_default();
            self.transitions = Some((uid, transitions));
        }
        let needs_attention = matches!(outcome, Some(Outcome::Observed(seen)) if seen.needs_attention);
        let seen = Seen { reason: report.reason, message: &report.condition.message, needs_attention };
        let tell = self.transitions.as_mut().and_then(|(_, transitions)| transitions.observe(seen, Instant::now()));
        if let Some(tell) = tell {
            runtime.events.publish(EventRequest {
                regarding: config.object_ref(&()),
                warning: tell.warning,
                reason: tell.reason.as_str(),
                action: "Observe",
                note: format!("{}: {}", self.component().operand, report.condition.message),
            });
        }
    }
}

/// The observed generation that this controller vouches for. That is node-labeler's to say; where there is none, the
/// controllers say it together: only when every component that reports is as this generation asks for, because tools that
/// follow kstatus take an observed generation without a condition Ready for success.
fn observed_generation(config: &ObservedConfig, own: &Condition) -> Option<i64> {
    if config.status.condition(condition_types::ACCEPTED).is_some() {
        return None;
    }
    let generation = config.metadata.generation;
    let settled = |one: &Condition| {
        one.observed_generation == generation && (one.status == "True" || one.reason == Reason::Disabled.as_str())
    };
    let others = config.status.conditions.iter().filter(|one| one.type_ != own.type_);
    generation.filter(|_| settled(own) && others.clone().all(settled))
}

/// Whether the status says of the observed generation what this controller has to say: this one, or nothing.
fn has_observed(config: &ObservedConfig, observed: Option<i64>, manager: &str) -> bool {
    if observed.is_some() {
        return config.status.observed_generation == observed;
    }
    let entries = config.metadata.managed_fields.iter().flatten();
    let mut ours = entries.filter(|entry| entry.manager.as_deref() == Some(manager));
    !ours.any(|entry| entry.fields_v1.as_ref().is_some_and(|f| f.0["f:status"].get("f:observedGeneration").is_some()))
}

/// An event about what was done to the DaemonSet.
fn tell(
    active: Option<&ObservedConfig>,
    action: &'static str,
    (reason, note): (&'static str, String),
    runtime: &Runtime,
) {
    if let Some(config) = active {
        let regarding = config.object_ref(&());
        runtime.events.publish(EventRequest { regarding, warning: false, reason, action, note });
    }
}
