//! Nodes that carry marks of ours and have left the driver: the watch, which is limited to the driver's nodes, does not show them any
//! more, and what an upgrade did to them is still to be undone, and the label of their pool to be removed.

use std::collections::BTreeMap;

use accelerator_api::contract::{DRIVER, DRIVER_POOL_LABEL, DRIVER_UPGRADE_STATE_LABEL};
use accelerator_runtime::Source;
use kube::{Api, Client};

use crate::node::{Node, NodeView};
use crate::seen::Kept;
use crate::upgrade::State;

/// Looks them up.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Strays {
    client: Client,
    api: Api<Node>,
    /// Those that are known, by name.
    nodes: BTreeMap<String, Kept<NodeView>>,
    /// The driver's nodes with marks of ours, as they were when last looked at or written.
    marked: BTreeMap<String, Kept<NodeView>>,
    is_listed: bool,
}

impl Strays {
    /// None is known so far.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client.clone()),
            client,
            nodes: BTreeMap::new(),
            marked: BTreeMap::new(),
            is_listed: false,
        }
    }

    /// This process leads no longer; what others do meanwhile is not seen.
    pub fn forget(&mut self) {
        self.nodes.clear();
        self.marked.clear();
        self.is_listed = false;
    }

    /// Those that are known.
    pub fn iter(&self) -> impl Iterator<Item = &Kept<NodeView>> {
        self.nodes.values()
    }

    /// Takes over how a node is now; one without a mark is forgotten. One that has its mark by the write that this answers may
    /// leave before the next look.
    pub fn answered(&mut self, node: Kept<NodeView>) {
        if !is_marked(&node) {
            self.nodes.remove(&node.name);
        } else if let Some(stray) = self.nodes.get_mut(&node.name) {
            *stray = node;
        } else {
            self.marked.insert(node.name.clone(), node);
        }
    }

    /// The API server knows no such node.
    pub fn gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Whether a node with marks of ours has left since the last look. `present` are the driver's nodes, in the order of names.
    #[must_use]
    pub fn is_behind(&self, present: &[Kept<NodeView>]) -> bool {
        !self.is_listed || self.marked.keys().any(|name| !is_among(present, name))
    }

    /// Finds out about nodes that have left. `present` are the driver's nodes, in the order of names. Returns every node that was
    /// read, which may be newer than what the watch has shown.
    ///
    /// # Errors
    /// When the API server does not answer: then it is not known what is still to be undone.
    pub async fn look(&mut self, present: &[Kept<NodeView>]) -> Result<Vec<Kept<NodeView>>, kube::Error> {
        let mut read = vec![];
        if !self.is_listed {
            read = self.list().await?;
            self.is_listed = true;
        }
        let left = self.marked.values().filter(|node| !is_among(present, &node.name)).cloned();
        let (to_read, with_label): (Vec<_>, Vec<_>) =
            left.partition(|node| node.record.is_some() || node.state.is_some_and(State::is_under_way));
        // Whatever became of it, its pool's label is to go.
        self.nodes.extend(with_label.into_iter().map(|node| (node.name.clone(), node)));
        for node in to_read {
            read.extend(self.read(&node.name).await?);
        }
        let is_stray = |node: &&Kept<NodeView>| !is_among(present, &node.name) && is_marked(node);
        self.nodes.extend(read.iter().filter(is_stray).map(|node| (node.name.clone(), node.clone())));
        self.nodes.retain(|name, _| !is_among(present, name));
        self.marked =
            present.iter().filter(|node| is_marked(node)).map(|node| (node.name.clone(), node.clone())).collect();
        Ok(read)
    }

    /// Reads nodes anew, because no answer came to a write of ours.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn read(&self, name: &str) -> Result<Option<Kept<NodeView>>, kube::Error> {
        Ok(self.api.get_opt(name).await?.map(|node| Kept::new(NodeView::of(node))))
    }

    async fn list(&self) -> Result<Vec<Kept<NodeView>>, kube::Error> {
        let left_open = [State::Cordoned, State::Restarting, State::Validating, State::Failed].map(State::as_str);
        let under_way = format!("{DRIVER_UPGRADE_STATE_LABEL} in ({})", left_open.join(","));
        let in_a_pool = format!("{DRIVER_POOL_LABEL},!{}", DRIVER.deploy_label);
        let mut read = vec![];
        for selector in [under_way, in_a_pool] {
            let nodes = Source::all::<Node>(self.client.clone()).labels(selector);
            nodes.list(|node: Node| read.push(Kept::new(NodeView::of(node)))).await?;
        }
        Ok(read)
    }
}

/// Whether a node of this name is among these, which are in the order of names.
fn is_among(nodes: &[Kept<NodeView>], name: &str) -> bool {
    nodes.binary_search_by(|node| node.name.as_str().cmp(name)).is_ok()
}

/// Whether something on a node is ours, and has to go when the node leaves the driver.
fn is_marked(node: &NodeView) -> bool {
    node.record.is_some() || node.state.is_some() || node.pool.is_some()
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    fn strays() -> Strays {
        let config = Config::new("http://127.0.0.1:1".parse().expect("an address"));
        let client = Client::try_from(config).expect("a client that sends nothing");
        Strays { is_listed: true, ..Strays::new(client) }
    }

    fn node(state: Option<State>) -> Kept<NodeView> {
        Kept::new(NodeView { name: "n".into(), state, ..NodeView::default() })
    }

    #[tokio::test]
    async fn a_node_that_leaves_right_after_it_was_marked_is_missed() {
        let mut strays = strays();
        strays.look(&[node(None)]).await.expect("nothing to read");
        assert!(!strays.is_behind(&[]), "a node without a mark leaves nothing behind");
        strays.answered(node(Some(State::Cordoned)));
        assert!(strays.is_behind(&[]));
        assert!(!strays.is_behind(&[node(Some(State::Cordoned))]));
    }

    #[tokio::test]
    async fn a_node_that_lost_its_mark_is_not_missed() {
        let mut strays = strays();
        strays.look(&[node(None)]).await.expect("nothing to read");
        strays.answered(node(None));
        assert!(!strays.is_behind(&[]));
    }
}
