//! With the guard rails every program does the whole of its work, and is refused nothing.

use std::collections::BTreeSet;

use serde_json::json;
use testbed::audit::Mark;
use testbed::{Access, Cluster, Wait, Workload, eventually};

use crate::driver_upgrade::Upgrade;
use crate::{CONTAINER, LABELER, VM};

/// Nothing that one of our programs asked for was forbidden, and these did something to these.
fn assert_unhindered(mark: &Mark, did: &[(&str, &str)]) -> anyhow::Result<()> {
    let requests = mark.requests()?;
    let forbidden: Vec<_> =
        requests.iter().filter(|one| one.is_ours() && one.code == 403).map(ToString::to_string).collect();
    assert_eq!(forbidden, Vec::<String>::new());
    let done = requests.iter().filter(|one| one.is_write() && one.has_succeeded());
    let done: BTreeSet<_> = done.map(|one| (one.user.as_str(), one.resource.as_str())).collect();
    for what in did {
        assert!(done.contains(what), "{what:?} is what this test is about, and did not happen: {done:?}");
    }
    Ok(())
}

#[tokio::test]
async fn guarded_programs_label_deploy_and_report() -> anyhow::Result<()> {
    let cluster = Cluster::lease_guarded().await;
    let mark = cluster.mark()?;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("c", 2, "container").await?;
    cluster.npu_nodes("v", 1, "vm-passthrough").await?;
    cluster.npu_nodes("typo", 1, "containers").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("c-0", CONTAINER).await;
    cluster.expect_deployed("v-0", VM).await;
    cluster.expect_ready("default").await;
    cluster.set_mode("c-1", Some("vm-passthrough")).await?;
    cluster.expect_deployed("c-1", VM).await;
    let mut settings = Access::enable_all();
    settings["daemonsets"] =
        json!({"labels": {"example.com/team": "a"}, "tolerations": [{"key": "a", "operator": "Exists"}]});
    settings["devicePlugin"]["env"] = json!([{"name": "A", "value": "b"}]);
    settings["devicePlugin"]["args"] = json!(["--a"]);
    settings["metricExporter"]["enabled"] = json!(false);
    cluster.configure("default", settings).await?;
    cluster.expect_condition("default", "RebellionsMetricExporterReady", "False/Disabled").await;
    cluster.expect_ready("default").await;
    cluster.configure("second", json!({})).await?;
    cluster.expect_condition("second", "Ready", "False/Superseded").await;
    cluster.unconfigure("default").await?;
    cluster.unconfigure("second").await?;
    cluster.expect_deployed("c-0", &[]).await;

    let mut did =
        vec![(LABELER, "nodes"), (LABELER, "events"), (LABELER, "leases"), (LABELER, "acceleratorconfigs/status")];
    for operand in testbed::repository::operands() {
        for resource in ["daemonsets", "leases", "acceleratorconfigs/status", "events"] {
            did.push((operand.component.controller, resource));
        }
    }
    assert_unhindered(&mark, &did)
}

#[tokio::test]
async fn a_guarded_driver_is_upgraded() -> anyhow::Result<()> {
    let cluster = Cluster::lease_guarded().await;
    let mark = cluster.mark()?;
    let nodes = cluster.machines("n").count(3).create().await?;
    let upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true})).await?;
    Workload::npu("work", &nodes[1]).create(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let driver = "rebellions-driver-controller";
    let resources = ["daemonsets", "nodes", "pods", "pods/eviction", "events", "acceleratorconfigs/status"];
    let mut did = resources.map(|resource| (driver, resource)).to_vec();
    did.push((LABELER, "nodes"));
    assert_unhindered(&mark, &did)
}

/// A setting that the policy has, too. What runs goes on, and the condition says what to do.
#[tokio::test]
async fn a_refused_registry_is_told_and_takes_nothing_down() -> anyhow::Result<()> {
    let cluster = Cluster::lease_guarded().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("c", 1, "container").await?;
    cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    cluster.expect_ready("default").await;
    let before = cluster.pods().await;
    let mut section = Access::enable(&["device-plugin"]);
    section["devicePlugin"]["image"] = json!({"registry": "registry.example.com"});
    cluster.configure("default", section).await?;
    let told = cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/ApplyFailed").await;
    for word in [
        "the image registry.example.com/rebellions/k8s-device-plugin:",
        "is of none of the registries that the ValidatingAdmissionPolicy accelerator-operand-daemonsets lists: ghcr.io/petasus-ai, ",
    ] {
        assert!(told.contains(word), "{told}");
    }
    assert_eq!(cluster.pods().await, before);
    cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    eventually("the condition to be true again", async || {
        let told = cluster.condition("default", "RebellionsDevicePluginReady").await;
        Wait::until(told, |told| told.starts_with("True/Ready"))
    })
    .await;
    Ok(())
}
