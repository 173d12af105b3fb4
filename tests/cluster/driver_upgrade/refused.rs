//! A node that the API server refuses to write: it is told, it holds up no other, and it is upgraded when it may be written.

use std::time::Duration;

use accelerator_api::contract::{DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_REQUESTED_ANNOTATION};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testbed::{Cluster, Leased, Recording, Wait, eventually};

use super::{BLOCKED, Upgrade, assert_canary, assert_clean};

const POLICY: &str = "no-maintenance";
const WORDS: &str = "the platform team is at work here";

/// How often a node may be tried in twenty seconds and a little more: after about 1, 2, 4, 8 and 16 s, cut by up to a half.
const TRIES: usize = 10;

/// Keeps the driver's controller from writing a node.
async fn forbid(cluster: &Leased, node: &str) -> anyhow::Result<()> {
    let meta = json!({"name": POLICY});
    let user = format!("request.userInfo.username.endsWith(':{}')", DRIVER.controller);
    cluster.create(
        &json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": meta,
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["UPDATE"], "resources": ["nodes"]}]},
            "matchConditions": [{"name": "by-the-driver-controller", "expression": user}],
            "validations": [{"expression": format!("object.metadata.name != '{node}'"), "message": WORDS}]}}),
    )?;
    cluster
        .create(&json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": meta, "spec": {"policyName": POLICY, "validationActions": ["Deny"]}}))?;
    let nodes = Api::<Node>::all(cluster.client_of(DRIVER.controller).await?);
    let (params, patch) = (
        PatchParams { dry_run: true, ..PatchParams::default() },
        json!({
            "metadata": {"annotations": {DRIVER_UPGRADE_REQUESTED_ANNOTATION: "false"}}
        }),
    );
    eventually("the policy to be in force", async || {
        let answer = nodes.patch(node, &params, &Patch::Merge(&patch)).await;
        Wait::until(answer.is_err(), |is_refused| *is_refused)
    })
    .await;
    Ok(())
}

fn allow(cluster: &Leased) -> anyhow::Result<()> {
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", POLICY]).map(drop)
}

/// What the status says of the upgrade of single nodes.
fn told(cluster: &Leased) -> anyhow::Result<Value> {
    let config: Value = serde_json::from_str(&cluster.kubectl(&["get", "ac", "default", "-o", "json"])?)?;
    let components = config["status"]["components"].as_array().cloned().unwrap_or_default();
    let driver = components.into_iter().find(|entry| entry["name"] == DRIVER.operand);
    Ok(driver.map_or(Value::Null, |entry| entry["upgrade"]["nodes"].clone()))
}

#[tokio::test]
async fn a_node_that_a_policy_keeps_from_being_written_is_told_and_holds_up_no_other() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let nodes = cluster.machines("n").count(3).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 1});
    let upgrade = Upgrade::new(cluster, policy).await?;
    forbid(&upgrade.cluster, &nodes[0]).await?;
    let (recording, mark) = (Recording::start(&upgrade.cluster).await?, upgrade.cluster.mark()?);
    upgrade.configure("3.1.0").await?;
    for node in &nodes[1..] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let condition = upgrade.cluster.expect_condition("default", BLOCKED, "True/WriteRefused").await;
    assert!(condition.contains(&nodes[0]) && condition.contains(WORDS), "{condition}");
    let row = told(&upgrade.cluster)?[0].clone();
    assert_eq!(
        (&row["name"], &row["state"], &row["reason"]),
        (&json!(nodes[0]), &json!("Waiting"), &json!("WriteRefused"))
    );
    assert!(row["message"].as_str().is_some_and(|message| message.contains(WORDS)), "{row}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let writes = mark.our_writes()?;
    let tries = writes.iter().filter(|write| write.resource == "nodes" && write.name == nodes[0]).count();
    assert!((2..=TRIES).contains(&tries), "{tries} tries");
    let rows = writes.iter().filter(|write| write.resource.starts_with("acceleratorconfigs")).count();
    assert!(rows <= 60, "{rows} writes of the status");

    allow(&upgrade.cluster)?;
    upgrade.expect_done(&nodes[0], "3.1.0").await;
    upgrade.cluster.expect_ready("default").await;
    assert_eq!(upgrade.cluster.condition("default", BLOCKED).await, "");
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_canary(&history);
    assert_eq!(history.order().last(), Some(&nodes[0]));
    Ok(())
}

/// Without the label of its pool a node gets no driver.
#[tokio::test]
async fn a_node_whose_pool_label_is_refused_is_told_and_gets_its_driver_later() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let nodes = cluster.machines("n").count(1).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": false})).await?;
    let late = upgrade.cluster.machines("late").mode("").create().await?;
    forbid(&upgrade.cluster, &late[0]).await?;
    upgrade.cluster.set_mode(&late[0], Some("container")).await?;
    let condition = upgrade.cluster.expect_condition("default", DRIVER.condition_type, "False/ApplyFailed").await;
    assert!([DRIVER_POOL_LABEL, &late[0], WORDS].iter().all(|words| condition.contains(*words)), "{condition}");
    upgrade.cluster.expect_condition("default", BLOCKED, "True/WriteRefused").await;
    upgrade.expect_works(&nodes[0], "3.0.0").await;
    allow(&upgrade.cluster)?;
    upgrade.expect_works(&late[0], "3.0.0").await;
    upgrade.cluster.expect_ready("default").await;
    assert_eq!(upgrade.cluster.condition("default", BLOCKED).await, "");
    Ok(())
}
