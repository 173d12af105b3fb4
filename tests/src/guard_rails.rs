//! The component `guard-rails` on a control plane, and off it again.

use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::wait::{Wait, eventually};
use crate::{Access, install};

/// The folder of the policies below `deploy/`.
pub const POLICIES: &str = "components/guard-rails/policies";

/// The policy that is put into force last, and after which the others are asked no more.
const LAST: &str = "accelerator-events";

/// Policies before their bindings, those of [`LAST`] last in each: the API server takes them in order, a moment later.
fn policies() -> anyhow::Result<Vec<Value>> {
    let mut objects = install::render(POLICIES)?;
    objects.sort_by_key(|object| {
        (object["kind"] == "ValidatingAdmissionPolicyBinding", object["metadata"]["name"] == LAST)
    });
    Ok(objects)
}

impl Access {
    /// Installs the guard rails, or removes them, and waits until that is in force.
    pub(crate) async fn set_guard_rails(&self, wanted: bool) -> anyhow::Result<()> {
        let objects = policies()?;
        if wanted {
            install::apply(&self.kubeconfig, &objects)?;
        } else {
            install::delete(&self.kubeconfig, &objects)?;
        }
        let events =
            Api::<Event>::namespaced(self.client_of(accelerator_api::contract::NODE_LABELER).await?, "default");
        let forged: Event = serde_json::from_value(json!({
            "metadata": {"name": "forged", "namespace": "default"}, "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Normal", "reason": "Forged", "action": "Forge", "note": "n",
            "reportingController": "somebody-else", "reportingInstance": "i",
            "regarding": {"apiVersion": "v1", "kind": "Node", "name": "n"},
        }))?;
        let try_only = PostParams { dry_run: true, ..PostParams::default() };
        eventually(&format!("guard rails in force: {wanted}"), async || {
            match events.create(&try_only, &forged).await {
                Ok(_) => Wait::until(false, |refused| *refused == wanted),
                Err(kube::Error::Api(status)) if status.code == 403 => Wait::until(true, |refused| *refused == wanted),
                Err(error) => Wait::NotYet(error.to_string()),
            }
        })
        .await;
        Ok(())
    }
}
