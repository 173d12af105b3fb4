//! The owner that keeps a DaemonSet alive when a CRD is deleted: the ClusterRole that the controller is installed with.
//!
//! Deleting a CRD deletes every AcceleratorConfig, and garbage collection would end their DaemonSets within a second. With
//! one more owner it does so only when that goes too, which is when the controller is uninstalled.

use std::time::Duration;

use accelerator_api::contract::Component;
use accelerator_process::chain;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::Instant;
use tracing::{info, warn};

/// How often it is asked for while it cannot be had.
const RETRY: Duration = Duration::from_mins(5);

/// What is known of it. It is asked for once at start and before each write, which are rare.
pub(super) struct InstallOwner {
    roles: Api<ClusterRole>,
    component: &'static Component,
    known: Known,
    asked_at: Instant,
    is_failing: bool,
}

#[derive(PartialEq)]
enum Known {
    /// Nobody has answered yet.
    Nothing,
    /// We may not read it, and never could.
    Forbidden,
    Missing,
    Owner(OwnerReference),
}

impl InstallOwner {
    pub(super) fn new(client: Client, component: &'static Component) -> Self {
        let roles = Api::all(client);
        Self { roles, component, known: Known::Nothing, asked_at: Instant::now(), is_failing: false }
    }

    /// The owner, if there is one. A DaemonSet keeps the one that it has while we may not read it.
    pub(super) fn owner(&self, live: Option<&DaemonSet>) -> Option<OwnerReference> {
        let ours =
            |owner: &&OwnerReference| owner.kind == ClusterRole::kind(&()) && owner.name == self.component.controller;
        match &self.known {
            Known::Owner(owner) => Some(owner.clone()),
            Known::Forbidden => live?.owner_references().iter().find(ours).cloned(),
            Known::Nothing | Known::Missing => None,
        }
    }

    /// When to ask again.
    pub(super) fn due_at(&self) -> Option<Instant> {
        matches!(self.known, Known::Forbidden | Known::Missing).then_some(self.asked_at + RETRY)
    }

    /// Makes sure that it has been asked for; `false` when there was no answer.
    pub(super) async fn ensure(&mut self) -> bool {
        if self.known == Known::Nothing || self.due_at().is_some_and(|due| due <= Instant::now()) {
            self.refresh().await;
        }
        self.known != Known::Nothing
    }

    /// Asks for it. Returns whether it is another than before. Without an answer everything stays as it was.
    pub(super) async fn refresh(&mut self) -> bool {
        self.asked_at = Instant::now();
        let code = |error: &kube::Error| match error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        let found = match self.roles.get_metadata(self.component.controller).await {
            Ok(role) => {
                if std::mem::take(&mut self.is_failing) {
                    info!(clusterRole = self.component.controller, "Our own ClusterRole can be read again");
                }
                Known::Owner(OwnerReference {
                    api_version: ClusterRole::api_version(&()).into(),
                    kind: ClusterRole::kind(&()).into(),
                    name: role.name_any(),
                    uid: role.uid().unwrap_or_default(),
                    ..OwnerReference::default()
                })
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(
                        clusterRole = self.component.controller,
                        err = chain(&error),
                        "Could not read our own ClusterRole; without it the DaemonSet would go when the CRD is deleted; \
                         trying again"
                    );
                }
                match (code(&error), &self.known) {
                    (404, _) => Known::Missing,
                    (403, Known::Nothing) => Known::Forbidden,
                    _ => return false,
                }
            }
        };
        let changed = self.known != found;
        self.known = found;
        changed
    }
}
