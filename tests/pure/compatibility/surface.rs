//! What others rely on beside the CRD, read from the code: keys on nodes, names, selectors, options, metrics and words of the
//! status.

use std::collections::BTreeMap;

use accelerator_api::condition_types::{ACCEPTED, DRIVER_UPGRADE_BLOCKED, DRIVER_UPGRADE_PROGRESSING, READY, STALLED};
use accelerator_api::contract::NODE_LABELER;
use accelerator_api::{ComponentSpec, Reason, Rebellions};
use accelerator_operand::{Operand, Placement};
use accelerator_runtime::Options;
use clap::{Args, Command, CommandFactory};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Container;
use testbed::repository::{operands, root};

use super::metrics;
use crate::files::read;

/// By group and name, what it is.
pub type Surface = BTreeMap<String, BTreeMap<String, String>>;

type Group = BTreeMap<String, String>;

/// That of the code as it is.
pub fn of_the_code() -> Surface {
    let groups = [
        ("keys of nodes, pods and DaemonSets", keys()),
        ("values that mean something", values()),
        ("names of components", components()),
        ("DaemonSets by default", operands().iter().flat_map(|operand| daemon_set(operand)).collect()),
        ("options", options()),
        ("metrics", metrics::of_the_code()),
        ("condition types", condition_types()),
        ("reasons", Reason::ALL.iter().map(|reason| entry(reason.as_str(), reason.status())).collect()),
    ];
    groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect()
}

/// What one surface has that another lacks or has otherwise.
pub fn changed(old: &Surface, new: &Surface) -> Vec<String> {
    let entries = old.iter().flat_map(|(group, names)| names.iter().map(move |(name, meaning)| (group, name, meaning)));
    let told = entries.filter_map(|(group, name, meaning)| match new.get(group).and_then(|names| names.get(name)) {
        Some(now) if now == meaning => None,
        Some(now) => Some(format!("{group}: {name} was {meaning}, is {now}")),
        None => Some(format!("{group}: {name} ({meaning}) is gone")),
    });
    told.collect()
}

fn entry(name: impl Into<String>, meaning: impl Into<String>) -> (String, String) {
    (name.into(), meaning.into())
}

/// Each text constant of the contract, as its name and its value.
fn constants() -> Vec<(String, String)> {
    let text = read(&root().join("crates/accelerator-api/src/contract.rs"));
    let parts = text.split("\npub const ").skip(1).filter_map(|rest| rest.split(';').next());
    let texts = parts.filter_map(|constant| {
        let (name, value) = constant.split_once(": &str =")?;
        Some(entry(name, value.trim().trim_matches('"')))
    });
    texts.collect()
}

const KINDS: &[(&str, &str)] = &[("_LABEL", "label"), ("_ANNOTATION", "annotation"), ("_TAINT", "taint")];

fn keys() -> Group {
    let keys = constants().into_iter().filter_map(|(name, value)| {
        let (_, kind) = KINDS.iter().find(|(ending, _)| name.ends_with(ending))?;
        Some(entry(value, *kind))
    });
    keys.chain(operands().map(|operand| entry(operand.component.deploy_label, "label"))).collect()
}

fn values() -> Group {
    let is_key = |name: &str| KINDS.iter().any(|(ending, _)| name.ends_with(ending));
    let values = constants().into_iter().filter(|(name, _)| !is_key(name) && name != "NODE_LABELER");
    values.map(|(name, value)| (name.to_lowercase().replace('_', " "), value)).collect()
}

fn components() -> Group {
    let program = "program, image, Deployment, service account, Lease and field manager";
    let of = |operand: &Operand| {
        let component = operand.component;
        let modes: Vec<_> = component.workloads.iter().map(|workload| workload.as_str()).collect();
        [
            ("controller", component.controller.to_owned()),
            ("DaemonSet and status entry", component.operand.to_owned()),
            ("deploy label", component.deploy_label.to_owned()),
            ("section", component.path.to_owned()),
            ("modes", modes.join(", ")),
        ]
        .map(|(what, value)| entry(format!("{}: {what}", component.name), value))
    };
    operands().into_iter().flat_map(of).chain([entry(NODE_LABELER, program)]).collect()
}

fn condition_types() -> Group {
    let own = operands().map(|operand| entry(operand.component.condition_type, operand.component.controller));
    let driver =
        [DRIVER_UPGRADE_PROGRESSING, DRIVER_UPGRADE_BLOCKED].map(|kind| entry(kind, "the driver's controller"));
    let labeler = [READY, ACCEPTED, STALLED].map(|kind| entry(kind, NODE_LABELER));
    own.into_iter().chain(driver).chain(labeler).collect()
}

/// What a change of would make a DaemonSet anew, move it to other nodes, or break who scrapes its pods or follows their logs.
fn daemon_set(operand: &'static Operand) -> Vec<(String, String)> {
    let placement = Placement { namespace: "rebellions".into(), ..Placement::default() };
    let template = operand.template().expect("a manifest");
    let DaemonSet { spec, .. } = template.render(&Rebellions::default(), &ComponentSpec::default(), &placement);
    let spec = spec.expect("a spec");
    let pod = spec.template.spec.expect("a pod");
    let pairs = |map: Option<BTreeMap<String, String>>| {
        let pairs: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(", ")
    };
    let mut told = vec![
        ("selector".to_owned(), pairs(spec.selector.match_labels)),
        ("node selector".to_owned(), pairs(pod.node_selector)),
        ("service account".to_owned(), pod.service_account_name.unwrap_or_default()),
        ("update".to_owned(), spec.update_strategy.and_then(|strategy| strategy.type_).unwrap_or_default()),
    ];
    for container in pod.containers.iter().chain(pod.init_containers.iter().flatten()) {
        told.push((format!("container {}", container.name), ports(container)));
    }
    told.into_iter().map(|(what, value)| entry(format!("{}: {what}", operand.component.operand), value)).collect()
}

fn ports(container: &Container) -> String {
    let port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        format!("{} {}", port.name.as_deref().unwrap_or("port"), port.container_port)
    };
    let ports: Vec<_> = container.ports.iter().flatten().map(port).collect();
    if ports.is_empty() { "no port".into() } else { ports.join(", ") }
}

fn options() -> Group {
    let common = Options::augment_args(Command::new("every controller"));
    let mut all = vec![];
    collect("every controller", &common, &[], &mut all);
    let known: Vec<_> = common.get_arguments().filter_map(|argument| argument.get_long()).collect();
    collect(NODE_LABELER, &node_labeler::options::Command::command(), &known, &mut all);
    collect("rebellions-vfio-manager", &rebellions_vfio_manager::options::Options::command(), &[], &mut all);
    all.into_iter().collect()
}

/// Options of a command and of those below it, but for the known ones.
fn collect(program: &str, command: &Command, known: &[&str], all: &mut Vec<(String, String)>) {
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long().filter(|long| !known.contains(long)) else { continue };
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let mut meaning = variable.unwrap_or_else(|| "no variable".into());
        if !defaults.is_empty() {
            meaning = format!("{meaning}, default {:?}", defaults.join(" "));
        }
        all.push(entry(format!("{program} --{long}"), meaning));
    }
    for below in command.get_subcommands() {
        let name = format!("{program} {}", below.get_name());
        all.push(entry(name.clone(), "command"));
        collect(&name, below, known, all);
    }
}
