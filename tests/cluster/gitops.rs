//! What GitOps tools make of an AcceleratorConfig, in the words of the tools themselves.

use serde_json::json;
use testbed::access::OPERANDS;
use testbed::gitops::verdicts;
use testbed::{Access, Cluster, Wait, eventually};

use crate::LABELER;

const COMPONENT: &str = "device-plugin";
const CONTROLLER: &str = "rebellions-device-plugin-controller";

/// What kstatus, Argo CD and Flux with the guide's expressions call the object.
type Health = (&'static str, &'static str, &'static str);

const UNSEEN: Health = ("InProgress", "Progressing", "InProgress");
/// It counts, and nodes are on their way.
const ACCEPTED: Health = ("InProgress", "Progressing", "Current");
const DONE: Health = ("Current", "Healthy", "Current");
/// The expressions ask for what node-labeler says.
const DONE_ALONE: Health = ("Current", "Healthy", "InProgress");
const FAILED: Health = ("Failed", "Degraded", "Failed");

/// What they call an object now.
async fn health(cluster: &Cluster, name: &str) -> anyhow::Result<[String; 3]> {
    let verdicts = verdicts(&cluster.config(name).await)?;
    Ok([verdicts.kstatus.status, verdicts.argocd.status, verdicts.flux])
}

fn is(seen: &[String; 3], expected: Health) -> bool {
    seen.each_ref().map(String::as_str) == [expected.0, expected.1, expected.2]
}

async fn expect_now(cluster: &Cluster, name: &str, expected: Health, when: &str) -> anyhow::Result<()> {
    let seen = health(cluster, name).await?;
    assert!(is(&seen, expected), "{when}: {name} is {seen:?}, not {expected:?}");
    Ok(())
}

async fn expect(cluster: &Cluster, name: &str, expected: Health, when: &str) {
    eventually(&format!("{name} to be {expected:?} {when}"), async || match health(cluster, name).await {
        Ok(seen) => Wait::until(format!("{seen:?}"), |_| is(&seen, expected)),
        Err(error) => Wait::NotYet(error.to_string()),
    })
    .await;
}

#[tokio::test]
async fn an_object_is_done_when_all_of_it_is_and_failed_when_somebody_has_to_act() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let enabled = Access::enable(&[COMPONENT]);
    cluster.npu_nodes("n", 1, "container").await?;
    cluster.configure("default", enabled.clone()).await?;
    expect_now(&cluster, "default", UNSEEN, "made a moment ago").await?;
    let labeler = cluster.start(LABELER).await;
    cluster.expect_condition("default", "Ready", "False/ComponentNotReporting").await;
    expect_now(&cluster, "default", ACCEPTED, "without the component's controller").await?;
    let controller = cluster.start(CONTROLLER).await;
    cluster.expect_ready("default").await;
    expect_now(&cluster, "default", DONE, "ready").await?;

    let younger = "younger";
    cluster.configure(younger, enabled.clone()).await?;
    cluster.expect_condition(younger, "Ready", "False/Superseded").await;
    expect_now(&cluster, younger, FAILED, "superseded").await?;
    let told = verdicts(&cluster.config(younger).await)?;
    let why = "the older AcceleratorConfig default counts; this one takes over when that one is deleted";
    assert_eq!((told.kstatus.message.as_str(), told.argocd.message.as_str()), (why, why));

    // An edit that nobody looks at.
    labeler.stop()?;
    controller.stop()?;
    let mut edited = enabled.clone();
    edited["devicePlugin"]["env"] = json!([{"name": "A", "value": "b"}]);
    cluster.configure("default", edited).await?;
    expect_now(&cluster, "default", UNSEEN, "edited").await?;
    // A printed column cannot compare the two generations; kubectl wait does.
    let columns = [
        "READY:.status.conditions[?(@.type==\"Ready\")].status",
        "GEN:.metadata.generation",
        "SEEN:.status.observedGeneration",
    ];
    let printed = cluster.kubectl(&[
        "get",
        "ac",
        "default",
        "--no-headers",
        "-o",
        &format!("custom-columns={}", columns.join(",")),
    ])?;
    assert_eq!(printed.split_whitespace().collect::<Vec<_>>(), ["True", "2", "1"], "of the generation before");
    let wait = ["wait", "--for=condition=Ready", "ac/default", "--timeout=1s"];
    assert!(cluster.kubectl(&wait).is_err(), "kubectl wait is content with the generation before");
    let _again = [cluster.start(LABELER).await, cluster.start(CONTROLLER).await];
    expect(&cluster, "default", DONE, "when the edit has been followed").await;

    let finalizer = |value: &str| format!(r#"{{"metadata":{{"finalizers":{value}}}}}"#);
    cluster.kubectl(&["patch", "ac", "default", "--type=merge", "-p", &finalizer(r#"["example.com/wait"]"#)])?;
    cluster.kubectl(&["delete", "ac", "default", "--wait=false"])?;
    // Flux's evaluator sees another generation until node-labeler has seen it too.
    let [kstatus, argocd, _] = health(&cluster, "default").await?;
    assert_eq!((kstatus.as_str(), argocd.as_str()), ("Terminating", "Progressing"), "being deleted");
    cluster.kubectl(&["patch", "ac", "default", "--type=merge", "-p", &finalizer("null")])?;
    expect(&cluster, younger, DONE, "when it counts").await;
    Ok(())
}

/// Where there is no node-labeler there is no condition Ready, and nobody says Stalled.
#[tokio::test]
async fn a_component_alone_is_done_when_it_is_ready_and_its_trouble_is_a_failure_once_it_is_not_alone()
-> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let theirs = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "rebellions-device-plugin", "namespace": OPERANDS},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    cluster.create(&theirs)?;
    cluster.configure("default", Access::enable(&[COMPONENT])).await?;
    expect_now(&cluster, "default", UNSEEN, "made a moment ago").await?;
    let _controller = cluster.start(CONTROLLER).await;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/NameTaken").await;
    expect_now(&cluster, "default", UNSEEN, "alone, its name taken").await?;
    let labeler = cluster.start(LABELER).await;
    expect(&cluster, "default", FAILED, "when node-labeler sums up").await;
    labeler.stop()?;

    cluster.kubectl(&["delete", "daemonset", "-n", OPERANDS, "rebellions-device-plugin"])?;
    cluster.unconfigure("default").await?;
    let mut slow = Access::enable(&[COMPONENT]);
    slow["daemonsets"] = json!({"annotations": {"sim.test/ready": "5s"}});
    cluster.configure("default", slow).await?;
    expect(&cluster, "default", DONE_ALONE, "alone, on no node").await;
    let node = &cluster.npu_nodes("n", 1, "").await?[0];
    cluster.label(node, "rebellions.ai/npu.deploy.device-plugin", Some("true")).await?;
    cluster.expect_condition("default", "RebellionsDevicePluginReady", "False/").await;
    expect_now(&cluster, "default", UNSEEN, "alone, with a pod that starts").await?;
    expect(&cluster, "default", DONE_ALONE, "alone and ready").await;
    assert_eq!(cluster.condition("default", "Ready").await, "", "nobody says Ready");
    Ok(())
}
