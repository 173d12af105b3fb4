//! A cluster that allows critical priority classes only where a quota does.

use serde_json::json;
use testbed::{Access, Profile, Wait, eventually, install};

use super::overlays::start;
use super::{expect_pods, overlay, own, with_prerequisites};

#[tokio::test]
async fn pods_start_where_critical_priorities_are_limited() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::LimitedPriorities).await?;
    cluster.npu_nodes("c", 1, "container").await?;
    install::apply(&cluster.kubeconfig, &overlay("default")?)?;
    eventually("the Deployment to say why it has no pod", async || {
        let path = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        let said = cluster.kubectl(&["get", "deployment", "node-labeler", "-n", "accelerator-system", "-o", path]);
        Wait::until(said.unwrap_or_default(), |said| said.contains("insufficient quota to match these scopes"))
    })
    .await;

    let objects = own("default", &["priority-quota"], &json!({}))?;
    install::apply(&cluster.kubeconfig, &objects)?;
    // Who has been refused tries again ever later; a Deployment that is deleted and applied starts anew.
    let deployments: Vec<_> = objects.iter().filter(|one| install::is_deployment(one)).cloned().collect();
    install::delete(&cluster.kubeconfig, &deployments)?;
    install::apply(&cluster.kubeconfig, &objects)?;
    expect_pods(&cluster, &objects).await;
    let _controllers = start(&cluster, &objects).await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;
    Ok(())
}
