//! Changes of the config, generated from its schema. Whatever the API server takes must lead somewhere, to the same place
//! as when it had been so from the beginning, and back again.

use accelerator_api::contract::DEVICE_PLUGIN;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::DeleteParams;
use serde_json::Value;
use testbed::access::OPERANDS;
use testbed::generate::Generator;
use testbed::{Access, Cluster, Wait, eventually, say};

const SECTIONS: &[&str] = &["daemonsets", "devicePlugin"];

/// Waits until the controller has seen the newest config. Returns the pod template and strategy that it led to.
async fn settled(cluster: &Cluster) -> Value {
    let config = eventually("the newest config to be seen", async || {
        let config = cluster.config("default").await;
        let generation = config["metadata"]["generation"].clone();
        let conditions = config["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ours = conditions.into_iter().find(|one| one["type"] == DEVICE_PLUGIN.condition_type);
        // This test deletes the DaemonSet, and who does so again and again waits a little for the next one.
        let is_pending = |reason: &Value| reason == "AwaitingObservation" || reason == "Contested";
        let is_seen = |ours: &Option<Value>| {
            ours.as_ref().is_some_and(|ours| ours["observedGeneration"] == generation && !is_pending(&ours["reason"]))
        };
        Wait::until(ours, is_seen)
    })
    .await
    .unwrap_or_default();
    let told = config["reason"].as_str().unwrap_or_default();
    assert!(matches!(told, "NoNodesSelected" | "Disabled"), "the schema lets through what fails later: {config}");
    cluster.daemon_set(DEVICE_PLUGIN.name).await["spec"].clone()
}

/// The same, when the DaemonSet is made from nothing.
async fn fresh(cluster: &Cluster) -> anyhow::Result<Value> {
    let uid = async || cluster.daemon_set(DEVICE_PLUGIN.name).await["metadata"]["uid"].clone();
    let before = uid().await;
    cluster.namespaced::<DaemonSet>(OPERANDS).delete(DEVICE_PLUGIN.operand, &DeleteParams::default()).await?;
    eventually("another DaemonSet", async || Wait::until(uid().await, |uid| !uid.is_null() && *uid != before)).await;
    Ok(cluster.daemon_set(DEVICE_PLUGIN.name).await["spec"].clone())
}

/// Whether the API server takes a config; what it refuses as invalid changes nothing.
async fn is_taken(cluster: &Cluster, section: &Value) -> anyhow::Result<bool> {
    match cluster.configure("default", section.clone()).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422 | 500) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn transitions(seed: u64, steps: usize) -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let controller = cluster.start(DEVICE_PLUGIN.controller).await;
    let mut generator = Generator::new(seed, SECTIONS);
    let mut section = Access::enable(&[DEVICE_PLUGIN.name]);
    cluster.configure("default", section.clone()).await?;
    let mut spec = settled(&cluster).await;
    let (mut taken, mut tried) = (0, 0);
    while taken < steps {
        tried += 1;
        let next = generator.change(&section);
        // Server-side apply turns a section that loses all its fields into null the first time, which is no section, and
        // refuses it the second time, because `enabled` is missing. That is not ours to test.
        let is_emptied = next["devicePlugin"].as_object().is_some_and(|section| !section.contains_key("enabled"));
        if is_emptied || !is_taken(&cluster, &next).await? {
            continue;
        }
        taken += 1;
        let reached = settled(&cluster).await;
        if taken % 2 == 0 && !reached.is_null() {
            assert_eq!(fresh(&cluster).await?, reached, "made from nothing it is another: {next}");
            settled(&cluster).await;
        } else {
            cluster.configure("default", section.clone()).await?;
            assert_eq!(settled(&cluster).await, spec, "back again it is another: {next} to {section}");
            cluster.configure("default", next.clone()).await?;
            assert_eq!(settled(&cluster).await, reached, "there again it is another: {next}");
            let mark = cluster.mark()?;
            cluster.configure("default", next.clone()).await?;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert_eq!(mark.our_writes()?, [], "the same again is a change");
        }
        (section, spec) = (next, reached);
    }
    let log = controller.log();
    assert!(log.iter().all(|line| line["level"] != "ERROR"), "{log:?}");
    say(format!("seed {seed}: {taken} changes taken, {} refused", tried - taken));
    assert!(tried > taken, "no change was refused: the generator is too tame");
    Ok(())
}

#[tokio::test]
async fn generated_changes_lead_where_they_should_first_20() -> anyhow::Result<()> {
    transitions(1, 20).await
}

#[tokio::test]
async fn generated_changes_lead_where_they_should_next_20() -> anyhow::Result<()> {
    transitions(2, 20).await
}

#[tokio::test]
#[ignore = "takes a quarter of an hour; run by `just transition-suite`"]
async fn generated_changes_lead_where_they_should_all() -> anyhow::Result<()> {
    for seed in 100..110 {
        transitions(seed, 40).await?;
    }
    Ok(())
}
