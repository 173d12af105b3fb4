//! Attacks on what the programs say, on who of them leads, and on each other's pods.

use accelerator_api::contract::COMPONENTS;
use serde_json::{Value, json};
use testbed::Cluster;
use testbed::access::OPERANDS;

use super::{Attack, DRIVER_OPERAND, Thieves, Write, attack, unguarded};
use crate::LABELER;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/accelerator-system/leases";

fn status(by: &'static str, manager: &str, status: &Value) -> Write {
    let body = json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "default"}, "status": status});
    Write::apply(by, manager, "/apis/petasus.io/v1beta1/acceleratorconfigs/default/status", body)
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "Forged", "message": "", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn conditions(kinds: &[&str]) -> Value {
    json!({"conditions": kinds.iter().map(|kind| condition(kind)).collect::<Vec<_>>()})
}

fn event(by: &'static str, signed: &str) -> Write {
    let body = json!({
        "metadata": {"name": "forged", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal", "reason": "Forged", "action": "Forge", "note": "n",
        "reportingController": signed, "reportingInstance": "i", "regarding": {"apiVersion": "v1", "kind": "Node", "name": "n"},
    });
    Write::create(by, EVENTS, body)
}

fn lease(by: &'static str, name: &str) -> Write {
    let spec = json!({"holderIdentity": "thief", "leaseDurationSeconds": 31_536_000});
    Write::create(by, LEASES, json!({"metadata": {"name": name, "namespace": "accelerator-system"}, "spec": spec}))
}

fn attacks() -> Vec<Attack> {
    let programs: Vec<&'static str> = testbed::repository::programs().collect();
    let mut attacks = vec![];
    for (index, &by) in programs.iter().enumerate() {
        let other = programs[(index + 1) % programs.len()];
        attacks.push(attack("sign as another of ours", event(by, other), "signs events with its own name"));
        attacks.push(attack("sign as the scheduler", event(by, "default-scheduler"), "signs events with its own name"));
        attacks.push(attack("keep another from leading", lease(by, other), "takes the Lease of its own name"));
    }
    for component in COMPONENTS {
        let by = component.controller;
        let own = "writes no condition but";
        for kind in ["Ready", "Accepted", "Stalled", "RebellionsDriverUpgradeDone"] {
            attacks.push(attack(format!("forge {kind}"), status(by, by, &conditions(&[kind])), own));
        }
        for other in COMPONENTS.iter().filter(|other| other.name != component.name) {
            let forged = status(by, by, &conditions(&[component.condition_type, other.condition_type]));
            attacks.push(attack(format!("forge {}", other.condition_type), forged, own));
            let entry = status(by, by, &json!({"components": [{"name": other.operand, "desired": 1, "ready": 1}]}));
            attacks.push(attack(
                format!("say that {} runs", other.name),
                entry,
                "no entry of status.components but its own",
            ));
            let removed = status(by, other.controller, &json!({}));
            attacks.push(attack(format!("remove what {} says", other.name), removed, "but"));
        }
        attacks.push(attack("remove Ready", status(by, LABELER, &json!({})), own));
        attacks.push(attack(
            "count nodes",
            status(by, by, &json!({"nodes": {"container": 7}})),
            "only node-labeler writes",
        ));
        attacks.push(attack(
            "claim to have seen",
            status(by, by, &json!({"observedGeneration": 1})),
            "only node-labeler writes",
        ));
        let forged = status(LABELER, LABELER, &conditions(&["Ready", component.condition_type]));
        attacks.push(attack(
            format!("forge {}", component.condition_type),
            forged,
            "writes no condition but Accepted, Ready, Stalled",
        ));
        let entry = status(LABELER, LABELER, &json!({"components": [{"name": component.operand, "ready": 1}]}));
        attacks.push(attack(
            format!("say that {} runs", component.name),
            entry,
            "no entry of status.components but its own",
        ));
    }
    attacks.push(attack(
        "end another operand's pods",
        Write::delete("rebellions-driver-controller", "/api/v1/namespaces/rebellions/pods/other"),
        "deletes pods of the driver alone",
    ));
    attacks
}

/// What the programs have said, of which each entry is somebody's.
async fn say_everything(cluster: &Cluster, programs: &Thieves) -> anyhow::Result<()> {
    cluster.configure("default", json!({})).await?;
    let entry = |operand: &str| json!({"name": operand, "controllerVersion": "0.1.0", "desired": 3, "ready": 2});
    for component in COMPONENTS {
        let by = component.controller;
        let mut said = conditions(&[component.condition_type]);
        said["conditions"][0]["status"] = json!("False");
        said["components"] = json!([entry(component.operand)]);
        carry_out(programs, &status(by, by, &said)).await?;
    }
    let mut said = conditions(&["Ready", "Accepted"]);
    for condition in said["conditions"].as_array_mut().into_iter().flatten() {
        condition["status"] = json!("False");
    }
    said["nodes"] = json!({"container": 3});
    said["observedGeneration"] = json!(0);
    carry_out(programs, &status(LABELER, LABELER, &said)).await
}

async fn carry_out(programs: &Thieves, write: &Write) -> anyhow::Result<()> {
    let request = http::Request::builder().method(write.method).uri(&write.path).header("content-type", write.content);
    programs.clients[write.by].request_text(request.body(write.body.to_string().into_bytes())?).await?;
    Ok(())
}

/// As releases before 0.2.0 let every program create Leases. Whoever gives that right back is still held.
fn let_them_create_leases(cluster: &Cluster) -> anyhow::Result<()> {
    let group = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "create-leases", "namespace": "accelerator-system"});
    cluster.create(&json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}]}))?;
    cluster.create(&json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "create-leases"},
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts:accelerator-system", "apiGroup": group}]}))?;
    Ok(())
}

#[tokio::test]
async fn a_stolen_token_speaks_for_its_program_alone() -> anyhow::Result<()> {
    let (mut cluster, thieves) = unguarded().await?;
    // Leases are deleted here, and roles made, which nobody restores.
    cluster.spoil();
    let_them_create_leases(&cluster)?;
    cluster.kubectl(&["delete", "leases", "--all", "-n", "accelerator-system"])?;
    cluster.create(&json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "other", "namespace": OPERANDS, "labels": {"app.kubernetes.io/name": "rebellions-device-plugin"}},
        "spec": {"containers": [{"name": "main", "image": "i"}]}}))?;
    say_everything(&cluster, &thieves).await?;
    let attacks = attacks();
    thieves.expect_possible(&attacks).await;
    cluster.guard().await?;
    thieves.expect_refused(&attacks).await;

    for program in testbed::repository::programs() {
        thieves.expect_allowed(&[("sign", event(program, program)), ("lead", lease(program, program))]).await;
    }
    for component in COMPONENTS {
        let by = component.controller;
        let mut own = conditions(&[component.condition_type]);
        own["components"] = json!([{"name": component.operand, "desired": 3, "ready": 3}]);
        thieves
            .expect_allowed(&[("report", status(by, by, &own)), ("say nothing more", status(by, by, &json!({})))])
            .await;
    }
    // One of which nobody has said anything yet, node-labeler neither.
    cluster.configure("new", json!({})).await?;
    for component in COMPONENTS {
        let first = status(component.controller, component.controller, &conditions(&[component.condition_type]));
        let mut body = first.body;
        body["metadata"]["name"] = json!("new");
        // Without node-labeler they say this as well.
        body["status"]["observedGeneration"] = json!(1);
        let first = Write { path: first.path.replace("/default/", "/new/"), body, ..first };
        thieves.expect_allowed(&[("report first", first)]).await;
    }
    let upgrade = conditions(&["RebellionsDriverUpgradeBlocked", "RebellionsDriverUpgradeProgressing"]);
    let driver = "rebellions-driver-controller";
    let pod = Write::delete(driver, "/api/v1/namespaces/rebellions/pods/driver-pod");
    thieves.expect_allowed(&[("report", status(driver, driver, &upgrade)), ("replace a driver", pod)]).await;
    let mut own = conditions(&["Ready", "Accepted", "Stalled"]);
    own["nodes"] = json!({"container": 4});
    own["observedGeneration"] = json!(1);
    thieves.expect_allowed(&[("report", status(LABELER, LABELER, &own))]).await;
    Ok(())
}

/// The longest status that there can be: a hundred pools, and ten nodes of an upgrade, all with something to say.
#[tokio::test]
async fn the_largest_status_and_node_are_within_the_budget_of_the_policies() -> anyhow::Result<()> {
    let (mut cluster, thieves) = unguarded().await?;
    say_everything(&cluster, &thieves).await?;
    let words = "w".repeat(1000);
    let pool = |number: usize| json!({"name": format!("ubuntu22.04-5.15.0-{number}-generic"), "image": words, "message": words});
    let node =
        |number: usize| json!({"name": format!("n-{number}"), "state": "Failed", "reason": "r", "message": words});
    let driver = "rebellions-driver-controller";
    let mut large =
        conditions(&["RebellionsDriverReady", "RebellionsDriverUpgradeBlocked", "RebellionsDriverUpgradeProgressing"]);
    for condition in large["conditions"].as_array_mut().expect("conditions") {
        condition["message"] = json!("w".repeat(32_000));
    }
    large["components"] = json!([{
        "name": "rebellions-driver", "message": "w".repeat(32_000), "pools": (0..100).map(pool).collect::<Vec<_>>(),
        "upgrade": {"nodes": (0..10).map(node).collect::<Vec<_>>()},
    }]);
    carry_out(&thieves, &status(driver, driver, &large)).await?;
    let entries = |kind: &str| {
        (0..400)
            .map(|n| (format!("{kind}.example.com/k{n}"), "v".repeat(60)))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    cluster
        .all::<k8s_openapi::api::core::v1::Node>()
        .patch(
            "stolen-0",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(
                json!({"metadata": {"labels": entries("label"), "annotations": entries("annotation")}}),
            ),
        )
        .await?;
    cluster.guard().await?;

    let mut own = conditions(&["Ready", "Accepted"]);
    own["nodes"] = json!({"container": 4});
    let device_plugin = "rebellions-device-plugin-controller";
    let labelled = json!({"metadata": {"labels": {"rebellions.ai/npu.deploy.driver": "true"}, "annotations": {"petasus.io/owned-deploy-labels": "driver"}}});
    let paused = json!({"metadata": {"labels": {"rebellions.ai/npu.deploy.driver": "paused-for-driver-upgrade"}}});
    let begun = json!({"metadata": {"labels": {"rebellions.ai/npu-driver-pool": "a"}}});
    thieves
        .expect_allowed(&[
            ("report", status(LABELER, LABELER, &own)),
            ("report", status(device_plugin, device_plugin, &conditions(&["RebellionsDevicePluginReady"]))),
            ("report", status(driver, driver, &large)),
            ("label", Write::merge(LABELER, "/api/v1/nodes/stolen-0", labelled)),
            ("pause", Write::merge(DRIVER_OPERAND, "/api/v1/nodes/stolen-0", paused)),
            ("move", Write::merge(driver, "/api/v1/nodes/stolen-0", begun)),
        ])
        .await;
    Ok(())
}
