//! Upgrades of the driver, as an admin sees them: what is done to nodes, in which order, and what becomes of those on which it
//! does not work. What must be true of every run is in `testbed::history`.

mod adoption;
mod crash;
mod interference;
mod labeler;
mod moves;
mod refused;
mod rollout;
mod trouble;

use std::collections::BTreeMap;

use accelerator_api::contract::{
    DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER, DRIVER_UPGRADE_ANNOTATION, DRIVER_UPGRADE_REQUESTED_ANNOTATION,
    DRIVER_UPGRADE_STATE_LABEL,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use rebellions_driver_controller::upgrade::Record;
use serde_json::Value;
use testbed::access::OPERANDS;
use testbed::nodes::ATOM;
use testbed::{Access, Controller, History, Kubelets, Leased, Wait, eventually};

use crate::leadership::becomes;

/// The type of the condition that says that an upgrade does not go on.
const BLOCKED: &str = "RebellionsDriverUpgradeBlocked";

/// A cluster whose nodes all run the driver 3.0.0, with every NPU allocatable.
pub(crate) struct Upgrade {
    kubelets: Kubelets,
    controllers: Vec<Controller>,
    policy: Value,
    /// Last: it is given back only when its controllers and kubelets have ended.
    pub(crate) cluster: Leased,
}

impl Upgrade {
    /// Every machine that there is by now is a node of it.
    pub(crate) async fn new(cluster: Leased, policy: Value) -> anyhow::Result<Self> {
        let kubelets = Kubelets::start(&cluster).await?;
        let controllers = cluster.start_all().await;
        let upgrade = Self { kubelets, controllers, policy, cluster };
        upgrade.configure("3.0.0").await?;
        for node in upgrade.nodes().await? {
            upgrade.expect_works(&node, "3.0.0").await;
        }
        upgrade.cluster.expect_ready("default").await;
        Ok(upgrade)
    }

    fn section(&self, version: &str) -> Value {
        let mut section = Access::enable(&["driver", "device-plugin"]);
        section["driver"]["version"] = version.into();
        section["driver"]["upgradePolicy"] = self.policy.clone();
        section
    }

    pub(crate) async fn configure(&self, version: &str) -> anyhow::Result<()> {
        Ok(self.cluster.configure("default", self.section(version)).await?)
    }

    async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = self.cluster.all::<Node>().list_metadata(&ListParams::default()).await?;
        Ok(nodes.items.iter().map(ResourceExt::name_any).collect())
    }

    /// Ends a program at once, as a node that loses its power does.
    fn kill(&mut self, program: &str) {
        self.controllers.retain(|controller| controller.name != program);
    }

    /// Starts a program, and waits until it leads: one that was killed holds its lease for a while.
    async fn start(&mut self, program: &'static str) -> anyhow::Result<()> {
        let mut controller = self.cluster.start(program).await;
        becomes(&controller.admin_address().await?, "leader").await;
        self.controllers.push(controller);
        Ok(())
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
    pub(crate) async fn expect_done(&self, node: &str, version: &str) {
        self.expect_state(node, "Done").await;
        self.expect_works(node, version).await;
        self.expect_schedulable(node).await;
    }

    /// Nothing on it tells of an upgrade, and pods can be scheduled to it.
    async fn expect_no_trace(&self, node: &str) {
        self.expect_schedulable(node).await;
        eventually(&format!("no trace of an upgrade on {node}"), async || {
            let metadata = self.cluster.all::<Node>().get_metadata(node).await.expect("a node");
            let annotation = |key| metadata.annotations().get(key).cloned();
            let state = metadata.labels().get(DRIVER_UPGRADE_STATE_LABEL).cloned();
            let left = (annotation(DRIVER_UPGRADE_ANNOTATION), annotation(DEPENDENTS_PAUSED_UNTIL_ANNOTATION), state);
            Wait::until(left, |left| *left == (None, None, None))
        })
        .await;
    }

    async fn record(&self, node: &str) -> Option<Record> {
        let metadata = self.cluster.all::<Node>().get_metadata(node).await.ok()?;
        metadata.annotations().get(DRIVER_UPGRADE_ANNOTATION).and_then(|text| Record::parse(text))
    }

    async fn expect_schedulable(&self, node: &str) {
        let unschedulable = ["get", "node", node, "-o", "jsonpath={.spec.unschedulable}"];
        eventually(&format!("{node} to be schedulable"), async || {
            Wait::until(self.cluster.kubectl(&unschedulable).unwrap_or_default(), |seen| seen != "true")
        })
        .await;
    }

    /// It failed for this reason, and is schedulable. Returns what is said of it.
    async fn expect_failed(&self, node: &str, reason: &str) -> String {
        self.expect_state(node, "Failed").await;
        self.expect_schedulable(node).await;
        let record = self.record(node).await.unwrap_or_default();
        assert_eq!(record.reason, reason, "{node}: {}", record.message);
        record.message
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

/// Identities of the driver's pods, those on one node or, without a name, all, from what `pods` returns.
fn drivers(pods: &BTreeMap<String, String>, node: &str) -> Vec<String> {
    let of_node = pods.iter().filter(|(name, _)| name.starts_with("driver") && name.ends_with(node));
    of_node.map(|(_, uid)| uid.clone()).collect()
}
