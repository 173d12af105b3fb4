//! Upgrades of the driver, as an admin sees them: what is done to nodes, in which order, and what becomes of those on which it
//! does not work. What must be true of every run is in `testbed::history`.

use std::time::Duration;

use accelerator_api::contract::{
    DRIVER, DRIVER_UPGRADE_ANNOTATION, DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_STATE_LABEL,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use rebellions_driver_controller::upgrade::Record;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::nodes::ATOM;
use testbed::{Access, Cluster, Controller, History, Kubelets, Leased, Recording, Trouble, Wait, Workload, eventually};

/// The type of the condition that says that an upgrade does not go on.
const BLOCKED: &str = "RebellionsDriverUpgradeBlocked";

/// A cluster whose nodes all run the driver 3.0.0, with every NPU allocatable.
struct Upgrade {
    kubelets: Kubelets,
    _controllers: Vec<Controller>,
    policy: Value,
    /// Last: it is given back only when its controllers and kubelets have ended.
    cluster: Leased,
}

impl Upgrade {
    /// Every machine that there is by now is a node of it.
    async fn new(cluster: Leased, policy: Value) -> anyhow::Result<Self> {
        let kubelets = Kubelets::start(&cluster).await?;
        let controllers = cluster.start_all().await;
        let upgrade = Self { kubelets, _controllers: controllers, policy, cluster };
        upgrade.configure("3.0.0").await?;
        for node in upgrade.nodes().await? {
            upgrade.expect_works(&node, "3.0.0").await;
        }
        upgrade.cluster.expect_ready("default").await;
        Ok(upgrade)
    }

    async fn configure(&self, version: &str) -> anyhow::Result<()> {
        let mut section = Access::enable(&["driver", "device-plugin"]);
        section["driver"]["version"] = version.into();
        section["driver"]["upgradePolicy"] = self.policy.clone();
        Ok(self.cluster.configure("default", section).await?)
    }

    async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = self.cluster.all::<Node>().list_metadata(&ListParams::default()).await?;
        Ok(nodes.items.iter().map(ResourceExt::name_any).collect())
    }

    /// Whether a node runs this version of the driver, ready, and has all its NPUs. Else what it has.
    async fn works(&self, node: &str, version: &str) -> Result<(), String> {
        let selector = format!("app.kubernetes.io/name={}", DRIVER.operand);
        let params = ListParams::default().labels(&selector).fields(&format!("spec.nodeName={node}"));
        let pods = self.cluster.namespaced::<Pod>(OPERANDS).list(&params).await.map_err(|error| error.to_string())?;
        let of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()).unwrap_or_default();
        let images: Vec<_> = pods.items.iter().map(of).collect();
        let node = self.cluster.all::<Node>().get(node).await.map_err(|error| error.to_string())?;
        let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
        let npus = allocatable.get(ATOM).map(|count| count.0.clone()).unwrap_or_default();
        let is_version = matches!(images.as_slice(), [image] if image.contains(&format!(":{version}-")));
        if is_version && npus == "8" { Ok(()) } else { Err(format!("drivers {images:?}, {npus} NPUs")) }
    }

    async fn expect_works(&self, node: &str, version: &str) {
        eventually(&format!("{node} to have NPUs by the driver {version}"), async || {
            match self.works(node, version).await {
                Ok(()) => Wait::Done(()),
                Err(seen) => Wait::NotYet(seen),
            }
        })
        .await;
    }

    async fn expect_state(&self, node: &str, state: &str) {
        eventually(&format!("the upgrade of {node} to be {state}"), async || {
            let labels = self.cluster.labels(node).await.unwrap_or_default();
            Wait::until(labels.get(DRIVER_UPGRADE_STATE_LABEL).cloned(), |seen| seen.as_deref() == Some(state))
        })
        .await;
    }

    /// It is done: the driver runs, its NPUs are there, and pods can be scheduled to it again.
    async fn expect_done(&self, node: &str, version: &str) {
        self.expect_state(node, "Done").await;
        self.expect_works(node, version).await;
        self.expect_schedulable(node).await;
    }

    async fn expect_schedulable(&self, node: &str) {
        let unschedulable = ["get", "node", node, "-o", "jsonpath={.spec.unschedulable}"];
        eventually(&format!("{node} to be schedulable"), async || {
            Wait::until(self.cluster.kubectl(&unschedulable).unwrap_or_default(), |seen| seen != "true")
        })
        .await;
    }

    /// It failed for this reason, and is schedulable. Returns what is said of it.
    async fn expect_failed(&self, node: &str, reason: &str) -> anyhow::Result<String> {
        self.expect_state(node, "Failed").await;
        self.expect_schedulable(node).await;
        let metadata = self.cluster.all::<Node>().get_metadata(node).await?;
        let record = metadata.annotations().get(DRIVER_UPGRADE_ANNOTATION).and_then(|text| Record::parse(text));
        let record = record.unwrap_or_default();
        assert_eq!(record.reason, reason, "{node}: {}", record.message);
        Ok(record.message)
    }

    /// An admin asks for a node's upgrade now.
    fn request(&self, node: &str) -> anyhow::Result<()> {
        let annotation = format!("{DRIVER_UPGRADE_REQUESTED_ANNOTATION}=true");
        self.cluster.kubectl(&["annotate", "node", node, &annotation]).map(drop)
    }
}

/// Until the first node of the run was done, no other was begun.
fn assert_canary(history: &History) {
    let order = history.order();
    let canary = order.first().expect("a node was upgraded");
    assert!(history.began_after(canary, "Done", &order[1..]), "{canary} was not upgraded alone: {order:?}");
}

fn assert_clean(history: &History, budget: usize, parallel: usize) {
    assert_eq!(history.violations(budget, parallel), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn twenty_nodes_are_upgraded_within_the_budget() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(20).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 4, "maxUnavailable": "25%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(1)));
    for (number, node) in nodes.iter().enumerate().take(6) {
        Workload::npu(&format!("work-{number}"), node).create(&upgrade.cluster).await?;
    }
    Workload::npu("init", &nodes[6]).in_init_container().create(&upgrade.cluster).await?;
    Workload::npu("claim", &nodes[7]).by_claim().create(&upgrade.cluster).await?;
    Workload::plain("bystander", &nodes[8]).create(&upgrade.cluster).await?;

    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 5, 4);
    assert_canary(&history);
    assert_eq!(history.most_under_way().len(), 4, "as many at once as may be");
    for node in &nodes {
        assert_eq!(history.states(node), ["Cordoned", "Restarting", "Validating", "Done"], "{node}");
        assert!(history.events(node) <= 3, "{node}: {} events", history.events(node));
    }
    assert_eq!(upgrade.cluster.workloads().await, ["bystander"], "only who uses NPUs had to leave");
    let mut evicted: Vec<_> = history.evictions().iter().map(|request| request.name.clone()).collect();
    evicted.sort();
    assert_eq!(evicted, ["claim", "init", "work-0", "work-1", "work-2", "work-3", "work-4", "work-5"], "each once");
    Ok(())
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn a_budget_that_never_allows_costs_one_node_its_upgrade() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(4).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 1, "eviction": {"timeout": "10s"},
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    Workload::npu("kept", &nodes[1]).never_disrupted().create(&upgrade.cluster).await?;
    let pods = upgrade.cluster.pods().await;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    let told = upgrade.expect_failed(&nodes[1], "EvictionTimedOut").await?;
    assert!(told.contains("default/kept") && told.contains("disruption budget"), "{told}");
    for node in [&nodes[0], &nodes[2], &nodes[3]] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert!(history.evictions().iter().all(|request| request.name == "kept" && request.code == 429));
    assert_eq!(upgrade.cluster.workloads().await, ["kept"]);
    upgrade.expect_works(&nodes[1], "3.0.0").await;
    let of_node = |pods: &std::collections::BTreeMap<String, String>| {
        let of_node = pods.iter().filter(|(name, _)| name.starts_with("driver") && name.ends_with(&nodes[1]));
        of_node.map(|(_, uid)| uid.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of_node(&upgrade.cluster.pods().await), of_node(&pods), "its driver was left alone");

    upgrade.cluster.unprotect("kept")?;
    upgrade.request(&nodes[1])?;
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    assert_eq!(upgrade.cluster.workloads().await, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn a_job_is_waited_for_until_its_time_is_up() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(1).create().await?;
    let jobs = json!({"podSelector": "kind=training", "timeout": "8s"});
    let policy = json!({"autoUpgrade": true, "waitForJobs": jobs});
    let upgrade = Upgrade::new(cluster, policy).await?;
    Workload::npu("job", &nodes[0]).label("kind", "training").create(&upgrade.cluster).await?;
    Workload::npu("work", &nodes[0]).create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Cordoned").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(upgrade.cluster.workloads().await, ["job", "work"], "nobody is evicted while the job is waited for");
    upgrade.expect_done(&nodes[0], "3.1.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    assert_eq!(upgrade.cluster.workloads().await, Vec::<String>::new());
    let cordon = history.writes()[&nodes[0]][0].ended;
    let evictions = history.evictions();
    let waited = Duration::try_from(evictions[0].begun.duration_since(cordon))?;
    assert!(waited >= Duration::from_secs(7), "evicted after {waited:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn a_node_that_goes_down_in_the_middle_is_passed_by_and_heals() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(4).create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 2, "validationTimeout": "20s",
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(3)));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[1], "Restarting").await;
    upgrade.kubelets.power_off(&nodes[1]).await?;
    for node in [&nodes[0], &nodes[2], &nodes[3]] {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.expect_state(&nodes[1], "Failed").await;
    upgrade.expect_schedulable(&nodes[1]).await;
    upgrade.kubelets.power_on(&nodes[1]).await?;
    // Its pods go on where they stopped: nothing has to be done for it any more.
    upgrade.expect_done(&nodes[1], "3.1.0").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 1);
    Ok(())
}

/// Of the four nodes that are tried, three crash: the other sixteen are not touched.
async fn crash_on_three_of_twenty(on_failure: &str) -> anyhow::Result<(Upgrade, Vec<String>, History)> {
    let cluster = Cluster::lease().await;
    let mut nodes = cluster.machines("n").count(20).create().await?;
    nodes.sort();
    let policy = json!({"autoUpgrade": true, "maxParallel": 3, "maxUnavailable": "25%", "validationTimeout": "15s",
                        "failureThreshold": "10%", "onFailure": on_failure});
    let upgrade = Upgrade::new(cluster, policy).await?;
    upgrade.kubelets.trouble(Trouble::crash(":3.1.0", 1).on(&nodes[1..4]));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    let told = upgrade.cluster.expect_condition("default", BLOCKED, "True/FailureThresholdExceeded").await;
    assert!(nodes[1..4].iter().any(|node| told.contains(node.as_str())), "{told}");
    if on_failure == "Rollback" {
        for node in &nodes {
            upgrade.expect_works(node, "3.0.0").await;
            upgrade.expect_schedulable(node).await;
        }
    } else {
        upgrade.expect_done(&nodes[0], "3.1.0").await;
        for node in &nodes[1..4] {
            upgrade.expect_state(node, "Failed").await;
            upgrade.expect_schedulable(node).await;
        }
    }
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 5, 3);
    assert_canary(&history);
    let mut touched: Vec<_> = history.order();
    touched.sort();
    assert_eq!(touched, nodes[..4], "the others are left alone");
    Ok((upgrade, nodes, history))
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn a_driver_that_crashes_on_too_many_nodes_pauses_the_rollout() -> anyhow::Result<()> {
    let (upgrade, nodes, _) = crash_on_three_of_twenty("Pause").await?;
    for node in &nodes[4..] {
        upgrade.expect_works(node, "3.0.0").await;
    }
    // Another version is another try, for all of them.
    upgrade.configure("3.1.1").await?;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.1").await;
    }
    assert_eq!(upgrade.cluster.condition("default", BLOCKED).await, "");
    Ok(())
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn a_driver_that_crashes_on_too_many_nodes_is_rolled_back() -> anyhow::Result<()> {
    let (_, nodes, history) = crash_on_three_of_twenty("Rollback").await?;
    for node in &nodes[..4] {
        assert!(history.states(node).len() > 3, "{node} was upgraded and rolled back: {:?}", history.states(node));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "the upgrade engine is not wired up yet"]
async fn an_image_that_is_missing_for_one_kernel_holds_up_no_other() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let old = cluster.machines("old").count(3).create().await?;
    let new = cluster.machines("new").count(2).kernel("6.8.0-60-generic").create().await?;
    let policy = json!({"autoUpgrade": true, "maxParallel": 2, "maxUnavailable": 2, "validationTimeout": "15s",
                        "failureThreshold": "90%"});
    let upgrade = Upgrade::new(cluster, policy).await?;
    let tag = "3.1.0-6.8.0-60-generic-ubuntu22.04";
    upgrade.kubelets.trouble(Trouble::image_missing(tag));
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    for node in &old {
        upgrade.expect_done(node, "3.1.0").await;
    }
    let told = upgrade.cluster.expect_condition("default", DRIVER.condition_type, "False/DriverImageMissing").await;
    assert!(told.contains(tag) && told.contains(&new[0]), "{told}");
    upgrade.expect_works(&new[1], "3.0.0").await;

    upgrade.kubelets.heal();
    for node in &new {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 2, 2);
    assert!(history.evictions().is_empty(), "nobody was in the way");
    Ok(())
}
