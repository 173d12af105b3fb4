//! The DaemonSet of a pool, made of the one that is rendered for all.

use accelerator_api::Rebellions;
use accelerator_api::contract::{DRIVER, DRIVER_INSTALL_ANNOTATION, DRIVER_KERNEL_ANNOTATION, DRIVER_POOL_LABEL};
use accelerator_operand::stamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

use crate::install::Install;
use crate::pool::daemon_set_name;
use crate::pools::Pool;

/// The driver manager compares this variable with what is loaded, and leaves the driver alone when it is the same.
const DIGEST_VARIABLE: &str = "DRIVER_CONFIG_DIGEST";

/// The init container that compares.
const MANAGER: &str = "k8s-driver-manager";

/// The label by which a DaemonSet finds its own pods.
const SELECTED: &str = "name";

/// The label by which this controller finds all pods of the driver.
const COMMON: &str = "app.kubernetes.io/name";

/// The DaemonSet `rebellions-driver`: for every node that is in no pool.
pub fn for_all(daemon_set: &mut DaemonSet, _: &Rebellions) {
    lay(daemon_set, None, None);
}

/// The DaemonSet of a pool. `rendered` is the one for all nodes with the same settings.
#[must_use]
pub fn for_pool(rendered: &DaemonSet, pool: &Pool) -> DaemonSet {
    let mut daemon_set = rendered.clone();
    if let Some(pod) = pod_spec(&mut daemon_set) {
        pool.history.current.apply(pod);
    }
    lay(&mut daemon_set, pool.name.as_deref(), pool.key.kernel.as_deref());
    pool.history.annotate(&mut daemon_set);
    // What was rendered is another one now.
    stamp(&mut daemon_set);
    daemon_set
}

/// Lays over a DaemonSet what depends on what it installs and on which nodes. The same again changes nothing.
fn lay(daemon_set: &mut DaemonSet, pool: Option<&str>, kernel: Option<&str>) {
    let name = daemon_set_name(pool);
    daemon_set.metadata.name = Some(name.clone());
    let Some(spec) = &mut daemon_set.spec else { return };
    spec.selector.match_labels.get_or_insert_default().insert(SELECTED.into(), name.clone());
    let metadata = spec.template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(SELECTED.into(), name);
    labels.insert(COMMON.into(), DRIVER.operand.into());
    let Some(pod) = &mut spec.template.spec else { return };
    let install = Install::of(pod).unwrap_or_default().digest();
    tell_manager(pod, &install);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(DRIVER_INSTALL_ANNOTATION.into(), install);
    annotations.extend(kernel.map(|kernel| (DRIVER_KERNEL_ANNOTATION.to_owned(), kernel.to_owned())));
    select_nodes(pod, pool);
    if let Some(pool) = pool {
        labels.insert(DRIVER_POOL_LABEL.into(), pool.into());
        daemon_set.metadata.labels.get_or_insert_default().insert(DRIVER_POOL_LABEL.into(), pool.into());
    }
}

/// The nodes of a pool, or those of none. An admin's affinity stays: each of its terms asks for that as well.
fn select_nodes(pod: &mut PodSpec, pool: Option<&str>) {
    let mut terms = required_terms(pod.affinity.take());
    if let Some(pool) = pool {
        pod.node_selector.get_or_insert_default().insert(DRIVER_POOL_LABEL.into(), pool.into());
    } else {
        let is_in_none =
            NodeSelectorRequirement { key: DRIVER_POOL_LABEL.into(), operator: "DoesNotExist".into(), values: None };
        if terms.is_empty() {
            terms.push(NodeSelectorTerm { match_expressions: Some(vec![]), match_fields: None });
        }
        // A term without requirements is true of no node, and stays so.
        for expressions in terms.iter_mut().filter_map(|term| term.match_expressions.as_mut()) {
            expressions.push(is_in_none.clone());
        }
    }
    if terms.is_empty() {
        return;
    }
    let node_affinity = Some(NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms: terms }),
        ..NodeAffinity::default()
    });
    pod.affinity = Some(Affinity { node_affinity, ..Affinity::default() });
}

/// The terms of an affinity, without what [`select_nodes`] added.
fn required_terms(affinity: Option<Affinity>) -> Vec<NodeSelectorTerm> {
    let node_affinity = affinity.and_then(|affinity| affinity.node_affinity);
    let required = node_affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution);
    let mut terms = required.map(|required| required.node_selector_terms).unwrap_or_default();
    terms.retain_mut(|term| {
        let Some(expressions) = &mut term.match_expressions else { return true };
        expressions.retain(|one| one.key != DRIVER_POOL_LABEL);
        !expressions.is_empty()
    });
    terms
}

/// Tells the driver manager, which runs before the driver's container, what that container is going to install.
fn tell_manager(pod: &mut PodSpec, install: &str) {
    for manager in pod.init_containers.iter_mut().flatten().filter(|one| one.name == MANAGER) {
        let variables = manager.env.get_or_insert_default();
        variables.retain(|variable| variable.name != DIGEST_VARIABLE);
        variables.push(EnvVar { name: DIGEST_VARIABLE.into(), value: Some(install.into()), value_from: None });
    }
}

fn pod_spec(daemon_set: &mut DaemonSet) -> Option<&mut PodSpec> {
    daemon_set.spec.as_mut()?.template.spec.as_mut()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use accelerator_api::contract::RENDERED_ANNOTATION;
    use accelerator_api::{DriverSpec, Rebellions};
    use accelerator_operand::Placement;
    use serde_json::{Value, json};

    use super::*;
    use crate::OPERAND;
    use crate::install::History;
    use crate::node::NodeView;
    use crate::pools::{Request, pools};

    fn rebellions(settings: &Value) -> Rebellions {
        let mut section = json!({"driver": {"enabled": true}});
        for (key, value) in settings.as_object().expect("an object") {
            section[key] = value.clone();
        }
        serde_json::from_value(section).expect("a section")
    }

    /// What these settings render to, for all nodes and for the pool of a node.
    fn render(settings: &Value) -> (Value, Value) {
        let rebellions = rebellions(settings);
        let section: &DriverSpec = rebellions.driver.as_ref().expect("a section");
        let template = OPERAND.template().expect("a manifest");
        let rendered = template.render(&rebellions, &section.component, &Placement::default());
        let request = Request::of(section, &rendered).expect("a container");
        let node = NodeView {
            name: "n".into(),
            deploys_driver: true,
            kernel: Some("5.15.0-130-generic".into()),
            os: Some("ubuntu22.04".into()),
            labels: (&BTreeMap::from([("rack".to_owned(), "x".to_owned())])).into(),
            ..NodeView::default()
        };
        let pools = pools(Some(&request), &[&node], &[], &[]);
        let json = |daemon_set: &DaemonSet| serde_json::to_value(daemon_set).expect("JSON");
        (json(&rendered), json(&for_pool(&rendered, &pools.wanted[0])))
    }

    #[test]
    fn a_pool_has_its_name_its_nodes_and_its_image() {
        let (_, pool) = render(&json!({}));
        let name = "rebellions-driver-ubuntu22.04-5.15.0-130-generic";
        assert_eq!(pool["metadata"]["name"], name);
        assert_eq!(pool["spec"]["selector"]["matchLabels"], json!({"name": name}));
        let template = &pool["spec"]["template"];
        assert_eq!(
            template["metadata"]["labels"],
            json!({"name": name, "app.kubernetes.io/name": "rebellions-driver",
                   "rebellions.ai/npu-driver-pool": "ubuntu22.04-5.15.0-130-generic"})
        );
        assert_eq!(template["metadata"]["annotations"]["petasus.io/driver-kernel"], "5.15.0-130-generic");
        assert_eq!(
            template["spec"]["nodeSelector"],
            json!({"rebellions.ai/npu.deploy.driver": "true", "rebellions.ai/npu-driver-pool": "ubuntu22.04-5.15.0-130-generic"})
        );
        assert_eq!(template["spec"].get("affinity"), None);
        let image = "repo.rebellions.ai/rebellions/rbln-driver:3.0.0-5.15.0-130-generic-ubuntu22.04";
        assert_eq!(template["spec"]["containers"][0]["image"], image);
    }

    #[test]
    fn the_daemon_set_for_all_keeps_its_name_and_off_the_pools_nodes() {
        let (all, _) = render(&json!({}));
        assert_eq!(all["metadata"]["name"], "rebellions-driver");
        let terms =
            json!([{"matchExpressions": [{"key": "rebellions.ai/npu-driver-pool", "operator": "DoesNotExist"}]}]);
        let affinity = &all["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        assert_eq!(affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"], terms);
    }

    /// What an admin asks of nodes stays beside what pools ask of them, and no DaemonSet serves another's nodes.
    #[test]
    fn an_affinity_and_a_node_selector_hold_in_every_daemon_set() {
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let rack = json!({"key": "rack", "operator": "Exists"});
        let terms = json!([{"matchExpressions": [zone]}, {"matchExpressions": [rack]}]);
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        let settings = json!({"driver": {"enabled": true, "affinity": {"nodeAffinity": required},
            "nodeSelector": {"rack": "x"}}});
        let (all, pool) = render(&settings);
        let selector = |one: &Value| one["spec"]["template"]["spec"]["nodeSelector"].clone();
        let affinity = |one: &Value| {
            let affinity = &one["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
            affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
        };
        assert_eq!(selector(&all), json!({"rack": "x", "rebellions.ai/npu.deploy.driver": "true"}));
        assert_eq!(
            selector(&pool),
            json!({"rack": "x", "rebellions.ai/npu.deploy.driver": "true",
                   "rebellions.ai/npu-driver-pool": "ubuntu22.04-5.15.0-130-generic"})
        );
        let none = json!({"key": "rebellions.ai/npu-driver-pool", "operator": "DoesNotExist"});
        assert_eq!(affinity(&all), json!([{"matchExpressions": [zone, none]}, {"matchExpressions": [rack, none]}]));
        assert_eq!(affinity(&pool), terms);
    }

    #[test]
    fn a_term_that_asks_for_nothing_is_true_of_no_node_and_stays_so() {
        let nobody =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}});
        for pool in [None, Some("p")] {
            let affinity = serde_json::from_value(nobody.clone()).expect("an affinity");
            let mut pod = PodSpec { affinity, ..PodSpec::default() };
            select_nodes(&mut pod, pool);
            assert_eq!(serde_json::to_value(pod.affinity).expect("JSON"), nobody, "{pool:?}");
        }
    }

    #[test]
    fn the_driver_manager_is_told_what_is_installed_once() {
        let manager = json!({"driver": {"enabled": true, "manager": {"env": [{"name": "DRIVER_CONFIG_DIGEST", "value": "mine"}]}}});
        for settings in [json!({}), manager] {
            let (all, pool) = render(&settings);
            for daemon_set in [&all, &pool] {
                let pod = &daemon_set["spec"]["template"]["spec"];
                let managers = pod["initContainers"].as_array().expect("containers").iter();
                let env = managers
                    .filter(|one| one["name"] == "k8s-driver-manager")
                    .flat_map(|one| one["env"].as_array().expect("env"));
                let told: Vec<_> =
                    env.filter(|one| one["name"] == "DRIVER_CONFIG_DIGEST").map(|one| &one["value"]).collect();
                let spec = serde_json::from_value(pod.clone()).expect("a pod");
                assert_eq!(told, [&Value::from(Install::of(&spec).expect("a container").digest())]);
                assert_eq!(
                    told,
                    [&daemon_set["spec"]["template"]["metadata"]["annotations"]["petasus.io/driver-install"]]
                );
            }
            assert_ne!(
                all["spec"]["template"]["metadata"]["annotations"],
                pool["spec"]["template"]["metadata"]["annotations"]
            );
        }
    }

    /// A label, a toleration or a limit never reloads a driver.
    #[test]
    fn settings_that_install_nothing_change_no_digest() {
        let digest = |settings: &Value| {
            let (all, pool) = render(settings);
            [all, pool]
                .map(|one| one["spec"]["template"]["metadata"]["annotations"]["petasus.io/driver-install"].clone())
        };
        let settings = json!({
            "daemonsets": {"labels": {"team": "x", "app.kubernetes.io/name": "mine"}, "annotations": {"a": "b"},
                           "tolerations": [{"operator": "Exists"}], "priorityClassName": "p", "kubeletRootDir": "/data",
                           "image": {"imagePullPolicy": "Always", "imagePullSecrets": ["s"]}},
            "driver": {"enabled": true, "resources": {"limits": {"cpu": "1"}}, "manager": {"image": {"tag": "v9"}},
                       "tolerations": [{"key": "a", "operator": "Exists"}]},
        });
        assert_eq!(digest(&settings), digest(&json!({})));
        let (all, pool) = render(&settings);
        for one in [all, pool] {
            let labels = &one["spec"]["template"]["metadata"]["labels"];
            assert_eq!(
                (&labels["app.kubernetes.io/name"], &labels["team"]),
                (&json!("rebellions-driver"), &json!("x"))
            );
        }
        let module = json!({"driver": {"enabled": true, "env": [{"name": "PARAMETER", "value": "1"}]}});
        assert_ne!(digest(&module), digest(&json!({})));
    }

    #[test]
    fn what_was_before_is_kept_on_the_daemon_set() {
        let rebellions = rebellions(&json!({}));
        let section = rebellions.driver.as_ref().expect("a section");
        let rendered =
            OPERAND.template().expect("a manifest").render(&rebellions, &section.component, &Placement::default());
        let install = |image: &str| Install { image: image.into(), ..Install::default() };
        let history =
            History { current: install("a"), last_good: Some(install("a")), rolled_back: Some("digest".into()) };
        let digest = history.current.digest();
        let pool = Pool {
            key: crate::pool::PoolKey::default(),
            name: Some("p".into()),
            history: history.clone(),
            digest,
            nodes: vec![],
        };
        let daemon_set = for_pool(&rendered, &pool);
        assert_eq!(History::of(&daemon_set), Some(history));
        assert_eq!(for_pool(&daemon_set, &pool), daemon_set, "the same again");
        let annotations = daemon_set.metadata.annotations.unwrap_or_default();
        assert_ne!(
            annotations.get(RENDERED_ANNOTATION),
            rendered.metadata.annotations.unwrap_or_default().get(RENDERED_ANNOTATION)
        );
    }
}
