//! Nodes that carry a record of ours and have left the driver: the watch, which is limited to the driver's nodes, does not show them
//! any more, and what an upgrade did to them is still to be undone.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::DRIVER_UPGRADE_STATE_LABEL;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::node::{Node, NodeView};
use crate::upgrade::State;

/// Looks them up.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Strays {
    api: Api<Node>,
    /// Those that are known, by name.
    nodes: BTreeMap<String, NodeView>,
    /// The driver's nodes with a record when last looked at.
    recorded: BTreeSet<String>,
    is_listed: bool,
}

impl Strays {
    /// None is known so far.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client), nodes: BTreeMap::new(), recorded: BTreeSet::new(), is_listed: false }
    }

    /// This process leads no longer; what others do meanwhile is not seen.
    pub fn forget(&mut self) {
        self.nodes.clear();
        self.recorded.clear();
        self.is_listed = false;
    }

    /// Those that are known.
    pub fn iter(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.values()
    }

    /// Takes over how a node is now; one without a record is forgotten.
    pub fn answered(&mut self, node: NodeView) {
        if node.record.is_none() && node.state.is_none_or(|state| !state.is_under_way()) {
            self.nodes.remove(&node.name);
        } else if self.nodes.contains_key(&node.name) {
            self.nodes.insert(node.name.clone(), node);
        }
    }

    /// Finds out about nodes that have left. `present` are the driver's nodes. Returns every node that was read, which may be
    /// newer than what the watch has shown.
    ///
    /// # Errors
    /// When the API server does not answer: then it is not known what is still to be undone.
    pub async fn look(&mut self, present: &[NodeView]) -> Result<Vec<NodeView>, kube::Error> {
        let mut read = vec![];
        if !self.is_listed {
            read = self.list().await?;
            self.is_listed = true;
        }
        let names: BTreeSet<_> = present.iter().map(|node| node.name.as_str()).collect();
        let left: Vec<_> = self.recorded.iter().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in left {
            if let Some(node) = self.api.get_opt(&name).await? {
                read.push(NodeView::of(node));
            }
            self.recorded.remove(&name);
        }
        for node in &read {
            if !names.contains(node.name.as_str()) && (node.record.is_some() || node.state.is_some()) {
                self.nodes.insert(node.name.clone(), node.clone());
            }
        }
        self.nodes.retain(|name, _| !names.contains(name.as_str()));
        self.recorded = present.iter().filter(|node| node.record.is_some()).map(|node| node.name.clone()).collect();
        Ok(read)
    }

    /// Reads nodes anew, because no answer came to a write of ours.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read(&self, name: &str) -> Result<Option<NodeView>, kube::Error> {
        Ok(self.api.get_opt(name).await?.map(NodeView::of))
    }

    async fn list(&self) -> Result<Vec<NodeView>, kube::Error> {
        let left_open = [State::Cordoned, State::Restarting, State::Validating, State::Failed].map(State::as_str);
        let selector = format!("{DRIVER_UPGRADE_STATE_LABEL} in ({})", left_open.join(","));
        let mut params = ListParams::default().labels(&selector).limit(accelerator_runtime::PAGE_SIZE);
        let mut read = vec![];
        loop {
            let page = self.api.list(&params).await?;
            read.extend(page.items.into_iter().map(NodeView::of));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(read);
            }
        }
    }
}
