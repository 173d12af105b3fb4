//! What somebody with a stolen token of ours could do: each attack succeeds by RBAC, and is refused with the component
//! `guard-rails`. Nothing here is carried out: the API server is asked with `dryRun=All`.

mod daemon_sets;
mod nodes;
mod others;
mod settings;
mod work;

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use testbed::access::{OPERANDS, client_for};
use testbed::kubeconfig::{self, User};
use testbed::{Cluster, Leased};

/// The service account of the driver's pods, the one operand that has rights.
const DRIVER_OPERAND: &str = "rebellions-driver-operand";

/// A write.
#[derive(Clone, Debug)]
struct Write {
    /// The program whose token is used.
    by: &'static str,
    method: &'static str,
    path: String,
    content: &'static str,
    body: Value,
}

impl Write {
    /// A merge patch.
    fn merge(by: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self { by, method: "PATCH", path: path.into(), content: "application/merge-patch+json", body }
    }

    /// A server-side apply, as this field manager.
    fn apply(by: &'static str, manager: &str, path: &str, body: Value) -> Self {
        let path = format!("{path}?fieldManager={manager}&force=true");
        Self { by, method: "PATCH", path, content: "application/apply-patch+yaml", body }
    }

    fn create(by: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self { by, method: "POST", path: path.into(), content: "application/json", body }
    }

    fn delete(by: &'static str, path: impl Into<String>) -> Self {
        // Where there is a body, the query counts as nothing.
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
        Self { by, method: "DELETE", path: path.into(), content: "application/json", body }
    }

    /// Asks the API server what would become of it.
    async fn try_only(&self, thieves: &Thieves) -> Result<(), kube::Error> {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        let request = http::Request::builder()
            .method(self.method)
            .uri(format!("{}{separator}dryRun=All", self.path))
            .header("content-type", self.content)
            .body(self.body.to_string().into_bytes())
            .expect("a request");
        thieves.clients[self.by].request_text(request).await.map(drop)
    }
}

/// A write that RBAC allows and nobody should be able to do.
struct Attack {
    /// What for.
    what: String,
    write: Write,
    /// Part of what the policy says.
    refusal: &'static str,
}

fn attack(what: impl Into<String>, write: Write, refusal: &'static str) -> Attack {
    Attack { what: what.into(), write, refusal }
}

/// Clients with tokens of ours, by program.
struct Thieves {
    clients: BTreeMap<&'static str, Client>,
}

impl Thieves {
    /// `node` is where the stolen token of a driver's pod comes from.
    async fn of(cluster: &Cluster, node: &str) -> anyhow::Result<Self> {
        let mut clients = BTreeMap::new();
        for program in testbed::repository::programs() {
            clients.insert(program, cluster.client_of(program).await?);
        }
        clients.insert(DRIVER_OPERAND, driver_pod_client(cluster, Some(node)).await?);
        Ok(Self { clients })
    }

    async fn expect_possible(&self, attacks: &[Attack]) {
        for Attack { what, write, .. } in attacks {
            let done = write.try_only(self).await;
            assert!(done.is_ok(), "without guard rails {} can not do this: {what}: {done:?}", write.by);
        }
    }

    async fn expect_refused(&self, attacks: &[Attack]) {
        for Attack { what, write, refusal } in attacks {
            match write.try_only(self).await {
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    assert!(status.message.contains(refusal), "{}: {what}: {}", write.by, status.message);
                    assert!(status.message.contains("ValidatingAdmissionPolicy 'accelerator-"), "{}", status.message);
                }
                other => panic!("{} can do this: {what}: {other:?}", write.by),
            }
        }
    }

    /// What a program has to be able to do.
    async fn expect_allowed(&self, writes: &[(&str, Write)]) {
        for (what, write) in writes {
            let done = write.try_only(self).await;
            assert!(done.is_ok(), "{} has to be able to do this: {what}: {done:?}", write.by);
        }
    }
}

/// A client with the token that a driver's pod on a node has; without a node, one that is bound to no pod.
async fn driver_pod_client(cluster: &Cluster, node: Option<&str>) -> anyhow::Result<Client> {
    let mut bound = None;
    if let Some(node) = node {
        let pod = json!({
            "metadata": {"name": "driver-pod", "labels": {"app.kubernetes.io/name": "rebellions-driver"}},
            "spec": {
                "serviceAccountName": DRIVER_OPERAND, "nodeName": node,
                "containers": [{"name": "main", "image": "i"}],
            },
        });
        let pods = cluster.namespaced::<Pod>(OPERANDS);
        let pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        bound = Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name_any()),
            uid: pod.uid(),
        });
    }
    let spec = TokenRequestSpec { bound_object_ref: bound, ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts = cluster.namespaced::<ServiceAccount>(OPERANDS);
    let token = accounts.create_token_request(DRIVER_OPERAND, &PostParams::default(), &request).await?;
    let name = format!("{DRIVER_OPERAND}-{}", node.unwrap_or("unbound"));
    let file = cluster.folder.join(format!("{name}.token"));
    std::fs::write(&file, token.status.expect("a token").token)?;
    let path = cluster.folder.join(format!("{name}.kubeconfig"));
    client_for(&kubeconfig::write(&path, &cluster.entry, &User::TokenFile(&file))?).await
}

/// A cluster without guard rails, and tokens that were stolen there, one of a driver's pod on `stolen-0`.
async fn unguarded() -> anyhow::Result<(Leased, Thieves)> {
    let cluster = Cluster::lease_unguarded().await;
    cluster.npu_nodes("stolen", 2, "container").await?;
    let thieves = Thieves::of(&cluster, "stolen-0").await?;
    Ok((cluster, thieves))
}
