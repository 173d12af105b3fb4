//! Writes labels: one PATCH per node per decision, many at once.

use std::sync::Arc;
use std::time::Instant;

use accelerator_api::contract::NODE_LABELER;
use accelerator_runtime::{Metrics, Shared, random};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::index::{Answer, Index, Work};
use crate::queue::Trouble;
use crate::view::NodeView;

/// One of those who write labels.
pub(crate) struct Writer {
    pub nodes: Api<Node>,
    pub index: Shared<Index>,
    /// Wakes the controller's loop.
    pub changed: Arc<Notify>,
    pub metrics: Metrics,
}

impl Writer {
    /// Writes until there is nothing left to write.
    pub(crate) async fn run(&self, work: Work) {
        let mut work = Some(work);
        while let Some(next) = work {
            work = self.write(next).await;
        }
        self.changed.notify_one();
    }

    /// Writes one node's labels. Returns the next work to do, if there is any.
    async fn write(&self, Work { node, patch, changes }: Work) -> Option<Work> {
        let params = PatchParams { field_manager: Some(NODE_LABELER.into()), ..PatchParams::default() };
        let answer = self.nodes.patch_metadata(&node, &params, &Patch::Merge(&patch)).await;
        self.metrics.applied(answer.is_ok());
        let answer = match answer {
            Ok(written) => {
                let metadata = &patch["metadata"];
                info!(node, labels = %metadata["labels"], annotations = %metadata["annotations"], "Labelled node");
                Answer::Done(changes, NodeView::of(&written.metadata))
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Answer::Conflict,
            Err(error) => Answer::Failed(error.to_string()),
        };
        let why = match &answer {
            Answer::Failed(why) => why.clone(),
            Answer::Done(..) | Answer::Conflict => String::new(),
        };
        let (trouble, next) = self.index.with(|index| {
            let now = Instant::now();
            index.finish(&node, answer, random(), now);
            (index.take_trouble(), index.next_work(now))
        });
        match trouble {
            Some(Trouble::Began) => warn!(node, err = why, "Could not label node; trying again"),
            Some(Trouble::Ended) => log_ended(),
            None => {}
        }
        self.changed.notify_one();
        next
    }
}

/// Said when trouble with writing labels is over: once, however many nodes had it.
pub(crate) fn log_ended() {
    info!("Nodes can be labelled again");
}
