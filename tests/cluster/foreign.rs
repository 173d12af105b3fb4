//! Other people's hands: what is ours is put right and told, what is theirs stays, and nobody is fought for ever.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Leased, Wait, eventually};

use crate::leadership::becomes;
use crate::{CONTAINER, LABELER};

const OPERAND: &str = "rebellions-device-plugin";
const CONTROLLER: &str = "rebellions-device-plugin-controller";
const CONDITION: &str = "RebellionsDevicePluginReady";

/// One component on two nodes, ready.
async fn ready() -> anyhow::Result<(Leased, testbed::Controller)> {
    let cluster = Cluster::lease().await;
    let controller = cluster.start(CONTROLLER).await;
    deploy(&cluster).await?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    Ok((cluster, controller))
}

async fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    for node in cluster.npu_nodes("f", 2, "").await? {
        cluster.label(&node, "rebellions.ai/npu.deploy.device-plugin", Some("true")).await?;
    }
    Ok(cluster.configure("default", Access::enable(&["device-plugin"])).await?)
}

/// Sets another image, as somebody with this field manager.
async fn meddle(cluster: &Cluster, manager: &str, image: &str) -> anyhow::Result<()> {
    let theirs = json!({"spec": {"template": {"spec": {"containers": [{"name": "device-plugin", "image": image}]}}}});
    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
    let api: Api<DaemonSet> = cluster.namespaced(OPERANDS);
    api.patch(OPERAND, &params, &Patch::Strategic(theirs)).await?;
    Ok(())
}

async fn image(cluster: &Cluster) -> Value {
    cluster.daemon_set("device-plugin").await["spec"]["template"]["spec"]["containers"][0]["image"].clone()
}

#[tokio::test]
async fn a_repair_names_who_made_it_necessary_and_a_fight_is_given_up_step_by_step() -> anyhow::Result<()> {
    let (cluster, _controller) = ready().await?;
    let ours = image(&cluster).await;
    let (begun, mark) = (Instant::now(), cluster.mark()?);
    for round in 0..3 {
        meddle(&cluster, "meddler", &format!("example.com/theirs:{round}")).await?;
        eventually("the repair", async || Wait::until(image(&cluster).await, |image| *image == ours)).await;
    }
    let event = cluster.expect_event("default", "Repaired").await;
    assert!(event.contains("meddler") && event.contains("containers[device-plugin].image"), "{event}");

    // From here on they would change it after every repair.
    let told = eventually("the fight to be told", async || {
        let meddled = meddle(&cluster, "meddler", "example.com/theirs:again").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let condition = cluster.condition("default", CONDITION).await;
        Wait::until((meddled.is_ok(), condition), |(_, condition)| condition.starts_with("False/Contested"))
    })
    .await
    .1;
    assert!(told.contains("meddler keeps changing"), "{told}");
    for round in 0..20 {
        meddle(&cluster, "meddler", &format!("example.com/theirs:{round}")).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "daemonsets").count();
    let minutes = begun.elapsed().as_secs() / 60;
    assert!(writes <= 6 + usize::try_from(minutes)? * 2, "{writes} repairs");
    eventually("a last repair when they have left", async || {
        Wait::until(image(&cluster).await, |image| *image == ours)
    })
    .await;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    Ok(())
}

/// Labels, annotations and owners leave no trace in the generation.
#[tokio::test]
async fn metadata_that_is_taken_away_is_put_back() -> anyhow::Result<()> {
    let (cluster, _controller) = ready().await?;
    // It has applied the object itself, and remembers.
    meddle(&cluster, "meddler", "example.com/theirs:1").await?;
    cluster.expect_event("default", "Repaired").await;
    let before = cluster.daemon_set("device-plugin").await["metadata"].clone();
    for field in ["labels", "annotations", "ownerReferences"] {
        let theirs = Patch::Merge(json!({"metadata": {field: null}}));
        cluster.namespaced::<DaemonSet>(OPERANDS).patch(OPERAND, &PatchParams::default(), &theirs).await?;
        eventually(&format!("{field} to be there again"), async || {
            let now = cluster.daemon_set("device-plugin").await["metadata"][field].clone();
            Wait::until((now, &before[field]), |(now, before)| now.is_object() | now.is_array() && now == *before)
        })
        .await;
    }
    Ok(())
}

/// A platform's admission policy rewrites what we apply, each time. Applying it again would change nothing.
#[tokio::test]
async fn a_policy_that_rewrites_our_object_is_not_fought_and_told() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let meta = json!({"name": "rewrite"});
    for object in [
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": meta, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["daemonsets"]}]},
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'replace', path: '/spec/template/spec/priorityClassName', value: 'system-cluster-critical'}]"}}]}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": meta,
            "spec": {"policyName": "rewrite"}}),
    ] {
        cluster.create(&object)?;
    }
    let probe = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "probe"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"priorityClassName": "system-node-critical", "containers": [{"name": "c", "image": "i"}]}}}});
    let api: Api<DaemonSet> = cluster.namespaced(OPERANDS);
    eventually("the policy to act", async || {
        let params = PatchParams { dry_run: true, ..PatchParams::apply("testbed") };
        let answer = api.patch("probe", &params, &Patch::Apply(&probe)).await;
        Wait::until(format!("{answer:?}"), |answer| answer.contains("system-cluster-critical"))
    })
    .await;
    let mark = cluster.mark()?;
    let _controller = cluster.start(CONTROLLER).await;
    deploy(&cluster).await?;
    let told = cluster.expect_condition("default", CONDITION, "True/Ready").await;
    assert!(told.contains("keeps another spec.template.spec.priorityClassName"), "{told}");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "daemonsets").count();
    assert!(writes <= 5, "{writes} writes");
    cluster.kubectl(&["delete", "mutatingadmissionpolicybinding", "rewrite"])?;
    eventually("it to be as wanted when the policy is gone", async || {
        let told = cluster.condition("default", CONDITION).await;
        Wait::until(told, |told| told.starts_with("True/Ready") && !told.contains("priorityClassName"))
    })
    .await;
    Ok(())
}

/// `kubectl delete --cascade=orphan`: the pods live on and are adopted.
#[tokio::test]
async fn orphaned_pods_are_adopted() -> anyhow::Result<()> {
    let (cluster, _controller) = ready().await?;
    let pods = cluster.pods().await;
    let uid = cluster.daemon_set("device-plugin").await["metadata"]["uid"].clone();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    cluster.namespaced::<DaemonSet>(OPERANDS).delete(OPERAND, &orphan).await?;
    eventually("another DaemonSet", async || {
        let now = cluster.daemon_set("device-plugin").await["metadata"]["uid"].clone();
        Wait::until(now, |now| !now.is_null() && *now != uid)
    })
    .await;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    assert_eq!(cluster.pods().await, pods, "no operand was disturbed");
    Ok(())
}

#[tokio::test]
async fn a_quota_that_forbids_pods_is_told() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": OPERANDS},
        "spec": {"hard": {"pods": "0"}}}),
    )?;
    // What the quota controller, which the test bed does not run, would write.
    let status = r#"{"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}"#;
    let quota =
        ["-n", OPERANDS, "patch", "resourcequota", "none", "--subresource=status", "--type=merge", "-p", status];
    cluster.kubectl(&quota)?;
    let _controller = cluster.start(CONTROLLER).await;
    deploy(&cluster).await?;
    eventually("the reason", async || {
        let told = cluster.condition("default", CONDITION).await;
        Wait::until(told, |told| told.starts_with("False/") && told.contains("exceeded quota"))
    })
    .await;
    cluster.kubectl(&["-n", OPERANDS, "delete", "resourcequota", "none"])?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    Ok(())
}

/// A new version whose image alone was changed, without its base: what its base brings along is missing.
#[tokio::test]
async fn a_missing_service_account_is_told_and_stops_at_the_first_nodes() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let _controller = cluster.start(CONTROLLER).await;
    for node in cluster.npu_nodes("s", 3, "").await? {
        cluster.label(&node, "rebellions.ai/npu.deploy.device-plugin", Some("true")).await?;
    }
    let section = |tag: &str| json!({"devicePlugin": {"enabled": true, "image": {"tag": tag}}});
    cluster.configure("default", section("v1")).await?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    let account = format!("{OPERAND}-operand");
    cluster.kubectl(&["-n", OPERANDS, "delete", "serviceaccount", &account])?;
    cluster.configure("default", section("v2")).await?;
    eventually("the reason", async || {
        let told = cluster.condition("default", CONDITION).await;
        Wait::until(told, |told| {
            told.starts_with("False/") && told.contains(&format!("serviceaccount \"{account}\" not found"))
        })
    })
    .await;
    assert_eq!(cluster.pods().await.len(), 2, "10 % of three nodes, rounded up, is one");
    cluster.create(
        &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": OPERANDS}}),
    )?;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    Ok(())
}

/// Somebody removes all our labels, and gives all nodes one of ours, in bulk.
#[tokio::test]
async fn labels_that_were_edited_in_bulk_are_put_right_once() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _labeler = cluster.start(LABELER).await;
    let nodes = cluster.npu_nodes("b", 20, "container").await?;
    cluster.configure("default", Access::enable(&[])).await?;
    for node in &nodes {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    let mark = cluster.mark()?;
    cluster.kubectl(&["label", "nodes", "--all", "rebellions.ai/npu.deploy.driver-"])?;
    for node in &nodes {
        cluster.expect_deployed(node, CONTAINER).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes" && write.code == 200).count();
    assert_eq!(writes, nodes.len(), "one each");
    Ok(())
}

/// Two installations by mistake: the lease lets one write, the other waits and says so.
#[tokio::test]
async fn a_second_installation_waits() -> anyhow::Result<()> {
    let (cluster, _first) = ready().await?;
    let mut second = cluster.start(CONTROLLER).await;
    let address = second.admin_address().await?;
    becomes(&address, "follower").await;
    let mark = cluster.mark()?;
    let mut section = Access::enable(&["device-plugin"]);
    section["devicePlugin"]["args"] = json!(["--v=3"]);
    cluster.configure("default", section).await?;
    eventually("the change", async || {
        let text = cluster.daemon_set("device-plugin").await.to_string();
        Wait::until(text, |text| text.contains("--v=3"))
    })
    .await;
    cluster.expect_condition("default", CONDITION, "True/Ready").await;
    let writes = mark.our_writes()?.into_iter().filter(|write| write.resource == "daemonsets").count();
    assert_eq!(writes, 1);
    assert!(second.log().iter().any(|line| line["message"] == "Following"));
    Ok(())
}
