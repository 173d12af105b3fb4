//! A CRD that goes, comes back, or is older than the programs that use it.

use std::time::Duration;

use accelerator_api::AcceleratorConfig;
use accelerator_api::contract::DEVICE_PLUGIN;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::{Access, Cluster, Wait, eventually, install};

use crate::LABELER;
use crate::faults::{ONLY, Settled};

/// The CRDs that are installed.
fn crds() -> anyhow::Result<Vec<Value>> {
    let mut objects = install::render("overlays/default")?;
    objects.retain(|object| object["kind"] == "CustomResourceDefinition");
    Ok(objects)
}

/// Waits until garbage collection ends what AcceleratorConfigs own: it learns of a new CRD only after half a minute.
async fn expect_garbage_collection(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.configure("canary", json!({})).await?;
    let canary = cluster.config("canary").await;
    let owned = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "canary", "namespace": "default", "ownerReferences": [{
            "apiVersion": canary["apiVersion"], "kind": canary["kind"], "name": "canary", "uid": canary["metadata"]["uid"],
        }]},
    });
    cluster.create(&owned)?;
    cluster.unconfigure("canary").await?;
    let config_maps = cluster.namespaced::<ConfigMap>("default");
    eventually("garbage collection of what an AcceleratorConfig owned", async || {
        Wait::until(config_maps.get_opt("canary").await.ok().flatten().map(drop), Option::is_none)
    })
    .await;
    Ok(())
}

/// A CRD that is deleted takes its AcceleratorConfigs along, and so does an upgrade that deletes and makes it anew. That is
/// no reason to take nodes apart.
#[tokio::test]
async fn a_crd_that_is_deleted_and_made_again_disturbs_nothing() -> anyhow::Result<()> {
    let mut settled = Settled::new().await?;
    settled.cluster.spoil();
    expect_garbage_collection(&settled.cluster).await?;
    settled.cluster.kubectl(&["delete", "crd", "acceleratorconfigs.petasus.io"])?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    settled.expect_alive();
    assert_eq!(settled.cluster.pods().await, settled.pods, "operands are untouched");
    install::apply(&settled.cluster.kubeconfig, &crds()?)?;
    settled.cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd/acceleratorconfigs.petasus.io",
    ])?;
    // Whoever makes the CRD again may take a while to make its objects again, and start new programs in between.
    settled.restart().await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(settled.cluster.pods().await, settled.pods, "operands are untouched");
    settled.cluster.configure("default", Access::enable(ONLY)).await?;
    settled.cluster.expect_ready("default").await;
    assert_eq!(settled.cluster.pods().await, settled.pods, "operands are untouched");
    settled.work().await?;
    settled.recover().await;
    Ok(())
}

/// A CRD that knows less than we report, as after an upgrade of the controllers alone.
#[tokio::test]
async fn a_crd_that_is_too_old_is_told_and_everything_runs() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let mut older = crds()?;
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    for (parent, field) in
        [(status.to_owned(), "nodes"), (format!("{status}/components/items/properties"), "available")]
    {
        let properties = older[0].pointer_mut(&parent).and_then(Value::as_object_mut).expect("properties");
        assert!(properties.remove(field).is_some());
    }
    install::apply(&cluster.kubeconfig, &older)?;
    cluster.configure("default", Access::enable(ONLY)).await?;
    let kind = ApiResource::erase::<AcceleratorConfig>(&());
    let configs = Api::<DynamicObject>::all_with(cluster.client.clone(), &kind);
    eventually("the older CRD to be served", async || {
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let patch = Patch::Merge(json!({"status": {"nodes": {"container": 1}, "conditions": []}}));
        let answer = configs.patch_status("default", &dry_run, &patch).await;
        Wait::until(answer.map(|object| object.data["status"].clone()).ok(), |status| {
            status.as_ref().is_some_and(|status| status["nodes"].is_null())
        })
    })
    .await;
    let mut controllers = [cluster.start(LABELER).await, cluster.start(DEVICE_PLUGIN.controller).await];
    cluster.npu_nodes("x", 3, "container").await?;
    for program in [LABELER, DEVICE_PLUGIN.controller] {
        cluster.expect_event("default", &format!("CrdTooOld: {program} cannot report its status")).await;
    }
    eventually("the operand on every node", async || Wait::until(cluster.pods().await.len(), |pods| *pods == 3)).await;
    let (mark, pods) = (cluster.mark()?, cluster.pods().await);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = mark.our_writes()?.len();
    assert!(tries <= 4, "{tries} writes of a status that is refused, in ten seconds");
    assert!(controllers.iter_mut().all(|one| one.ended().is_none()));

    cluster.install().await?;
    cluster.expect_ready("default").await;
    assert_eq!(cluster.pods().await, pods, "operands are untouched");
    Ok(())
}

/// Nobody is left who could remove it: garbage collection does, once neither config nor installation is there.
#[tokio::test]
async fn what_is_uninstalled_is_collected() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let controller = cluster.start(DEVICE_PLUGIN.controller).await;
    cluster.configure("default", Access::enable(ONLY)).await?;
    cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "True/NoNodesSelected").await;
    expect_garbage_collection(&cluster).await?;
    controller.stop()?;
    cluster.unconfigure("default").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.operands().await, ONLY, "while its controller is down nothing changes");
    cluster.kubectl(&["delete", "clusterrole", DEVICE_PLUGIN.controller])?;
    cluster.expect_operands(&[]).await;
    Ok(())
}

/// Tools that follow kstatus take an object that nobody has looked at for one in progress, by the CRD's default.
#[tokio::test]
async fn a_fresh_object_says_that_nobody_has_looked_at_it() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.configure("default", Access::enable(&["driver"])).await?;
    assert_eq!(cluster.config("default").await["status"], json!({"observedGeneration": -1}));
    let _labeler = cluster.start(LABELER).await;
    eventually("the generation to be observed", async || {
        let config = cluster.config("default").await;
        Wait::until(config["status"]["observedGeneration"].clone(), |seen| *seen == config["metadata"]["generation"])
    })
    .await;
    Ok(())
}
