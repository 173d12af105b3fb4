//! Who may do what: nothing beyond what is listed here, and nothing that is not needed.

use accelerator_operand::Placement;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::repository::{operands, programs, root};
use testbed::{Cluster, install};

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

/// The table is what is written down; this is what the API server does.
#[tokio::test]
async fn a_controller_is_refused_everything_but_its_own_daemonset() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let forbidden = |what: &str, result: Result<(), kube::Error>| match result {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what} must be forbidden: {other:?}"),
    };
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
            let deleted = api.delete(name, &DeleteParams::default()).await.map(drop);
            if other.component.name == operand.component.name {
                applied?;
                deleted?;
            } else {
                forbidden(&format!("{} applying {name}", operand.component.controller), applied);
                forbidden(&format!("{} deleting {name}", operand.component.controller), deleted);
            }
        }
        forbidden(
            "creating by POST",
            api.create(&kube::api::PostParams::default(), &DaemonSet::default()).await.map(drop),
        );
        let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(client.clone());
        forbidden("reading nodes", nodes.list(&kube::api::ListParams::default()).await.map(drop));
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
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(client);
    forbidden("the labeler deleting a node", nodes.delete("r-0", &DeleteParams::default()).await.map(drop));
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    forbidden(
        "the labeler writing a node's status",
        nodes.patch_status("r-0", &PatchParams::default(), &status).await.map(drop),
    );
    Ok(())
}
