//! What is applied and deleted apart, and what that leaves alone.

use serde_json::json;
use testbed::install::{self, is_deployment};
use testbed::{Access, Controller, Profile, Wait, eventually};

use super::{overlay, own, with_prerequisites};

const SECRET: &[&str] = &["get", "secret", "drivercred", "-n", "rebellions"];
const CRD: &[&str] = &["get", "crd", "acceleratorconfigs.petasus.io"];

/// Those who remove their controllers leave everybody else's things alone, the configuration and pull secrets above all.
#[tokio::test]
async fn deleting_controllers_takes_neither_crd_nor_namespaces_nor_secrets() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    cluster.kubectl(&["create", "secret", "generic", "drivercred", "-n", "rebellions"])?;
    cluster.configure("default", Access::enable_all()).await?;
    let expect_others = async |what: &str| {
        for arguments in [SECRET, CRD, &["get", "ac", "default"]] {
            cluster.kubectl(arguments).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
        let phases =
            ["get", "namespaces", "accelerator-system", "rebellions", "-o", "jsonpath={.items[*].status.phase}"];
        assert_eq!(cluster.kubectl(&phases).expect("namespaces"), "Active Active", "{what}");
    };
    let single = overlay("single-controller")?;
    install::apply(&cluster.kubeconfig, &single)?;
    install::delete(&cluster.kubeconfig, &single)?;
    assert_eq!(install::present(&cluster.kubeconfig, &single)?, Vec::<String>::new());
    expect_others("one controller deleted").await;

    let all = overlay("default")?;
    install::apply(&cluster.kubeconfig, &all)?;
    let controllers = own("default", &["controllers-only"], &json!({}))?;
    install::delete(&cluster.kubeconfig, &controllers)?;
    assert_eq!(install::present(&cluster.kubeconfig, &controllers)?, Vec::<String>::new());
    expect_others("all controllers deleted").await;

    install::apply(&cluster.kubeconfig, &all)?;
    let folder = testbed::repository::root().join("deploy/overlays/default").display().to_string();
    // In the words of the guide.
    cluster.kubectl(&["delete", "-k", &folder, "-l", "app.kubernetes.io/component notin (crd, namespace)"])?;
    assert_eq!(install::present(&cluster.kubeconfig, &controllers)?, Vec::<String>::new());
    expect_others("all controllers deleted by label").await;
    Ok(())
}

/// A release that made its Leases itself is running, and the manifests of this one are applied.
#[tokio::test]
async fn leases_of_an_older_release_stay_whose_they_are() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    cluster.create(&json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "node-labeler", "namespace": "accelerator-system"},
        "spec": {"holderIdentity": "old", "leaseDurationSeconds": 15, "leaseTransitions": 3},
    }))?;
    let objects = overlay("default")?;
    install::apply(&cluster.kubeconfig, &objects)?;
    let spec = ["get", "lease", "node-labeler", "-n", "accelerator-system", "-o"];
    let spec = || cluster.kubectl(&[&spec[..], &["jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}"]].concat());
    assert_eq!(spec()?, "old 3");
    let labeler = objects.iter().find(|one| is_deployment(one) && one["metadata"]["name"] == "node-labeler");
    let _labeler = Controller::start_installed(&cluster, labeler.expect("it is installed"), &[]).await?;
    // The old one went without giving it back.
    eventually("the new one to take it over when it has run out", async || {
        Wait::until(spec().unwrap_or_default(), |spec| spec.ends_with(" 4"))
    })
    .await;
    Ok(())
}
