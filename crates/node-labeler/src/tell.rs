//! Log lines and events about nodes.

use accelerator_api::contract::WORKLOAD_CONFIG_LABEL;
use accelerator_api::{ObservedConfig, Reason};
use accelerator_runtime::{EventRequest, Runtime, node_reference};
use kube::{Resource, ResourceExt};
use tracing::warn;

use crate::node::{InvalidMode, Notice};

/// Reports nodes whose workload label is no mode. After a restart (`is_first`), nodes that the counts in the status show as
/// reported are not reported again.
pub(crate) fn invalid_modes(
    invalid: Vec<InvalidMode>,
    active: Option<&ObservedConfig>,
    is_first: bool,
    runtime: &Runtime,
) {
    let counted = active.and_then(|config| config.status.nodes.as_ref()).map_or(0, |nodes| nodes.invalid_mode);
    let known = is_first && usize::try_from(counted) == Ok(invalid.len());
    for InvalidMode { node, value } in invalid.into_iter().filter(|_| !known) {
        warn!(node, value, "Node has a workload label that is no mode");
        let note = format!(
            "label {WORKLOAD_CONFIG_LABEL}={value} is no mode; the node is left as it is; use container or vm-passthrough"
        );
        about_node(&node, Reason::WorkloadConfigInvalid, note, runtime);
    }
}

/// Reports everything else, each notice once.
pub(crate) fn notices(notices: Vec<Notice>, runtime: &Runtime) {
    for notice in notices {
        match notice {
            Notice::PauseRefused { node, why } => {
                warn!(node, err = why, "Components do not step aside for a driver upgrade");
            }
            Notice::LabelsRestored { node, labels } => {
                let labels = labels.join(", ");
                warn!(node, labels, "Setting labels again that a driver manager paused and left behind");
                let note = format!(
                    "a driver manager paused {labels} and has not changed them since; node-labeler sets them to true again"
                );
                about_node(&node, Reason::DeployLabelsRestored, note, runtime);
            }
        }
    }
}

fn about_node(name: &str, reason: Reason, note: String, runtime: &Runtime) {
    let (regarding, reason) = (node_reference(name), reason.as_str());
    runtime.events.publish(EventRequest { regarding, warning: true, reason, action: "Label", note });
}

/// One event when somebody begins to undo what is written, however many nodes it is about.
pub(crate) fn contest(config: &ObservedConfig, note: String, runtime: &Runtime) {
    let reason = Reason::Contested.as_str();
    warn!(acceleratorConfig = config.name_any(), reason, err = note, "What is written to a node does not last");
    let regarding = config.object_ref(&());
    runtime.events.publish(EventRequest { regarding, warning: true, reason, action: "Label", note });
}
