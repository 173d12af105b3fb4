//! Each overlay on a control plane, its controllers at work with the rights and the environment that it gives them.

use accelerator_api::contract::{COMPONENTS, DEPLOY, Workload};
use serde_json::Value;
use testbed::install::{self, is_deployment};
use testbed::{Access, Cluster, Controller, Profile, Wait, eventually};

use super::{OVERLAYS, apply_twice, expect_pods, overlay, with_prerequisites};
use crate::LABELER;

/// Starts what the Deployments among these objects run.
pub async fn start(cluster: &Cluster, objects: &[Value]) -> anyhow::Result<Vec<Controller>> {
    let mut started = vec![];
    for deployment in objects.iter().filter(|object| is_deployment(object)) {
        started.push(Controller::start_installed(cluster, deployment, &[]).await?);
    }
    Ok(started)
}

/// The components whose controllers are among these objects.
fn components(objects: &[Value]) -> Vec<&'static accelerator_api::contract::Component> {
    let installed = |name: &str| objects.iter().any(|one| is_deployment(one) && one["metadata"]["name"] == name);
    COMPONENTS.into_iter().filter(|component| installed(component.controller)).collect()
}

#[tokio::test]
async fn each_overlay_installs_and_its_controllers_do_their_job() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    let container = cluster.npu_nodes("c", 1, "container").await?.remove(0);
    let vm = cluster.npu_nodes("v", 1, "vm-passthrough").await?.remove(0);
    for (name, programs) in OVERLAYS {
        let objects = overlay(name)?;
        apply_twice(&cluster, name, &objects)?;
        expect_pods(&cluster, &objects).await;
        let controllers = start(&cluster, &objects).await?;
        let components = components(&objects);
        if !objects.iter().any(|object| object["kind"] == "AcceleratorConfig") {
            let names: Vec<_> = components.iter().map(|component| component.name).collect();
            cluster.configure("default", Access::enable(&names)).await?;
        }
        let has_labeler = programs.is_empty() || programs.contains(&LABELER);
        if has_labeler {
            for (node, mode) in [(&container, Workload::Container), (&vm, Workload::VmPassthrough)] {
                let here: Vec<_> = components.iter().filter(|one| one.runs_in(mode)).map(|one| one.name).collect();
                // node-labeler labels for every component of the mode; who installs its controller is not its business.
                eventually(&format!("{name}: deploy labels of {node}"), async || {
                    let labels = cluster.deploy_labels(node).await;
                    Wait::until(labels, |labels| here.iter().all(|one| labels.contains(&format!("{one}=true"))))
                })
                .await;
            }
            cluster.expect_ready("default").await;
        } else {
            for component in &components {
                cluster.label(&container, component.deploy_label, Some(DEPLOY)).await?;
                cluster.expect_condition("default", component.condition_type, "True/Ready").await;
            }
        }
        // While they work, whoever applies the overlay again changes nothing: no drift.
        apply_twice(&cluster, name, &objects)?;
        cluster.unconfigure("default").await?;
        eventually(&format!("{name}: the operands to go"), async || {
            Wait::until(cluster.daemon_sets().await.len(), |count| *count == 0)
        })
        .await;
        for component in components.iter().filter(|_| !has_labeler) {
            cluster.label(&container, component.deploy_label, None).await?;
        }
        for controller in controllers {
            assert!(controller.stop()?.success(), "{name}");
        }
        let stays = |object: &&Value| {
            let part = &object["metadata"]["labels"]["app.kubernetes.io/component"];
            part == "crd" || part == "namespace" || object["kind"] == "AcceleratorConfig"
        };
        let own: Vec<_> = objects.iter().filter(|object| !stays(object)).cloned().collect();
        install::delete(&cluster.kubeconfig, &own)?;
        assert_eq!(install::present(&cluster.kubeconfig, &own)?, Vec::<String>::new(), "{name}");
    }
    Ok(())
}

/// Whoever keeps their overlay elsewhere names a folder of this repository at a tag.
#[test]
fn a_remote_base_renders_as_a_folder_does() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (remote, own) = (folder.path().join("remote"), folder.path().join("own"));
    std::fs::create_dir_all(&own)?;
    let copy = std::process::Command::new("cp")
        .args(["-r", "--"])
        .arg(testbed::repository::root().join("deploy"))
        .arg({
            std::fs::create_dir_all(&remote)?;
            &remote
        })
        .status()?;
    assert!(copy.success());
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "."],
        &["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "a"],
        &["tag", "v1"],
    ] {
        assert!(std::process::Command::new("git").args(arguments).current_dir(&remote).status()?.success());
    }
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- file://{}//deploy/overlays/default?ref=v1\n",
        remote.display()
    );
    std::fs::write(own.join("kustomization.yaml"), text)?;
    assert_eq!(install::objects(&install::build(&own)?)?, overlay("default")?);
    Ok(())
}
