//! The end of an assignment to virtual machines. What an agent can and cannot know of it decides who gives NPUs back
//! (docs/adr/0014-give-back.md), so it is tried here what a pod sees.

use std::collections::BTreeMap;

use accelerator_api::contract::VFIO_MANAGER;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Access, Cluster, Wait, eventually};

const AGENT: &str = "vfio-manager";

/// Everything is enabled, and pods take a while to end.
fn lingering() -> Value {
    let mut section = Access::enable_all();
    section["daemonsets"]["annotations"] = json!({"sim.test/term": "15s"});
    section
}

/// The agent's pods that are ending, without what differs from one pod to the next anyway.
async fn ending(cluster: &Cluster, uid: &str) -> Vec<Value> {
    let agents = ListParams::default().labels("name=rebellions-vfio-manager");
    let pods = cluster.namespaced::<Pod>(OPERANDS).list(&agents).await.map(|list| list.items).unwrap_or_default();
    pods.into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && pod.uid().as_deref() == Some(uid))
        .map(|pod| {
            let mut pod = serde_json::to_value(pod).expect("a pod");
            let metadata = pod["metadata"].as_object_mut().expect("metadata");
            for name in [
                "name",
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "deletionTimestamp",
                "managedFields",
                "generation",
            ] {
                metadata.remove(name);
            }
            for label in ["controller-revision-hash", "pod-template-generation"] {
                metadata["labels"].as_object_mut().expect("labels").remove(label);
            }
            pod.as_object_mut().expect("a pod").remove("status");
            pod
        })
        .collect()
}

/// The agent that is to stay, with its uid.
async fn agent(cluster: &Cluster) -> (String, String) {
    let agents = ListParams::default().labels("name=rebellions-vfio-manager");
    let pods = eventually("one agent", async || {
        let pods = cluster.namespaced::<Pod>(OPERANDS).list(&agents).await.map(|list| list.items).unwrap_or_default();
        let staying = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let named: Vec<_> = staying.map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())).collect();
        Wait::until(named, |named| named.len() == 1)
    })
    .await;
    pods.into_iter().next().expect("one")
}

async fn one_ending(cluster: &Cluster, uid: &str, why: &str) -> Value {
    let pods = eventually(&format!("the agent to end by {why}"), async || {
        Wait::until(ending(cluster, uid).await, |pods| pods.len() == 1)
    })
    .await;
    pods.into_iter().next().expect("one")
}

/// A mode switch, a rolling update and an admin's restart all end the pod in the same way: nothing in it tells which.
#[tokio::test]
async fn an_agent_that_ends_cannot_tell_why() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("e", 1, "vm-passthrough").await?;
    cluster.configure("default", lingering()).await?;
    cluster.expect_ready("default").await;

    let (name, uid) = agent(&cluster).await;
    cluster.namespaced::<Pod>(OPERANDS).delete(&name, &DeleteParams::default()).await?;
    let by_restart = one_ending(&cluster, &uid, "a restart").await;
    cluster.expect_ready("default").await;

    let (_, uid) = agent(&cluster).await;
    let mut section = lingering();
    section["vfioManager"]["env"] = json!([{"name": "VFIO_EXCLUDE", "value": "1150"}]);
    cluster.configure("default", section).await?;
    let by_update = one_ending(&cluster, &uid, "a rolling update").await;
    cluster.configure("default", lingering()).await?;
    cluster.expect_ready("default").await;

    let (_, uid) = agent(&cluster).await;
    cluster.set_mode("e-0", Some("container")).await?;
    let by_switch = one_ending(&cluster, &uid, "a mode switch").await;
    assert_eq!(by_restart, by_switch);
    assert_eq!(by_update, by_switch);
    assert!(by_switch["metadata"]["deletionGracePeriodSeconds"].is_number());
    cluster.expect_ready("default").await;
    Ok(())
}

/// The downward API knows the pod and the name of its node, and no label of that.
#[tokio::test]
async fn no_pod_sees_the_labels_of_its_node() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("d", 1, "vm-passthrough").await?;
    let pod = |path: &str| {
        let field = json!({"fieldRef": {"fieldPath": path}});
        let pod = json!({"metadata": {"name": "asks"}, "spec": {"containers": [
            {"name": "c", "image": "i", "env": [{"name": "X", "valueFrom": field}]}]}});
        serde_json::from_value::<Pod>(pod).expect("a pod")
    };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let pods = cluster.namespaced::<Pod>(OPERANDS);
    let label = VFIO_MANAGER.deploy_label;
    pods.create(&params, &pod("spec.nodeName")).await?;
    for path in
        [format!("node.metadata.labels['{label}']"), format!("spec.node.labels['{label}']"), "spec.nodeSelector".into()]
    {
        let error = pods.create(&params, &pod(&path)).await.expect_err(&path).to_string();
        assert!(error.contains("fieldPath"), "{error}");
    }
    Ok(())
}

/// What is certain is that a component has come that needs NPUs on their native driver: it takes them back. An agent that
/// is replaced by the next one leaves no such pod behind.
#[tokio::test]
async fn only_what_needs_npus_back_gives_them_back() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("g", 1, "vm-passthrough").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;
    let first_container = async || -> BTreeMap<String, String> {
        let pods = cluster.namespaced::<Pod>(OPERANDS).list(&ListParams::default()).await;
        let all = pods.map(|list| list.items).unwrap_or_default().into_iter();
        all.filter_map(|pod| {
            let spec = pod.spec.as_ref()?;
            let first = spec.init_containers.iter().flatten().next().or(spec.containers.first())?;
            Some((
                pod.labels().get("app.kubernetes.io/name")?.clone(),
                format!("{} {}", first.name, first.args.clone()?.join(" ")),
            ))
        })
        .collect()
    };
    let agent = [("rebellions-vfio-manager".to_owned(), "vfio-manager run".to_owned())];
    let mut section = Access::enable_all();
    section["vfioManager"]["env"] = json!([{"name": "VFIO_EXCLUDE", "value": "1150"}]);
    cluster.configure("default", section).await?;
    cluster.expect_ready("default").await;
    let seen = first_container().await;
    assert!(
        seen.iter().all(|(name, first)| !first.contains("give-back") || !name.starts_with("rebellions")),
        "{seen:?}"
    );
    assert_eq!(seen.get(&agent[0].0), Some(&agent[0].1));

    cluster.set_mode("g-0", Some("container")).await?;
    cluster.expect_ready("default").await;
    let seen = first_container().await;
    for component in ["rebellions-driver", "rebellions-device-plugin"] {
        assert_eq!(
            seen.get(component).map(String::as_str),
            Some("give-back give-back --wait=60 --wait-in-use=660"),
            "{seen:?}"
        );
    }
    assert_eq!(seen.get(&agent[0].0), None);
    Ok(())
}

/// The kubelet repeats in an event what the agent's probe said; the status takes it from there.
#[tokio::test]
async fn the_status_tells_what_the_agents_probe_says() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start(VFIO_MANAGER.controller).await;
    cluster.npu_nodes("p", 1, "").await?;
    cluster.label("p-0", VFIO_MANAGER.deploy_label, Some("true")).await?;
    let mut section = Access::enable(&[AGENT]);
    section["daemonsets"]["labels"] = json!({"sim.test/unready": "true"});
    cluster.configure("default", section).await?;
    let pods = cluster.namespaced::<Pod>(OPERANDS);
    let pod = eventually("the agent's pod", async || {
        let agents = ListParams::default().labels("name=rebellions-vfio-manager");
        Wait::until(
            pods.list(&agents).await.ok().and_then(|list| list.items.first().map(ResourceExt::name_any)),
            Option::is_some,
        )
    })
    .await;
    let why = "1 of 2 NPUs are on vfio-pci; 0000:05:00.0 Busy (InUse): process 7 (qemu) holds /dev/rbln1";
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "unhealthy", "namespace": OPERANDS},
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": OPERANDS},
        "reason": "Unhealthy", "type": "Warning", "count": 3, "lastTimestamp": accelerator_process::clock::now(),
        "message": format!("Readiness probe failed: {why}\n"),
    }))?;
    let events = cluster.namespaced::<Event>(OPERANDS);
    events.create(&PostParams::default(), &event).await?;
    let condition = eventually("the probe's words", async || {
        let condition = cluster.condition("default", VFIO_MANAGER.condition_type).await;
        Wait::until(condition, |condition| condition.contains("0000:05:00.0"))
    })
    .await;
    assert!(
        condition.starts_with("False/PodsNotReady: ready on 0 of 1 node: p-0 (not ready: 1 of 2 NPUs"),
        "{condition}"
    );
    events.delete("unhealthy", &DeleteParams::default()).await?;
    Ok(())
}
