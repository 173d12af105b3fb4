//! What to write, given every AcceleratorConfig and the DaemonSet that exists.

use accelerator_api::contract::{Component, RENDERED_ANNOTATION};
use accelerator_api::{AcceleratorConfig, ObservedConfig, Rebellions, active};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use crate::{Placement, Template, difference};

/// What a plan depends on beside the objects themselves.
#[derive(Clone, Copy, Debug)]
pub struct PlanContext<'a> {
    /// Namespace of the DaemonSet.
    pub namespace: &'a str,
    /// An owner of the DaemonSet that outlives every AcceleratorConfig. As long as it lives, garbage collection does not
    /// end what runs when a CRD is deleted and takes its AcceleratorConfigs along.
    pub anchor: Option<&'a OwnerReference>,
    /// Whether it is certain that there is no AcceleratorConfig: not merely that none is known.
    pub vacant: bool,
}

impl<'a> PlanContext<'a> {
    /// Those of a DaemonSet in this namespace, with nothing else known.
    #[must_use]
    pub fn of(namespace: &'a str) -> Self {
        Self { namespace, anchor: None, vacant: false }
    }
}

/// What the component's controller should do now.
#[derive(Debug)]
pub struct Plan {
    /// Index of the AcceleratorConfig that counts.
    pub active: Option<usize>,
    /// The one thing to write, if any.
    pub write: Write,
}

/// What the AcceleratorConfig that counts asks for.
#[derive(Debug)]
pub struct Desire<'a> {
    /// Index of the AcceleratorConfig that counts.
    pub active: Option<usize>,
    /// What it asks for.
    pub desired: Desired<'a>,
}

/// The desired state of a component.
#[derive(Debug)]
pub enum Desired<'a> {
    /// The component runs, with this DaemonSet, by these settings.
    Present(Box<DaemonSet>, &'a Rebellions),
    /// Nobody asks for the component. With the reason, for people.
    Absent(String),
    /// No AcceleratorConfig is known, which is not the same as that there is none. Whatever exists stays.
    Unknown,
    /// The AcceleratorConfig that counts cannot be read. Everything stays as it is. With the parser's words.
    Unreadable(String),
}

/// A change to one DaemonSet, or why there is none.
#[derive(Debug)]
pub enum Write {
    /// It is as it should be.
    Nothing,
    /// Create it, or bring it to this state.
    Apply {
        /// The state.
        wanted: Box<DaemonSet>,
        /// Where the one that exists differs; empty when there is none.
        difference: String,
    },
    /// Remove it: nobody asks for the component. With the reason, for people.
    Delete(String),
    /// There is none and none is wanted. With the reason, for people.
    Absent(String),
    /// A DaemonSet of this name exists that we did not make. It is left alone.
    NameTaken(String),
    /// No AcceleratorConfig is known, which is not the same as that there is none. Whatever exists stays.
    LeaveAlone,
    /// The AcceleratorConfig that counts cannot be read. Everything stays as it is. With the parser's words.
    Unreadable(String),
}

/// Decides for a component with one DaemonSet. Disabled is the empty desired state: there is no other path that cleans up.
#[must_use]
pub fn plan(
    template: &Template,
    context: PlanContext<'_>,
    configs: &[&ObservedConfig],
    live: Option<&DaemonSet>,
) -> Plan {
    let Desire { active, desired } = desire(template, context, configs);
    let write = match desired {
        Desired::Present(wanted, _) => write(template.component(), *wanted, live),
        Desired::Absent(why) if live.is_some_and(|live| is_removable(template.component(), live)) => Write::Delete(why),
        // Of what there is before a look has found that there is no AcceleratorConfig, nothing is said.
        Desired::Absent(_) if active.is_none() => Write::LeaveAlone,
        Desired::Absent(why) => Write::Absent(why),
        Desired::Unknown => Write::LeaveAlone,
        Desired::Unreadable(why) => Write::Unreadable(why),
    };
    Plan { active, write }
}

/// What is asked for.
#[must_use]
pub fn desire<'a>(template: &Template, context: PlanContext<'_>, configs: &[&'a ObservedConfig]) -> Desire<'a> {
    let active = active(configs.iter().map(|config| &config.metadata));
    let desired = match active.map(|index| &configs[index].spec) {
        None if context.vacant => Desired::Absent("there is no AcceleratorConfig".into()),
        None => Desired::Unknown,
        Some(Err(why)) => Desired::Unreadable(why.clone()),
        Some(Ok(spec)) => wanted(template, context, spec.providers.rebellions.as_ref(), configs)
            .map_or_else(Desired::Absent, |(wanted, settings)| Desired::Present(Box::new(wanted), settings)),
    };
    Desire { active, desired }
}

/// What to write so that this DaemonSet is as wanted.
#[must_use]
pub fn write(component: &Component, wanted: DaemonSet, live: Option<&DaemonSet>) -> Write {
    match live {
        Some(live) if !is_ours(component, live) => Write::NameTaken(format!(
            "DaemonSet {}/{} exists and was not made by {}; rename or delete it",
            wanted.namespace().unwrap_or_default(),
            wanted.name_any(),
            component.controller
        )),
        // Under deletion it can only be waited for; the next event is its end.
        Some(live) if live.metadata.deletion_timestamp.is_some() => Write::Nothing,
        live => match live.map(|live| daemon_set_difference(live, &wanted)) {
            Some(None) => Write::Nothing,
            difference => {
                Write::Apply { wanted: Box::new(wanted), difference: difference.flatten().unwrap_or_default() }
            }
        },
    }
}

/// The DaemonSet that is wanted and the settings that it comes from, or why none is.
fn wanted<'a>(
    template: &Template,
    context: PlanContext<'_>,
    rebellions: Option<&'a Rebellions>,
    configs: &[&ObservedConfig],
) -> Result<(DaemonSet, &'a Rebellions), String> {
    let path = template.component().path;
    let rebellions = rebellions.ok_or("there is no section spec.providers.rebellions")?;
    let section = (template.component().section)(rebellions).ok_or_else(|| format!("there is no section {path}"))?;
    if !section.enabled {
        return Err(format!("{path}.enabled is false"));
    }
    let owners = context.anchor.cloned().into_iter().chain(owners(configs)).collect();
    let placement = Placement { namespace: context.namespace.into(), owners };
    Ok((template.render(rebellions, section, &placement), rebellions))
}

/// Every AcceleratorConfig owns the DaemonSet, so that the next one takes over a running operand when the first goes.
fn owners(configs: &[&ObservedConfig]) -> Vec<OwnerReference> {
    let lasting = configs.iter().filter(|config| config.metadata.deletion_timestamp.is_none());
    let mut owners: Vec<_> = lasting
        .map(|config| OwnerReference {
            api_version: AcceleratorConfig::api_version(&()).into(),
            kind: AcceleratorConfig::kind(&()).into(),
            name: config.name_any(),
            uid: config.uid().unwrap_or_default(),
            ..OwnerReference::default()
        })
        .collect();
    owners.sort_by(|a, b| a.uid.cmp(&b.uid));
    owners
}

/// Whether the component's controller made this DaemonSet: it carries our mark, or our field manager applied it.
#[must_use]
pub fn is_ours(component: &Component, live: &DaemonSet) -> bool {
    live.annotations().contains_key(RENDERED_ANNOTATION)
        || live.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(component.controller))
}

/// Whether it is there to be removed by us.
#[must_use]
pub fn is_removable(component: &Component, live: &DaemonSet) -> bool {
    is_ours(component, live) && live.metadata.deletion_timestamp.is_none()
}

/// Where a DaemonSet is not as wanted: the first such field, or `None`. What is there beside what is wanted is no difference.
#[must_use]
pub fn daemon_set_difference(live: &DaemonSet, wanted: &DaemonSet) -> Option<String> {
    // By way of text, as it is sent: a second serialiser of DaemonSets would be code for nothing.
    let json = |daemon_set| -> Value {
        let text = serde_json::to_vec(daemon_set).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    };
    difference(&json(live), &json(wanted))
}
