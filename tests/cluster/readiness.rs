//! The condition Ready: a true summary, never true too early.

use accelerator_api::AcceleratorConfig;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, WatchParams};
use kube::core::WatchEvent;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Wait, eventually, eventually_within};

use crate::{CONTAINER, LABELER};

/// Whether Ready is true in this state of the object.
fn says_ready(config: &AcceleratorConfig) -> bool {
    let status = config.status.as_ref();
    status.and_then(|status| status.condition("Ready")).is_some_and(|ready| ready.status == "True")
}

/// Pods here take 3 s to become ready. In every state that anybody could see, Ready must not be true while a pod that
/// the labels ask for is missing.
#[tokio::test]
async fn never_true_while_pods_that_labels_ask_for_are_missing() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("first", 2, "container").await?;
    let mut section = Access::enable_all();
    section["daemonsets"] = json!({"annotations": {"sim.test/ready": "3s"}});
    cluster.configure("default", section).await?;
    let check = async |what: &str, nodes: usize| {
        let api = cluster.all::<AcceleratorConfig>();
        let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.expect("a watch"));
        let mut seen_false = false;
        loop {
            let event = watch.next().await.expect("the watch goes on").expect("a good event");
            let (WatchEvent::Added(config) | WatchEvent::Modified(config)) = event else {
                continue;
            };
            if !says_ready(&config) {
                seen_false = true;
            } else if seen_false {
                break;
            }
        }
        let daemon_sets = cluster.daemon_sets().await;
        for daemon_set in daemon_sets {
            let name = daemon_set.metadata.name.unwrap_or_default();
            let status = daemon_set.status.unwrap_or_default();
            let expected = if name == "rebellions-vfio-manager" { 0 } else { nodes };
            let ready = usize::try_from(status.number_ready).unwrap_or_default();
            assert_eq!(ready, expected, "{what}: {name} was not ready when Ready was first true");
        }
    };
    check("first install", 2).await;
    // The window in question: the label is there, the DaemonSet controller has not counted the node yet.
    cluster.npu_nodes("second", 3, "container").await?;
    check("nodes join", 5).await;
    Ok(())
}

#[tokio::test]
async fn it_names_what_is_missing() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let mut controllers = vec![cluster.start(LABELER).await, cluster.start("rebellions-driver-controller").await];
    cluster.npu_nodes("n", 1, "container").await?;
    cluster.configure("default", Access::enable(&["driver", "device-plugin"])).await?;
    let message = cluster.expect_condition("default", "Ready", "False/ComponentNotReporting").await;
    assert!(
        message.contains("device-plugin does not report; is rebellions-device-plugin-controller deployed?"),
        "{message}"
    );

    controllers.push(cluster.start("rebellions-device-plugin-controller").await);
    cluster.expect_ready("default").await;
    // Every condition is about the spec as it is.
    let config = cluster.config("default").await;
    let generations: Vec<_> = config["status"]["conditions"]
        .as_array()
        .expect("conditions")
        .iter()
        .map(|one| one["observedGeneration"].clone())
        .collect();
    assert!(generations.iter().all(|generation| *generation == config["metadata"]["generation"]), "{generations:?}");

    // A taint that the pods do not tolerate keeps the node out, and only the labeler can tell.
    cluster.kubectl(&["taint", "node", "n-0", "example.com/broken=:NoExecute"])?;
    let named = "False/ComponentsNotReady: driver: assigned to 1 node, but its DaemonSet counts 0: n-0 (its pods do not \
                 tolerate the taint example.com/broken:NoExecute)";
    cluster.expect_condition("default", "Ready", named).await;
    cluster.configure("default", with_toleration(Access::enable(&["driver", "device-plugin"]))).await?;
    cluster.expect_ready("default").await;
    Ok(())
}

fn with_toleration(mut section: Value) -> Value {
    section["daemonsets"] = json!({"tolerations": [{"key": "example.com/broken", "operator": "Exists"}]});
    section
}

/// One of three nodes keeps pods off, in each way, and only such nodes are asked for.
#[tokio::test]
async fn a_node_that_is_not_counted_is_named_with_its_taint_or_as_not_ready() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = [cluster.start(LABELER).await, cluster.start("rebellions-driver-controller").await];
    cluster.npu_nodes("n", 3, "container").await?;
    cluster.configure("default", Access::enable(&["driver"])).await?;
    cluster.expect_ready("default").await;

    let mark = cluster.mark()?;
    cluster.kubectl(&["taint", "node", "n-1", "example.com/team=a:NoExecute"])?;
    let tainted = "assigned to 3 nodes, but its DaemonSet counts 2: n-1 (its pods do not tolerate the taint \
                   example.com/team=a:NoExecute)";
    eventually("the taint to be named", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| ready.ends_with(tainted))
    })
    .await;
    let requests = mark.requests()?;
    let lists = requests.iter().filter(|one| one.user == LABELER && one.verb == "list" && one.resource == "nodes");
    assert_eq!(lists.count(), 1, "one look at one node");
    cluster.kubectl(&["taint", "node", "n-1", "example.com/team-"])?;
    cluster.expect_ready("default").await;

    // The node controller taints it, so that a pod that is gone is not made again.
    cluster.label("n-2", "sim.test/down", Some("Unknown")).await?;
    eventually("the node to be tainted", async || {
        let taints = cluster.kubectl(&["get", "node", "n-2", "-o", "jsonpath={.spec.taints}"]).unwrap_or_default();
        Wait::until(taints, |taints| taints.contains("unreachable"))
    })
    .await;
    let of_node = ["-n", OPERANDS, "delete", "pods", "--field-selector", "spec.nodeName=n-2"];
    cluster.kubectl(&[of_node.as_slice(), &["--force", "--grace-period=0", "--wait=false"]].concat())?;
    eventually_within(std::time::Duration::from_mins(1), "the node to be named", async || {
        let lost =
            "False/NodesNotReady: driver: assigned to 3 nodes, but its DaemonSet counts 2: n-2 (the node is not ready)";
        Wait::until(cluster.condition("default", "Ready").await, |ready| ready == lost)
    })
    .await;
    Ok(())
}

/// A node selector and an affinity leave nodes out that have the deploy label: they are named with the setting at once and without a
/// request, and what runs elsewhere runs on. No driver is replaced for it, nor by a toleration.
#[tokio::test]
async fn a_node_that_a_setting_leaves_out_is_named_with_the_setting() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let programs = [LABELER, "rebellions-driver-controller", "rebellions-device-plugin-controller"];
    let mut controllers = vec![];
    for program in programs {
        controllers.push(cluster.start(program).await);
    }
    cluster.npu_nodes("n", 3, "container").await?;
    cluster.label("n-0", "zone", Some("a")).await?;
    cluster.label("n-1", "zone", Some("a")).await?;
    // As NPU nodes often are, so that there would be something to look at.
    cluster.kubectl(&["taint", "node", "n-0", "n-1", "n-2", "rebellions.ai/npu=:NoSchedule"])?;
    let mut section = Access::enable(&["driver", "device-plugin"]);
    section["driver"]["upgradePolicy"] = json!({"autoUpgrade": true});
    cluster.configure("default", section.clone()).await?;
    cluster.expect_ready("default").await;
    let before = cluster.pods().await;

    let mark = cluster.mark()?;
    section["devicePlugin"]["nodeSelector"] = json!({"zone": "a"});
    cluster.configure("default", section.clone()).await?;
    let named = "False/ComponentsNotReady: device-plugin: assigned to 3 nodes, but its DaemonSet counts 2: n-2 (its labels do not \
                 match devicePlugin.nodeSelector: zone=a)";
    eventually("the node to be named", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| ready == named)
    })
    .await;
    // Longer than it takes until nodes are looked at.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let looks = mark.requests()?.into_iter().filter(|one| one.user == LABELER && one.resource == "nodes").count();
    assert_eq!(looks, 0, "what is watched is enough");

    // The driver's too, in pools that its own controller makes.
    let term = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
    section["devicePlugin"].as_object_mut().expect("a section").remove("nodeSelector");
    section["driver"]["affinity"] = json!({"nodeAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
    section["driver"]["tolerations"] = json!([{"key": "example.com/team", "operator": "Exists"}]);
    cluster.configure("default", section.clone()).await?;
    let named = "False/ComponentsNotReady: driver: assigned to 3 nodes, but its DaemonSet counts 2: n-2 (its labels do not match \
                 driver.affinity)";
    eventually("the node to be named", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| ready == named)
    })
    .await;
    let driver = |pods: &std::collections::BTreeMap<String, String>| -> Vec<_> {
        pods.iter().filter(|(name, _)| name.starts_with("driver@")).map(|(_, uid)| uid.clone()).collect()
    };
    let (old, now) = (driver(&before), driver(&cluster.pods().await));
    assert!(now.len() == 2 && now.iter().all(|uid| old.contains(uid)), "replaced: {old:?}, {now:?}");

    cluster.label("n-2", "zone", Some("b")).await?;
    cluster.expect_ready("default").await;
    let cordoned = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].spec.unschedulable}"])?;
    assert_eq!(cordoned, "", "no upgrade");
    Ok(())
}

/// Where NPU nodes are tainted as a rule, the one with a taint that pods do not tolerate is found among them, however old
/// that taint is.
#[tokio::test]
async fn of_many_tainted_nodes_the_one_that_keeps_pods_off_is_found_in_the_end() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = [cluster.start(LABELER).await, cluster.start("rebellions-driver-controller").await];
    cluster.npu_nodes("n", 70, "container").await?;
    cluster.kubectl(&["taint", "node", "n-0", "example.com/team=a:NoExecute"])?;
    // The API server tells times in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let others: Vec<_> = (1..70).map(|number| format!("n-{number}")).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    cluster.kubectl(&[&["taint", "node"], others.as_slice(), &["rebellions.ai/npu=:NoSchedule"]].concat())?;
    let mark = cluster.mark()?;
    cluster.configure("default", Access::enable(&["driver"])).await?;
    let named = "assigned to 70 nodes, but its DaemonSet counts 69: n-0 (its pods do not tolerate the taint \
                 example.com/team=a:NoExecute)";
    eventually_within(std::time::Duration::from_mins(2), "the taint to be named", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| ready.ends_with(named))
    })
    .await;
    let looks = mark.requests()?;
    let looks = looks.iter().filter(|one| one.user == LABELER && one.verb == "list" && one.resource == "nodes").count();
    assert!(looks <= 100, "{looks} reads in two looks");
    Ok(())
}

#[tokio::test]
async fn progress_of_a_rollout_is_told_at_most_once_a_second() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("p", 60, "container").await?;
    let mark = cluster.mark()?;
    let begun = std::time::Instant::now();
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;
    let seconds = usize::try_from(begun.elapsed().as_secs())? + 1;
    for program in testbed::repository::programs() {
        let writes = mark.our_writes()?;
        let writes = writes
            .iter()
            .filter(|write| write.user == program && write.resource == "acceleratorconfigs/status")
            .count();
        assert!(writes <= seconds + 1, "{program} wrote its status {writes} times in {seconds} s");
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_node_is_told_and_the_others_are_labelled() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let policy = "protect-node";
    for object in [
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": policy},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"]}]},
                "validations": [{
                    "expression": "object.metadata.name != 'f-1' || !request.userInfo.username.endsWith(':node-labeler')",
                    "message": "this node is protected"}]}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": policy}, "spec": {"policyName": policy, "validationActions": ["Deny"]}}),
    ] {
        cluster.create(&object)?;
    }
    cluster.npu_nodes("f", 3, "container").await?;
    let nodes = Api::<Node>::all(cluster.client_of(LABELER).await?);
    // Policies act a moment after they are created.
    eventually("the policy to act", async || {
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        Wait::until(nodes.patch_metadata("f-1", &dry_run, &patch).await.is_err(), |refused| *refused)
    })
    .await;
    let labeler = cluster.start(LABELER).await;
    cluster.configure("default", Access::enable_all()).await?;
    for node in ["f-0", "f-2"] {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    eventually("the reason", async || {
        let words = ["False/NodesChanging: labels of 1 node still to be written", "f-1", "this node is protected"];
        let ready = cluster.condition("default", "Ready").await;
        Wait::until(ready, |ready| words.iter().all(|words| ready.contains(words)))
    })
    .await;
    let told = |line: &&Value| line["message"] == "Could not label node; trying again";
    assert_eq!(labeler.log().iter().filter(told).count(), 1, "told once");
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", policy])?;
    cluster.expect_deployed("f-1", CONTAINER).await;
    eventually("no pending nodes", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| !ready.contains("labels of"))
    })
    .await;
    Ok(())
}
