//! Somebody undoes what node-labeler writes, or lets it have no effect. It is not fought for, it is told with the name of who
//! does it, nobody else has to wait, and it is well again by itself when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::audit::Mark;
use testbed::{Access, Cluster, Wait, eventually};

use crate::{CONTAINER, LABELER};

const LABEL: &str = "rebellions.ai/npu.deploy.device-plugin";

/// How long a fight lasts here. In the first half minute a change is written at once, repaired at once, and then after
/// pauses of up to 5, 10 and 20 seconds, each cut by up to a half.
const FIGHT: Duration = Duration::from_secs(30);
const WRITES: usize = 6;

fn writes_to(mark: &Mark, node: &str) -> anyhow::Result<usize> {
    Ok(mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes" && write.name == node).count())
}

/// The condition says so.
async fn expect_told(cluster: &Cluster, words: &[&str]) {
    eventually(&format!("Ready to be Contested and to say {words:?}"), async || {
        let told = cluster.condition("default", "Ready").await;
        Wait::until(told, |told| told.starts_with("False/Contested") && words.iter().all(|words| told.contains(words)))
    })
    .await;
}

/// Exactly one event tells of it.
async fn told_once(cluster: &Cluster) {
    let events = cluster.events("default").await;
    let told = events.iter().filter(|event| event.starts_with("Contested")).count();
    assert_eq!(told, 1, "{events:?}");
}

#[tokio::test]
async fn a_syncer_that_removes_a_label_is_named_and_not_fought() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start(LABELER).await;
    cluster.npu_nodes("s", 1, "container").await?;
    let (api, stop) = (cluster.all::<Node>(), Arc::new(AtomicBool::new(false)));
    let mark = cluster.mark()?;
    let syncer = tokio::spawn(sync(api, Arc::clone(&stop)));
    cluster.configure("default", Access::enable_all()).await?;

    expect_told(&cluster, &["node s-0", LABEL, "label-syncer"]).await;
    let event = cluster.expect_event("default", "Contested").await;
    assert!(event.contains("node s-0") && event.contains(LABEL) && event.contains("label-syncer"), "{event}");
    cluster.npu_nodes("other", 5, "container").await?;
    for number in 0..5 {
        cluster.expect_deployed(&format!("other-{number}"), CONTAINER).await;
    }
    tokio::time::sleep(FIGHT).await;
    let writes = writes_to(&mark, "s-0")?;
    assert!((2..=WRITES + 1).contains(&writes), "{writes} writes");
    told_once(&cluster).await;

    stop.store(true, Ordering::SeqCst);
    syncer.await??;
    cluster.expect_deployed("s-0", CONTAINER).await;
    eventually("it to be over", async || {
        Wait::until(cluster.condition("default", "Ready").await, |ready| !ready.contains("Contested"))
    })
    .await;
    told_once(&cluster).await;
    Ok(())
}

/// A platform's controller that takes one label away as soon as it sees it, and notes when it did.
async fn sync(api: Api<Node>, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let params = PatchParams { field_manager: Some("label-syncer".into()), ..PatchParams::default() };
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        if api.get_metadata("s-0").await?.metadata.labels.is_some_and(|labels| labels.contains_key(LABEL)) {
            round += 1;
            let patch = json!({"metadata": {
                "labels": {LABEL: null}, "annotations": {"example.com/synced": round.to_string()}}});
            api.patch_metadata("s-0", &params, &Patch::Merge(patch)).await?;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_that_drops_a_label_is_told_and_not_fought() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let meta = json!({"name": "drop-label"});
    cluster.create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": meta,
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["UPDATE"], "resources": ["nodes"]}]},
            "matchConditions": [{"name": "has-it", "expression": format!("'{LABEL}' in object.metadata.?labels.orValue({{}})")}],
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                format!("[JSONPatch{{op: 'remove', path: '/metadata/labels/{}'}}]", LABEL.replace('/', "~1"))}}]}}))?;
    cluster
        .create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": meta, "spec": {"policyName": "drop-label"}}))?;
    cluster.npu_nodes("p", 2, "container").await?;
    eventually("the policy to act", async || {
        let set = cluster.label("p-1", LABEL, Some("true")).await;
        Wait::until((set.is_ok(), cluster.deploy_labels("p-1").await), |(_, labels)| labels.is_empty())
    })
    .await;
    let mark = cluster.mark()?;
    let labeler = cluster.start(LABELER).await;
    cluster.configure("default", Access::enable_all()).await?;
    expect_told(&cluster, &["node p-0", LABEL, "answers without it, as an admission policy may", "1 more node"]).await;
    cluster.expect_event("default", "Contested").await;
    let but_one: Vec<_> = CONTAINER.iter().copied().filter(|name| *name != "device-plugin").collect();
    cluster.expect_deployed("p-0", &but_one).await;
    tokio::time::sleep(FIGHT).await;
    for node in ["p-0", "p-1"] {
        let writes = writes_to(&mark, node)?;
        assert!((2..=WRITES).contains(&writes), "{writes} writes to {node}");
    }
    told_once(&cluster).await;
    assert!(labeler.log().iter().all(|line| line["message"] != "Could not label node; trying again"));

    cluster.kubectl(&["delete", "mutatingadmissionpolicybinding", "drop-label"])?;
    for node in ["p-0", "p-1"] {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    Ok(())
}

/// The same policy for DaemonSets: somebody deletes it whenever it is there.
#[tokio::test]
async fn a_daemon_set_that_is_deleted_again_and_again_is_made_ever_less_often() -> anyhow::Result<()> {
    use accelerator_api::contract::DEVICE_PLUGIN;
    use k8s_openapi::api::apps::v1::DaemonSet;
    use testbed::access::OPERANDS;
    let cluster = Cluster::lease().await;
    let _controller = cluster.start(DEVICE_PLUGIN.controller).await;
    cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "True/NoNodesSelected").await;
    let mark = cluster.mark()?;
    let api = cluster.namespaced::<DaemonSet>(OPERANDS);
    let begun = std::time::Instant::now();
    while begun.elapsed() < FIGHT {
        let _ = api.delete(DEVICE_PLUGIN.operand, &kube::api::DeleteParams::default()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "False/Contested").await;
    assert!(told.contains("is deleted again each time"), "{told}");
    let applies = mark.our_writes()?.into_iter().filter(|write| write.resource == "daemonsets").count();
    assert!((2..=WRITES).contains(&applies), "{applies} applies");
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "True/NoNodesSelected").await;
    Ok(())
}
