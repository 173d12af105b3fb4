//! Other namespaces, which are a setting, and other names, which are refused.

use std::time::Duration;

use accelerator_api::contract::COMPONENTS as CONTRACT;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use testbed::install;
use testbed::repository::programs;
use testbed::{Access, Controller, Profile, Wait, eventually};

use super::overlays::start;
use super::{apply_twice, expect_pods, own, with_prerequisites};
use crate::CONTAINER;
use crate::programs::get;

#[tokio::test]
async fn controllers_and_operands_work_in_other_namespaces() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    let objects = own("default", &["operand-namespace", "controller-namespace"], &json!({}))?;
    apply_twice(&cluster, "other namespaces", &objects)?;
    let node = cluster.npu_nodes("c", 1, "container").await?.remove(0);
    expect_pods(&cluster, &objects).await;
    let _controllers = start(&cluster, &objects).await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed(&node, CONTAINER).await;
    cluster.expect_ready("default").await;
    let in_npu = cluster.namespaced::<DaemonSet>("npu").list(&ListParams::default()).await?;
    let mut names: Vec<_> = in_npu.items.iter().map(ResourceExt::name_any).collect();
    names.sort();
    let mut expected = CONTRACT.map(|component| component.operand.to_owned());
    expected.sort();
    // The driver's has the name of a pool.
    let begins = names.iter().zip(&expected).all(|(name, operand)| name.starts_with(operand));
    assert!(begins && names.len() == expected.len(), "{names:?}");
    assert_eq!(cluster.daemon_sets().await.len(), 0, "nothing in the usual one");

    // The policies that keep the driver's controller to its own follow it.
    let nodes = cluster.all::<Node>();
    let taint = Patch::Merge(json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}));
    for account in ["npu-system:rebellions-driver-controller", "accelerator-system:npu-rebellions-driver-controller-a"]
    {
        let mut config = kube::Config::from_custom_kubeconfig(
            kube::config::Kubeconfig::read_from(&cluster.kubeconfig)?,
            &kube::config::KubeConfigOptions::default(),
        )
        .await?;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{account}"));
        config.auth_info.impersonate_groups = Some(vec!["system:masters".into()]);
        let stolen = Api::<Node>::all(kube::Client::try_from(config)?);
        let answer = stolen.patch(&node, &PatchParams::default(), &taint).await;
        let told = "the driver's controller changes nothing in a node's spec";
        assert!(
            matches!(&answer, Err(kube::Error::Api(status)) if status.message.contains(told)),
            "{account}: {answer:?}"
        );
    }
    nodes.patch(&node, &PatchParams::default(), &taint).await?;
    Ok(())
}

/// They render, and what they render to does nothing but say so.
#[tokio::test]
async fn other_names_are_refused_by_the_controllers() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    let objects = own("default", &[], &json!({"namePrefix": "npu-", "nameSuffix": "-a"}))?;
    install::apply(&cluster.kubeconfig, &objects)?;
    cluster.npu_nodes("c", 1, "container").await?;
    let mut controllers = start(&cluster, &objects).await?;
    assert_eq!(controllers.len(), programs().count());
    let mark = cluster.mark()?;
    cluster.configure("default", Access::enable_all()).await?;
    for controller in &mut controllers {
        let said = |controller: &Controller| {
            let line =
                controller.log().into_iter().find(|line| line["message"] == "Lease does not exist; waiting for it");
            line.map(|line| line["err"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
        };
        eventually("the reason", async || {
            Wait::until(said(controller), |reason| reason.contains("without namePrefix and nameSuffix"))
        })
        .await;
        let address = controller.admin_address().await?;
        assert_eq!(get(&address, "/readyz").await.0, 503, "{}", controller.name);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(mark.our_writes()?, []);
    Ok(())
}
