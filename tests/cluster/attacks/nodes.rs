//! Attacks on nodes, by those who may patch them.

use serde_json::{Value, json};

use super::{Attack, DRIVER_OPERAND, Write, attack, driver_pod_client, unguarded};
use crate::LABELER;

fn node(by: &'static str, name: &str, patch: Value) -> Write {
    Write::merge(by, format!("/api/v1/nodes/{name}"), patch)
}

fn label(by: &'static str, name: &str, key: &str, value: &Value) -> Write {
    node(by, name, json!({"metadata": {"labels": {key: value}}}))
}

fn of_the_labeler() -> Vec<Attack> {
    let spec = |patch: Value| node(LABELER, "stolen-0", json!({"spec": patch}));
    let label = |name: &str, key: &str, value: Value| label(LABELER, name, key, &value);
    let deploy = "rebellions.ai/npu.deploy.driver";
    vec![
        attack("cordon", spec(json!({"unschedulable": true})), "nothing in a node's spec"),
        attack("lift a cordon", node(LABELER, "stolen-1", json!({"spec": {"unschedulable": null}})), "node's spec"),
        attack("evict by a taint", spec(json!({"taints": [{"key": "a", "effect": "NoExecute"}]})), "node's spec"),
        attack(
            "say who owns it",
            spec(json!({"providerID": "kwok://stolen-0", "podCIDR": "10.9.0.0/24", "podCIDRs": ["10.9.0.0/24"]})),
            "node's spec",
        ),
        attack("attract pods", label("stolen-0", "node-role.kubernetes.io/control-plane", json!("")), "deploy labels"),
        attack(
            "move it",
            label("stolen-0", "topology.kubernetes.io/zone", json!("x")),
            "and here topology.kubernetes.io/zone",
        ),
        attack(
            "change its mode",
            label("stolen-0", "rebellions.ai/npu.workload.config", json!("vm-passthrough")),
            "deploy labels",
        ),
        attack("take a label", label("stolen-0", "kubernetes.io/hostname", Value::Null), "deploy labels"),
        attack(
            "keep it from being labelled",
            label("stolen-0", "rebellions.ai/npu.deploy.skip", json!("true")),
            "deploy labels",
        ),
        attack(
            "pause a component for good",
            label("stolen-0", deploy, json!("paused-for-driver-upgrade")),
            "to true, and to nothing else",
        ),
        attack("override an admin", label("stolen-1", deploy, json!("true")), "to which an admin gave a value"),
        attack("override an admin's absence", label("stolen-1", deploy, Value::Null), "to which an admin gave a value"),
        attack(
            "label a node that is to be left alone",
            label("stolen-skip-0", deploy, json!("true")),
            "leaves a node as it is",
        ),
        attack(
            "begin an upgrade",
            node(
                LABELER,
                "stolen-0",
                json!({"metadata": {"annotations": {"rebellions.ai/npu-driver-upgrade-requested": "true"}}}),
            ),
            "no annotation of nodes but its own record",
        ),
        attack(
            "keep it",
            node(LABELER, "stolen-0", json!({"metadata": {"finalizers": ["example.com/stay"]}})),
            "finalizers",
        ),
    ]
}

fn of_a_drivers_pod() -> Vec<Attack> {
    let own = |patch: Value| node(DRIVER_OPERAND, "stolen-0", patch);
    let evict = |namespace: &str, pod: &str| {
        let body =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}});
        Write::create(DRIVER_OPERAND, format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction"), body)
    };
    vec![
        attack(
            "cordon another node",
            node(DRIVER_OPERAND, "stolen-1", json!({"spec": {"unschedulable": true}})),
            "the node on which it runs alone",
        ),
        attack(
            "have the driver of another node removed",
            label(
                DRIVER_OPERAND,
                "stolen-1",
                "rebellions.ai/npu.deploy.device-plugin",
                &json!("paused-for-driver-upgrade"),
            ),
            "the node on which it runs alone",
        ),
        attack("evict in kube-system", evict("kube-system", "dns"), "evicts no pods in kube-system"),
        attack("evict a controller", evict("accelerator-system", "controller"), "evicts no pods in accelerator-system"),
        attack(
            "attract pods",
            own(json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})),
            "rebellions.ai/npu",
        ),
        attack(
            "change its mode",
            own(json!({"metadata": {"labels": {"rebellions.ai/npu.workload.config": "vm-passthrough"}}})),
            "workload.config",
        ),
        attack("annotate", own(json!({"metadata": {"annotations": {"example.com/a": "b"}}})), "and here example.com/a"),
        attack("taint", own(json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}})), "spec"),
        attack("keep it", own(json!({"metadata": {"finalizers": ["example.com/stay"]}})), "finalizers"),
    ]
}

#[tokio::test]
async fn a_stolen_token_writes_no_more_of_nodes_than_its_program_does() -> anyhow::Result<()> {
    let (mut cluster, mut thieves) = unguarded().await?;
    cluster.npu_nodes("stolen-skip", 1, "container").await?;
    cluster.kubectl(&["cordon", "stolen-1"])?;
    cluster.label("stolen-1", "rebellions.ai/npu.deploy.driver", Some("pre-installed")).await?;
    cluster.label("stolen-skip-0", "rebellions.ai/npu.deploy.skip", Some("true")).await?;
    let victims = [("kube-system", "dns"), ("accelerator-system", "controller"), ("default", "job")];
    for (namespace, pod) in victims {
        let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        cluster
            .create(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": namespace},
            "spec": {"containers": [{"name": "main", "image": "i", "securityContext": security}]}}))?;
    }
    let mut attacks = of_the_labeler();
    attacks.extend(of_a_drivers_pod());
    thieves.expect_possible(&attacks).await;
    let unbound = driver_pod_client(&cluster, None).await?;
    cluster.guard().await?;
    thieves.expect_refused(&attacks).await;

    let deploy = "rebellions.ai/npu.deploy.driver";
    let record =
        json!({"metadata": {"labels": {deploy: "true"}, "annotations": {"petasus.io/owned-deploy-labels": "driver"}}});
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "job", "namespace": "default"}});
    let evict = Write::create(DRIVER_OPERAND, "/api/v1/namespaces/default/pods/job/eviction", eviction);
    let pause = label(
        DRIVER_OPERAND,
        "stolen-0",
        "rebellions.ai/npu.deploy.device-plugin",
        &json!("paused-for-driver-upgrade"),
    );
    let cordon = node(DRIVER_OPERAND, "stolen-0", json!({"spec": {"unschedulable": true}}));
    let own = [
        ("label a node", node(LABELER, "stolen-0", record)),
        ("pause components of its node", pause.clone()),
        ("cordon its node", cordon),
        ("evict a pod", evict.clone()),
    ];
    thieves.expect_allowed(&own).await;

    // Whoever copied the account's name into a token of their own has no node.
    thieves.clients.insert(DRIVER_OPERAND, unbound);
    let attacks = [
        attack("pause without a pod", pause, "the node on which it runs alone"),
        attack("evict without a pod", evict, "only a token that a kubelet asked for"),
    ];
    thieves.expect_refused(&attacks).await;
    for (namespace, pod) in victims {
        cluster.kubectl(&["delete", "pod", pod, "-n", namespace, "--now", "--wait=false"])?;
    }
    Ok(())
}
