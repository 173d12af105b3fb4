//! The installation, the way that the README tells an admin to do it.

use testbed::{Access, Cluster, ControlPlane, Profile, Wait, eventually, install};

#[tokio::test]
async fn the_default_overlay_installs_with_one_command_and_its_pods_are_admitted() -> anyhow::Result<()> {
    let cluster =
        Cluster::connect(tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??).await?;
    // The CRD, namespaces and everything else in one go, twice: the second time changes nothing.
    let objects = install::render("overlays/default")?;
    install::apply(&cluster.kubeconfig, &objects)?;
    install::apply(&cluster.kubeconfig, &objects)?;
    cluster.npu_nodes("any", 1, "").await?;
    let programs = testbed::repository::programs().count();
    eventually("every Deployment with a pod each, admitted under Pod Security restricted", async || {
        let ready = cluster.kubectl(&[
            "get",
            "deployments",
            "-n",
            "accelerator-system",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.status.readyReplicas} {end}",
        ]);
        Wait::until(ready.unwrap_or_default(), |ready| {
            ready.split_whitespace().filter(|one| one.ends_with("=1")).count() == programs
        })
    })
    .await;

    eventually("kubectl explain to teach", async || {
        let explained = cluster.kubectl(&["explain", "ac.spec.providers.rebellions.devicePlugin.image"]);
        let words = explained.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        Wait::until(format!("{words:?}"), |text| text.contains("Each part that is absent or empty keeps its default"))
    })
    .await;
    let samples = testbed::repository::root().join("deploy/samples");
    cluster.kubectl(&["apply", "--dry-run=server", "-f", &samples.display().to_string()])?;
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_what_matters() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("c", 2, "container").await?;
    cluster.npu_nodes("v", 1, "vm-passthrough").await?;
    cluster.npu_nodes("n", 1, "").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "ac/default"])?;
    let table = cluster.kubectl(&["get", "ac"])?;
    let columns: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["NAME", "READY", "REASON", "CONTAINER", "VM-PASSTHROUGH", "GENERATION", "OBSERVED", "AGE"]);
    assert_eq!(columns[1][..5], ["default", "True", "AllComponentsReady", "2", "1"]);
    Ok(())
}
