//! What must not change when programs of another version take over, as pure functions of what was seen before and after.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{
    COMPONENTS, Component, DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_ANNOTATION,
    DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_STATE_LABEL, OWNED_LABELS_ANNOTATION,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;
use serde_json::{Map, Value};
use testbed::{Cluster, Request};

use crate::LABELER;

/// A DaemonSet of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub uid: String,
    pub template: Value,
    /// Who has written it.
    pub managers: BTreeSet<String>,
}

/// What there is of ours at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Operand pods as `component@node`, each with its uid.
    pub pods: BTreeMap<String, String>,
    /// DaemonSets by name.
    pub daemon_sets: BTreeMap<String, Seen>,
}

/// What happened between two snapshots.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step<'a> {
    /// The program that is of another version now.
    pub switched: Option<&'a str>,
    /// Components that an admin asked to change.
    pub asked: &'a [&'a str],
}

impl Snapshot {
    pub async fn of(cluster: &Cluster) -> Self {
        let seen = |daemon_set: DaemonSet| {
            let managers = daemon_set.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
            let template = daemon_set.spec.as_ref().map(|spec| &spec.template);
            let template = serde_json::to_value(template).unwrap_or_default();
            (daemon_set.name_any(), Seen { uid: daemon_set.uid().unwrap_or_default(), template, managers })
        };
        let daemon_sets = cluster.daemon_sets().await.into_iter().map(seen).collect();
        Self { pods: cluster.pods().await, daemon_sets }
    }

    /// Pods that are there no more, or are others, as `component@node`.
    pub fn replaced(&self, after: &Self) -> Vec<String> {
        let is_other = |(name, uid): &(&String, &String)| after.pods.get(*name) != Some(*uid);
        self.pods.iter().filter(is_other).map(|(name, _)| name.clone()).collect()
    }

    /// What is not as it must be after a step.
    pub fn violations(&self, after: &Self, step: Step<'_>, requests: &[Request]) -> Vec<String> {
        let mut told = vec![];
        let mut changed = BTreeSet::new();
        for (name, before) in &self.daemon_sets {
            let component = component_of(name);
            let may_change = component.is_some_and(|component| {
                step.switched == Some(component.controller) || step.asked.contains(&component.name)
            });
            match after.daemon_sets.get(name) {
                None if !may_change => told.push(format!("DaemonSet {name} is gone")),
                None => {}
                Some(now) if now.uid != before.uid => told.push(format!("DaemonSet {name} was made anew")),
                Some(now) => {
                    if now.template != before.template && !may_change {
                        told.push(format!("the pods of DaemonSet {name} are wanted otherwise"));
                    }
                    let news = now.managers.difference(&before.managers);
                    told.extend(news.map(|manager| format!("DaemonSet {name} has the new field manager {manager}")));
                }
            }
            if may_change && after.daemon_sets.get(name).is_none_or(|now| now.template != before.template) {
                changed.extend(component.map(|component| component.name));
            }
        }
        for pod in self.replaced(after) {
            let component = pod.split('@').next().unwrap_or_default();
            if !changed.contains(component) && !step.asked.contains(&component) {
                told.push(format!("pod {pod} was replaced"));
            }
        }
        let writes =
            requests.iter().filter(|request| request.is_ours() && request.is_write() && request.has_succeeded());
        told.extend(writes.filter_map(|request| objection(request, step)));
        told
    }
}

/// The component that a DaemonSet is of; the driver has one for each pool.
fn component_of(daemon_set: &str) -> Option<&'static Component> {
    let is_of_a_pool = daemon_set.strip_prefix(DRIVER.operand).is_some_and(|rest| rest.starts_with('-'));
    let component = COMPONENTS.into_iter().find(|component| component.operand == daemon_set);
    component.or_else(|| is_of_a_pool.then_some(&DRIVER))
}

/// What is wrong with a write: that the object, or what it changes of it, is not its writer's, or that nobody asked for it.
fn objection(request: &Request, step: Step<'_>) -> Option<String> {
    let is_quiet = step.asked.is_empty();
    let is_own = match request.resource.as_str() {
        "events" => true,
        "leases" => request.name == request.user,
        "acceleratorconfigs/status" => writes_own_status(&request.user, &request.json()["status"]),
        "nodes" => !is_quiet && writes_own_keys(&request.user, &request.json()),
        "daemonsets" => {
            let is_its = component_of(&request.name).is_some_and(|component| component.controller == request.user);
            is_its && (!is_quiet || step.switched == Some(request.user.as_str()))
        }
        "pods" => !is_quiet && request.user == DRIVER.controller && request.name.starts_with(DRIVER.operand),
        "pods/eviction" => !is_quiet && request.user == DRIVER.controller,
        _ => false,
    };
    (!is_own).then(|| format!("a write that is not its writer's, or that nobody asked for: {request}"))
}

fn writes_own_status(user: &str, status: &Value) -> bool {
    let keys: Vec<_> = members(status).map(|(key, _)| key.as_str()).collect();
    let values = |list: &str, key: &str| {
        let items = status[list].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item[key].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    if user == LABELER {
        let types = ["Ready", "Accepted", "Stalled"];
        return keys.iter().all(|key| ["conditions", "nodes", "observedGeneration"].contains(key))
            && values("conditions", "type").iter().all(|kind| types.contains(&kind.as_str()));
    }
    let Some(component) = COMPONENTS.into_iter().find(|component| component.controller == user) else { return false };
    // The driver's has further ones that begin alike.
    let stem = component.condition_type.trim_end_matches("Ready");
    keys.iter().all(|key| ["conditions", "components"].contains(key))
        && values("conditions", "type").iter().all(|kind| kind.starts_with(stem))
        && values("components", "name").iter().all(|name| name == component.operand)
}

/// Whether a patch of a node changes keys of its writer alone.
fn writes_own_keys(user: &str, patch: &Value) -> bool {
    let (labels, annotations): (Vec<_>, &[_]) = if user == LABELER {
        (COMPONENTS.map(|component| component.deploy_label).to_vec(), &[OWNED_LABELS_ANNOTATION])
    } else if user == DRIVER.controller {
        let annotations =
            &[DRIVER_UPGRADE_ANNOTATION, DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER_UPGRADE_REQUESTED_ANNOTATION];
        (vec![DRIVER_POOL_LABEL, DRIVER_UPGRADE_STATE_LABEL], annotations)
    } else {
        return false;
    };
    let only = |value: &Value, keys: &[&str]| members(value).all(|(key, _)| keys.contains(&key.as_str()));
    let cordon: &[&str] = if user == LABELER { &[] } else { &["unschedulable"] };
    only(patch, &["apiVersion", "kind", "metadata", "spec"])
        && only(&patch["metadata"], &["labels", "annotations", "resourceVersion", "uid", "name"])
        && only(&patch["metadata"]["labels"], &labels)
        && only(&patch["metadata"]["annotations"], annotations)
        && only(&patch["spec"], cordon)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

mod tests {
    use serde_json::json;

    use super::*;

    const SWITCHED: Step<'_> = Step { switched: Some("rebellions-device-plugin-controller"), asked: &[] };

    fn snapshot() -> Snapshot {
        let names = ["rebellions-driver-a", "rebellions-device-plugin", "rebellions-metric-exporter"];
        let seen = |name: &str| {
            let managers = ["kube-controller-manager".to_owned(), "its controller".to_owned()].into();
            (name.to_owned(), Seen { uid: format!("uid of {name}"), template: json!({"image": "1"}), managers })
        };
        let pods =
            ["driver@a", "device-plugin@a", "metric-exporter@a"].map(|pod| (pod.to_owned(), format!("uid of {pod}")));
        Snapshot { pods: pods.into(), daemon_sets: names.map(seen).into() }
    }

    fn write(user: &str, resource: &str, name: &str, body: &Value) -> Request {
        Request::of(user, "patch", resource, name, body)
    }

    /// Each way in which it can go wrong is told, and what belongs to a step is not.
    #[test]
    fn whatever_an_upgrade_must_not_do_is_told() {
        let before = snapshot();
        let told = |step: Step<'_>, change: &dyn Fn(&mut Snapshot)| {
            let mut after = snapshot();
            change(&mut after);
            before.violations(&after, step, &[])
        };
        let other =
            |pod: &'static str| move |after: &mut Snapshot| *after.pods.get_mut(pod).expect("a pod") = "other".into();
        let wanted = |name: &'static str| {
            move |after: &mut Snapshot| after.daemon_sets.get_mut(name).expect("one").template = json!({"image": "2"})
        };
        assert_eq!(told(SWITCHED, &|_| {}), Vec::<String>::new());
        assert_eq!(told(SWITCHED, &other("device-plugin@a")), ["pod device-plugin@a was replaced"]);
        assert_eq!(told(SWITCHED, &|after| after.pods.clear()).len(), 3);
        let both = |after: &mut Snapshot| {
            other("device-plugin@a")(after);
            wanted("rebellions-device-plugin")(after);
        };
        assert_eq!(told(SWITCHED, &both), Vec::<String>::new(), "its own template changed");
        assert_eq!(told(Step::default(), &both).len(), 2, "nobody's version changed");
        let neighbour = told(SWITCHED, &wanted("rebellions-metric-exporter"));
        assert_eq!(neighbour, ["the pods of DaemonSet rebellions-metric-exporter are wanted otherwise"]);
        let anew =
            told(SWITCHED, &|after| after.daemon_sets.get_mut("rebellions-driver-a").expect("one").uid = "2".into());
        assert_eq!(anew, ["DaemonSet rebellions-driver-a was made anew"]);
        let gone = told(SWITCHED, &|after| drop(after.daemon_sets.remove("rebellions-driver-a")));
        assert_eq!(gone, ["DaemonSet rebellions-driver-a is gone"]);
        let manager = told(SWITCHED, &|after| {
            after.daemon_sets.get_mut("rebellions-device-plugin").expect("one").managers.insert("renamed".into());
        });
        assert_eq!(manager, ["DaemonSet rebellions-device-plugin has the new field manager renamed"]);
        let asked = Step { switched: None, asked: &["metric-exporter"] };
        assert_eq!(told(asked, &other("metric-exporter@a")), Vec::<String>::new());
    }

    #[test]
    fn a_write_that_is_not_its_writers_is_told() {
        let (plugin, driver) = ("rebellions-device-plugin-controller", "rebellions-driver-controller");
        let step = Step { switched: Some(plugin), asked: &[] };
        let work = Step { switched: None, asked: &["driver"] };
        let is_told =
            |step: Step<'_>, request: Request| !snapshot().violations(&snapshot(), step, &[request]).is_empty();
        let labels = |key: &str| json!({"metadata": {"labels": {key: "true"}}});
        let conditions = |kind: &str| json!({"status": {"conditions": [{"type": kind}]}});
        for (expected, step, request) in [
            (false, step, write(plugin, "daemonsets", "rebellions-device-plugin", &json!({}))),
            (true, Step::default(), write(plugin, "daemonsets", "rebellions-device-plugin", &json!({}))),
            (true, step, write(plugin, "daemonsets", "rebellions-driver", &json!({}))),
            (false, work, write(driver, "daemonsets", "rebellions-driver-a", &json!({}))),
            (true, work, write(driver, "daemonsets", "rebellions-drivers", &json!({}))),
            (false, step, write(plugin, "acceleratorconfigs/status", "x", &conditions("RebellionsDevicePluginReady"))),
            (true, step, write(plugin, "acceleratorconfigs/status", "x", &conditions("Ready"))),
            (false, step, write(LABELER, "acceleratorconfigs/status", "x", &conditions("Ready"))),
            (true, step, write(LABELER, "acceleratorconfigs/status", "x", &conditions("RebellionsDevicePluginReady"))),
            (true, step, write(plugin, "acceleratorconfigs", "x", &json!({"spec": {}}))),
            (true, step, write(LABELER, "nodes", "n", &labels("rebellions.ai/npu.deploy.driver"))),
            (false, work, write(LABELER, "nodes", "n", &labels("rebellions.ai/npu.deploy.driver"))),
            (true, work, write(LABELER, "nodes", "n", &labels("rebellions.ai/npu.workload.config"))),
            (true, work, write(LABELER, "nodes", "n", &json!({"spec": {"unschedulable": true}}))),
            (false, work, write(driver, "nodes", "n", &json!({"spec": {"unschedulable": true}}))),
            (true, work, write(plugin, "nodes", "n", &labels("rebellions.ai/npu.deploy.driver"))),
            (false, step, write(plugin, "leases", plugin, &json!({}))),
            (true, step, write(plugin, "leases", driver, &json!({}))),
            (true, step, write(plugin, "configmaps", "x", &json!({}))),
        ] {
            let text = request.to_string();
            assert_eq!(is_told(step, request), expected, "{step:?}: {text}");
        }
    }
}
