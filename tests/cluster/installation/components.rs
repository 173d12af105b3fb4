//! Each component of `deploy/components` on a control plane, with the whole of `default` and with one controller.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::install;
use testbed::{Cluster, Profile, Wait, eventually};

use super::{COMPONENTS, apply_twice, expect_pods, own, with_prerequisites};

/// The kind of `OpenShift`'s API server that a component has an object of. The fields are those of its reference of
/// `security.openshift.io/v1`; what `OpenShift` makes of them is not tried.
fn openshift(cluster: &Cluster) -> anyhow::Result<()> {
    let flag = || json!({"type": "boolean"});
    let texts = || json!({"type": "array", "items": {"type": "string"}, "nullable": true});
    let strategy = || json!({"type": "object", "properties": {"type": {"type": "string"}}, "nullable": true});
    let mut properties = json!({"priority": {"type": "integer", "format": "int32", "nullable": true}});
    for name in [
        "PrivilegedContainer",
        "PrivilegeEscalation",
        "HostDirVolumePlugin",
        "HostIPC",
        "HostNetwork",
        "HostPID",
        "HostPorts",
    ] {
        properties[format!("allow{name}")] = flag();
    }
    properties["readOnlyRootFilesystem"] = flag();
    for name in [
        "allowedCapabilities",
        "defaultAddCapabilities",
        "requiredDropCapabilities",
        "seccompProfiles",
        "volumes",
        "users",
        "groups",
    ] {
        properties[name] = texts();
    }
    for name in ["runAsUser", "seLinuxContext", "fsGroup", "supplementalGroups"] {
        properties[name] = strategy();
    }
    let required = ["PrivilegedContainer", "HostDirVolumePlugin", "HostIPC", "HostNetwork", "HostPID", "HostPorts"]
        .map(|name| format!("allow{name}"));
    cluster.create(&json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "securitycontextconstraints.security.openshift.io"},
        "spec": {
            "group": "security.openshift.io",
            "scope": "Cluster",
            "names": {"plural": "securitycontextconstraints", "kind": "SecurityContextConstraints"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": properties, "required": required}}}],
        },
    }))?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd/securitycontextconstraints.security.openshift.io",
    ])?;
    Ok(())
}

#[tokio::test]
async fn each_component_applies_alone_in_more_than_one_overlay() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    openshift(&cluster)?;
    // The namespaces that two of them move things to belong to whoever installs one controller alone.
    for namespace in ["npu", "npu-system"] {
        cluster.create(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))?;
    }
    for component in COMPONENTS {
        for overlay in ["single-controller", "default"] {
            let objects = own(overlay, &[component], &json!({}))?;
            if component == "crd-only" && overlay == "single-controller" {
                assert_eq!(objects, Vec::<Value>::new(), "it has no CRD");
                continue;
            }
            apply_twice(&cluster, &format!("{component} in {overlay}"), &objects)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn two_replicas_run_on_nodes_of_their_own_and_a_drain_takes_one() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    cluster.npu_nodes("n", 2, "").await?;
    let objects = own("default", &["high-availability"], &json!({}))?;
    install::apply(&cluster.kubeconfig, &objects)?;
    expect_pods(&cluster, &objects).await;
    let pods = cluster.kubectl(&[
        "get",
        "pods",
        "-n",
        "accelerator-system",
        "-o",
        "jsonpath={range .items[*]}{.metadata.labels.app\\.kubernetes\\.io/name} {.spec.nodeName}{\"\\n\"}{end}",
    ])?;
    let places: BTreeSet<_> = pods.lines().collect();
    assert_eq!(places.len(), 2 * testbed::repository::programs().count(), "{pods}");
    eventually("budgets that let one replica go", async || {
        let path = "jsonpath={.items[*].status.disruptionsAllowed}";
        let allowed = cluster.kubectl(&["get", "pdb", "-n", "accelerator-system", "-o", path]).unwrap_or_default();
        Wait::until(allowed, |allowed| {
            allowed.split(' ').filter(|one| *one == "1").count() == testbed::repository::programs().count()
        })
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn people_may_what_their_roles_say() -> anyhow::Result<()> {
    let cluster = with_prerequisites(Profile::Functional).await?;
    install::apply(&cluster.kubeconfig, &own("default", &["viewer"], &json!({}))?)?;
    for role in ["view", "edit"] {
        let user = format!("--user={role}er");
        cluster.kubectl(&["create", "clusterrolebinding", role, &format!("--clusterrole={role}"), &user])?;
    }
    let may = |who: &[&str], what: &[&str]| {
        let answer = cluster.kubectl(&[&["auth", "can-i"], what, who].concat());
        // "no" is told by the exit code as well.
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    let (viewer, editor) = (["--as=viewer"], ["--as=editer"]);
    eventually("Kubernetes to add our roles to its own", async || {
        let both = (may(&viewer, &["get", "ac"]), may(&editor, &["patch", "ac"]));
        Wait::until(both, |both| *both == (true, true))
    })
    .await;
    assert!(!may(&viewer, &["patch", "ac"]));
    assert!(may(&editor, &["delete", "ac"]));
    assert!(!may(&editor, &["patch", "ac", "--subresource=status"]), "controllers say what is");

    let support = ["--as=somebody", "--as-group=accelerator-operator-viewers"];
    for what in [
        &["watch", "ac"][..],
        &["list", "nodes"],
        &["list", "pods", "-n", "rebellions"],
        &["get", "pods", "--subresource=log", "-n", "rebellions"],
        &["list", "daemonsets.apps", "-n", "rebellions"],
        &["list", "events", "-n", "rebellions"],
        &["list", "deployments.apps", "-n", "accelerator-system"],
        &["get", "leases.coordination.k8s.io", "-n", "accelerator-system"],
        &["list", "events.events.k8s.io", "-n", "default"],
    ] {
        assert!(may(&support, what), "{what:?}");
    }
    for what in [
        &["patch", "ac"][..],
        &["patch", "nodes"],
        &["list", "pods", "-n", "default"],
        &["get", "secrets", "-n", "rebellions"],
        &["delete", "pods", "-n", "rebellions"],
        &["create", "pods", "--subresource=exec", "-n", "rebellions"],
        &["update", "leases.coordination.k8s.io", "-n", "accelerator-system"],
    ] {
        assert!(!may(&support, what), "{what:?}");
    }
    Ok(())
}
