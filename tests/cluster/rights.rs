//! Who may do what: nothing beyond what is listed here, and nothing that is not needed.

use accelerator_operand::Placement;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::repository::{operands, programs, root};
use testbed::{Cluster, Wait, eventually, install};

/// Every right of a service account, as `where: verbs what [names]`, read from what `deploy/` renders to.
fn rights(objects: &[Value], account: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| {
        let items = value.as_array().cloned().unwrap_or_default();
        items.iter().map(text).collect::<Vec<_>>().join(",")
    };
    let mut rights = vec![];
    let bindings =
        objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("RoleBinding" | "ClusterRoleBinding")));
    for binding in bindings {
        let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
        if !subjects.iter().any(|subject| subject["name"] == account) {
            continue;
        }
        let namespace = &binding["metadata"]["namespace"];
        let role = objects.iter().find(|object| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && (object["kind"] == "ClusterRole" || object["metadata"]["namespace"] == *namespace)
        });
        let place = if namespace.is_null() { "cluster".to_owned() } else { text(namespace) };
        for rule in role.and_then(|role| role["rules"].as_array()).into_iter().flatten() {
            let names = if rule["resourceNames"].is_null() {
                String::new()
            } else {
                format!(" [{}]", list(&rule["resourceNames"]))
            };
            rights.push(format!("{place}: {} {}{names}", list(&rule["verbs"]), list(&rule["resources"])));
        }
    }
    rights.sort();
    rights
}

#[test]
fn the_table_of_rights_is_exactly_this() -> anyhow::Result<()> {
    let objects = install::render("overlays/default")?;
    let operands = operands().map(|operand| format!("{}-operand", operand.component.operand));
    let lines = programs().map(str::to_owned).chain(operands).flat_map(|account| {
        let rights = rights(&objects, &account).into_iter().map(|right| format!("  {right}\n"));
        std::iter::once(format!("{account}\n")).chain(rights)
    });
    let table: String = lines.collect();
    let golden = root().join("tests/cluster/rights.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &table)?;
    }
    assert_eq!(table, std::fs::read_to_string(&golden)?, "if this is meant: `just generate`");
    for forbidden in ["*", "secrets", "escalate", "bind", "impersonate", "configmaps"] {
        assert!(!table.contains(forbidden), "{forbidden}");
    }
    Ok(())
}

fn forbidden(what: &str, result: Result<(), kube::Error>) {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what} must be forbidden: {other:?}"),
    }
}

/// The table is what is written down; this is what the API server does.
#[tokio::test]
async fn a_controller_is_refused_everything_but_its_own_daemonset() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    for operand in operands() {
        let client = cluster.client_of(operand.component.controller).await?;
        let api = Api::<DaemonSet>::namespaced(client.clone(), "rebellions");
        let apply = PatchParams::apply(operand.component.controller).force();
        for other in operands() {
            let name = other.component.operand;
            let placement = Placement { namespace: "rebellions".into(), ..Placement::default() };
            let wanted = other.template()?.render(
                &accelerator_api::Rebellions::default(),
                &accelerator_api::ComponentSpec::default(),
                &placement,
            );
            let applied = api.patch(name, &apply, &Patch::Apply(&wanted)).await.map(drop);
            // What an admission policy refuses to delete has to be there.
            let administrator = cluster.namespaced::<DaemonSet>("rebellions");
            administrator.patch(name, &apply, &Patch::Apply(&wanted)).await?;
            let deleted = api.delete(name, &DeleteParams::default()).await.map(drop);
            if other.component.name == operand.component.name {
                applied?;
                deleted?;
            } else {
                forbidden(&format!("{} applying {name}", operand.component.controller), applied);
                forbidden(&format!("{} deleting {name}", operand.component.controller), deleted);
            }
        }
        // The driver's controller replaces drivers, and its DaemonSets have names that cannot be listed beforehand.
        if operand.component.name != "driver" {
            forbidden(
                "creating by POST",
                api.create(&kube::api::PostParams::default(), &DaemonSet::default()).await.map(drop),
            );
            let nodes = Api::<Node>::all(client.clone());
            forbidden("reading nodes", nodes.list(&kube::api::ListParams::default()).await.map(drop));
        }
        forbidden(
            "reading secrets",
            Api::<k8s_openapi::api::core::v1::Secret>::all(client)
                .list(&kube::api::ListParams::default())
                .await
                .map(drop),
        );
    }
    let client = cluster.client_of(crate::LABELER).await?;
    let api = Api::<DaemonSet>::namespaced(client.clone(), "rebellions");
    forbidden(
        "the labeler deleting a DaemonSet",
        api.delete("rebellions-driver", &DeleteParams::default()).await.map(drop),
    );
    cluster.npu_nodes("r", 1, "").await?;
    let nodes = Api::<Node>::all(client);
    forbidden("the labeler deleting a node", nodes.delete("r-0", &DeleteParams::default()).await.map(drop));
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    forbidden(
        "the labeler writing a node's status",
        nodes.patch_status("r-0", &PatchParams::default(), &status).await.map(drop),
    );
    Ok(())
}

/// What somebody with the token of the driver's controller could do to a node if RBAC were all: see
/// `deploy/base/rebellions-driver-controller/admission_policy.yaml`.
#[tokio::test]
async fn the_drivers_controller_writes_its_own_keys_and_cordons_of_nodes_and_nothing_else() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("guard", 2, "container").await?;
    cluster.kubectl(&["cordon", "guard-1"])?;
    let nodes = Api::<Node>::all(cluster.client_of("rebellions-driver-controller").await?);
    let patch = async |node: &str, patch: Value| {
        nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    };
    let record = |cordoned: bool| json!({"petasus.io/driver-upgrade": json!({"install": "x", "cordoned": cordoned}).to_string()});

    for (what, stolen) in [
        (
            "a label of the admin's",
            json!({"metadata": {"labels": {"rebellions.ai/npu.workload.config": "vm-passthrough"}}}),
        ),
        ("a deploy label", json!({"metadata": {"labels": {"rebellions.ai/npu.deploy.driver": "true"}}})),
        ("a label taken away", json!({"metadata": {"labels": {"kubernetes.io/hostname": null}}})),
        ("an annotation", json!({"metadata": {"annotations": {"example.com/owner": "me"}}})),
        ("a taint", json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}})),
        ("a finalizer", json!({"metadata": {"finalizers": ["example.com/stay"]}})),
        ("a cordon without a record", json!({"spec": {"unschedulable": true}})),
        ("a record of no cordon", json!({"metadata": {"annotations": record(false)}, "spec": {"unschedulable": true}})),
    ] {
        forbidden(what, patch("guard-0", stolen).await);
    }
    forbidden("the admin's cordon", patch("guard-1", json!({"spec": {"unschedulable": null}})).await);
    let claimed = json!({"metadata": {"annotations": record(true)}, "spec": {"unschedulable": null}});
    forbidden("the admin's cordon with a record made up on the way", patch("guard-1", claimed).await);

    let begin = json!({
        "metadata": {
            "labels": {"rebellions.ai/npu-driver-upgrade-state": "Cordoned", "rebellions.ai/npu-driver-pool": "a"},
            "annotations": record(true),
        },
        "spec": {"unschedulable": true},
    });
    patch("guard-0", begin).await?;
    let end = json!({
        "metadata": {
            "labels": {"rebellions.ai/npu-driver-upgrade-state": "Done", "rebellions.ai/npu-driver-pool": null},
            "annotations": {"petasus.io/driver-upgrade": null},
        },
        "spec": {"unschedulable": null},
    });
    patch("guard-0", end).await?;
    Ok(())
}

/// As above, of DaemonSets: a name of a pool is allowed, what runs there is not up to whoever has the token.
#[tokio::test]
async fn a_pool_of_the_drivers_controller_runs_where_and_as_whom_the_driver_does() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let api = Api::<DaemonSet>::namespaced(cluster.client_of("rebellions-driver-controller").await?, "rebellions");
    let apply = async |name: &str, change: fn(&mut Value)| {
        let pod = json!({
            "nodeSelector": {"rebellions.ai/npu.deploy.driver": "true"},
            "serviceAccountName": "rebellions-driver-operand",
            "containers": [{"name": "main", "image": "i"}],
        });
        let mut wanted = json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"name": name}},
                "template": {"metadata": {"labels": {"name": name}}, "spec": pod},
            },
        });
        change(&mut wanted["spec"]["template"]["spec"]);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&wanted)).await.map(drop)
    };
    // The API server takes a moment to put a policy into force.
    eventually("the policy to be in force", async || {
        let answer = apply("other", |_| {}).await;
        Wait::until(answer.is_err(), |is_refused| *is_refused)
    })
    .await;
    let other = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "other"},
        "spec": {
            "selector": {"matchLabels": {"name": "other"}},
            "template": {
                "metadata": {"labels": {"name": "other"}},
                "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "main", "image": "i"}]},
            },
        },
    });
    let administrator = cluster.namespaced::<DaemonSet>("rebellions");
    administrator.patch("other", &PatchParams::apply("test").force(), &Patch::Apply(&other)).await?;
    apply("rebellions-driver-ubuntu22.04-5.15", |_| {}).await?;
    for name in ["other", "rebellions-device-plugin", "rebellions-drivers"] {
        forbidden(name, apply(name, |_| {}).await);
    }
    forbidden("everywhere", apply("rebellions-driver-a", |pod| pod["nodeSelector"] = json!({})).await);
    let as_another = |pod: &mut Value| pod["serviceAccountName"] = json!("rebellions-vfio-manager-operand");
    forbidden("as another", apply("rebellions-driver-a", as_another).await);
    forbidden("deleting another's", api.delete("other", &DeleteParams::default()).await.map(drop));
    Ok(())
}
