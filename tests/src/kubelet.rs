//! Kubelets of simulated machines. Unlike kwok they know their machine: a pod starts, fails and ends as a test says for its
//! image and machine, nothing moves on a machine that is down, and NPUs are allocatable while both the device plugin and the
//! driver are ready.

mod npus;
mod play;
mod shell;
mod status;
mod trouble;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::access::client_for;
use crate::wait::{Wait, eventually};
use crate::{Access, nodes};

pub(crate) use shell::readiness;
pub use status::is_ready;
pub use trouble::Trouble;

/// The kubelets of all machines of a cluster. Dropping them is as if every machine lost its power.
pub struct Kubelets {
    access: Access,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What a test and the kubelets share.
#[derive(Default)]
struct Shared {
    troubles: Mutex<Vec<Trouble>>,
    changed: Notify,
}

impl Shared {
    fn troubles(&self) -> Vec<Trouble> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut Vec<Trouble>)) {
        change(&mut self.troubles.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

impl Kubelets {
    /// Starts them, with kwok's identity: the audit log tells them from an administrator.
    pub async fn start(access: &Access) -> anyhow::Result<Self> {
        let client = client_for(&access.folder.join("kwok.kubeconfig")).await?;
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(shell::run(client, shared.clone()));
        Ok(Self { access: access.clone(), shared, task })
    }

    /// From now on this goes wrong, beside what does already. Of several about one pod the last counts.
    pub fn trouble(&self, trouble: Trouble) {
        self.shared.set(|troubles| troubles.push(trouble));
    }

    /// Nothing goes wrong any more: images appear, crashes end.
    pub fn heal(&self) {
        self.shared.set(Vec::clear);
    }

    /// A machine goes down: it is `Unknown`, and nothing on it moves.
    pub async fn power_off(&self, node: &str) -> anyhow::Result<()> {
        self.access.label(node, "sim.test/down", Some("Unknown")).await?;
        self.expect_node(node, "Unknown").await;
        Ok(())
    }

    /// A machine is up again as it was: it had only lost its network.
    pub async fn power_on(&self, node: &str) -> anyhow::Result<()> {
        self.access.label(node, "sim.test/down", None).await?;
        self.expect_node(node, "True").await;
        Ok(())
    }

    /// A machine goes down, and comes back after `time` with another boot id and, if given, another kernel, of which
    /// Node Feature Discovery's label tells if the machine has it. Its containers start again.
    pub async fn reboot(&self, node: &str, kernel: Option<&str>, time: Duration) -> anyhow::Result<()> {
        self.power_off(node).await?;
        tokio::time::sleep(time).await;
        let api = self.access.all::<Node>();
        let before = api.get(node).await?;
        let info = before.status.as_ref().and_then(|status| status.node_info.as_ref());
        let boot_id = info.map(|info| info.boot_id.as_str()).unwrap_or_default();
        let (machine, number) = boot_id.rsplit_once('-').unwrap_or((boot_id, "0"));
        let number = number.parse::<u32>().unwrap_or_default() + 1;
        let mut change = json!({"bootID": format!("{machine}-{number}")});
        if let Some(kernel) = kernel {
            change["kernelVersion"] = kernel.into();
            let labels = nodes::system_labels(kernel, "", "");
            let known = before.metadata.labels.unwrap_or_default();
            for key in labels.keys().filter(|key| key.contains("kernel") && known.contains_key(*key)) {
                self.access.label(node, key, Some(kernel)).await?;
            }
        }
        let change = Patch::Merge(json!({"status": {"nodeInfo": change}}));
        api.patch_status(node, &PatchParams::default(), &change).await?;
        self.power_on(node).await
    }

    /// What a machine's device plugin advertises from now on, as `rebellions.ai/ATOM=8`.
    pub async fn set_npus(&self, node: &str, npus: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {nodes::NPUS: npus}}}));
        self.access.all::<Node>().patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn expect_node(&self, node: &str, status: &str) {
        let api = self.access.all::<Node>();
        eventually(&format!("{node} to be ready: {status}"), async || {
            let node = api.get(node).await.ok();
            Wait::until(node.as_ref().and_then(shell::readiness), |seen| seen.as_deref() == Some(status))
        })
        .await;
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.task.abort();
    }
}
