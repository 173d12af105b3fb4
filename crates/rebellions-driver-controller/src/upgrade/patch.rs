//! What is written to nodes: one merge patch per step, guarded by the node's version.

use accelerator_api::contract::{
    DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER_POOL_LABEL, DRIVER_UPGRADE_ANNOTATION,
    DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_STATE_LABEL,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Action, Record, State, Tell};
use crate::node::NodeView;

/// A patch in the making.
pub(super) struct NodePatch<'a> {
    node: &'a NodeView,
    labels: Map<String, Value>,
    annotations: Map<String, Value>,
    unschedulable: Option<Value>,
}

impl<'a> NodePatch<'a> {
    pub(super) fn of(node: &'a NodeView) -> Self {
        Self { node, labels: Map::new(), annotations: Map::new(), unschedulable: None }
    }

    /// Sets the state and the record of an upgrade that goes on. Of a cordon that somebody lifted, the record says no more
    /// that it is ours, so that nobody else's is lifted for it.
    pub(super) fn continued(mut self, state: State, mut record: Record) -> Self {
        record.cordoned &= self.node.is_unschedulable;
        self.state(Some(state));
        self.record(Some(&record));
        self
    }

    /// Begins an upgrade: the node is cordoned, by us unless it is already.
    pub(super) fn begun(mut self, mut record: Record) -> Self {
        record.cordoned = !self.node.is_unschedulable;
        if record.cordoned {
            self.unschedulable = Some(json!(true));
        }
        self.state(Some(State::Cordoned));
        self.record(Some(&record));
        self.drop_request().resumed()
    }

    /// Ends an upgrade: what it did to the node is undone. The record stays if there is something to remember.
    pub(super) fn ended(mut self, state: Option<State>, mut kept: Option<Record>) -> Self {
        if self.node.is_unschedulable && self.node.record.as_ref().is_some_and(|record| record.cordoned) {
            self.unschedulable = Some(Value::Null);
        }
        if let Some(record) = kept.as_mut() {
            record.cordoned = false;
        }
        self.state(state);
        self.record(kept.as_ref());
        self.resumed()
    }

    /// Lets dependents step aside until then.
    pub(super) fn paused(mut self, until: Timestamp) -> Self {
        self.annotations.insert(DEPENDENTS_PAUSED_UNTIL_ANNOTATION.into(), json!(until));
        self
    }

    /// Lets dependents come back.
    pub(super) fn resumed(mut self) -> Self {
        if self.node.is_paused {
            self.annotations.insert(DEPENDENTS_PAUSED_UNTIL_ANNOTATION.into(), Value::Null);
        }
        self
    }

    /// The request has been heard.
    pub(super) fn drop_request(mut self) -> Self {
        if self.node.is_requested {
            self.annotations.insert(DRIVER_UPGRADE_REQUESTED_ANNOTATION.into(), Value::Null);
        }
        self
    }

    /// Moves the node to this pool.
    pub(super) fn pool(mut self, pool: Option<&str>) -> Self {
        self.labels.insert(DRIVER_POOL_LABEL.into(), json!(pool));
        self
    }

    /// The finished patch.
    pub(super) fn action(self, tell: Option<Tell>) -> Action {
        let mut metadata = Map::from_iter([("resourceVersion".to_owned(), json!(self.node.version.to_string()))]);
        for (key, values) in [("labels", self.labels), ("annotations", self.annotations)] {
            if !values.is_empty() {
                metadata.insert(key.into(), values.into());
            }
        }
        let mut patch = json!({ "metadata": metadata });
        if let Some(unschedulable) = self.unschedulable {
            patch["spec"] = json!({ "unschedulable": unschedulable });
        }
        Action::Patch { node: self.node.name.clone(), patch, tell }
    }

    fn state(&mut self, state: Option<State>) {
        if self.node.state != state {
            self.labels.insert(DRIVER_UPGRADE_STATE_LABEL.into(), json!(state.map(State::as_str)));
        }
    }

    fn record(&mut self, record: Option<&Record>) {
        if self.node.record.as_ref() != record {
            let text = record.and_then(|record| serde_json::to_string(record).ok());
            self.annotations.insert(DRIVER_UPGRADE_ANNOTATION.into(), json!(text));
        }
    }
}
