//! What the cluster looks like at a moment.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{COMPONENTS, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{AcceleratorConfigStatus, NodeCounts, Reason};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use testbed::Access;
use testbed::access::OPERANDS;
use testbed::nodes::DISCOVERED;

/// Above this many nodes, modes are shown instead of nodes.
pub const FEW: usize = 12;

/// One component on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Not there and not wanted.
    Empty,
    /// Assigned, no pod yet.
    Assigned,
    /// There is a pod, not ready yet.
    Starting,
    /// Ready.
    Ready,
    /// Not assigned any more, but still there.
    Leaving,
    /// Assigned, but the component is disabled.
    Disabled,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its workload label.
    pub mode: String,
    /// Its components.
    pub cells: [Cell; COMPONENTS.len()],
}

/// The cluster at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Its nodes, if they are few.
    pub rows: Vec<Row>,
    /// What the controllers say.
    pub status: AcceleratorConfigStatus,
    /// Whether what they say is about the spec as it is.
    pub is_current: bool,
}

impl Snapshot {
    /// Looks at the cluster.
    pub async fn take(access: &Access, config: &str, nodes: usize) -> anyhow::Result<Self> {
        let all = access.configs().await;
        let found = all.into_iter().find(|one| one.name_any() == config);
        let mut rows = if nodes <= FEW { rows(access).await? } else { vec![] };
        let Some(config) = found else { return Ok(Self { rows, ..Self::default() }) };
        for (index, component) in COMPONENTS.iter().enumerate() {
            let condition = config.status.condition(component.condition_type);
            if condition.is_some_and(|condition| condition.reason == Reason::Disabled.as_str()) {
                let idle = rows.iter_mut().map(|row| &mut row.cells[index]).filter(|cell| **cell == Cell::Assigned);
                idle.for_each(|cell| *cell = Cell::Disabled);
            }
        }
        let generation = config.metadata.generation;
        let conditions = &config.status.conditions;
        let is_current = conditions.iter().all(|condition| condition.observed_generation == generation);
        Ok(Self { rows, status: config.status, is_current })
    }

    /// Nodes per mode.
    pub fn counts(&self) -> NodeCounts {
        self.status.nodes.clone().unwrap_or_default()
    }

    /// Whether everything is ready, and the controllers have seen the newest spec.
    pub fn is_ready(&self) -> bool {
        self.is_current && self.status.condition("Ready").is_some_and(|ready| ready.status == "True")
    }
}

async fn rows(access: &Access) -> anyhow::Result<Vec<Row>> {
    let all = ListParams::default();
    let mut nodes = access.all::<Node>().list_metadata(&all).await?;
    let is_ours = |key: &str| key == DISCOVERED || key == WORKLOAD_CONFIG_LABEL;
    nodes.items.retain(|node| node.labels().keys().any(|key| is_ours(key)));
    let pods = access.namespaced::<Pod>(OPERANDS).list(&all).await?;
    let mut seen: BTreeMap<(String, String), Cell> = BTreeMap::new();
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let operand = pod.labels().get("app.kubernetes.io/name").cloned().unwrap_or_default();
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        seen.insert((node, operand), if ready { Cell::Ready } else { Cell::Starting });
    }
    let row = |node: &kube::api::PartialObjectMeta<Node>| {
        let labels = node.labels();
        let set: BTreeSet<_> =
            labels.iter().filter(|(_, value)| *value == "true").map(|(key, _)| key.as_str()).collect();
        let cells = COMPONENTS.map(|component| {
            let pod = seen.get(&(node.name_any(), component.operand.to_owned()));
            match (set.contains(component.deploy_label), pod) {
                (true, Some(cell)) => *cell,
                (true, None) => Cell::Assigned,
                (false, Some(_)) => Cell::Leaving,
                (false, None) => Cell::Empty,
            }
        });
        Row { name: node.name_any(), mode: labels.get(WORKLOAD_CONFIG_LABEL).cloned().unwrap_or_default(), cells }
    };
    Ok(nodes.items.iter().map(row).collect())
}
