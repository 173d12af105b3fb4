//! The owner that keeps a DaemonSet alive when a CRD is deleted: the ClusterRole that the controller is installed with.
//!
//! Deleting a CRD deletes every AcceleratorConfig, and garbage collection would end their DaemonSets within a second. With
//! one more owner it does so only when that goes too, which is when the controller is uninstalled.

use accelerator_api::contract::Component;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client, Resource, ResourceExt};
use tracing::warn;

use accelerator_process::chain;

/// What is known of it. It is asked for once at start and before each write, which are rare.
pub(super) struct Anchor {
    roles: Api<ClusterRole>,
    component: &'static Component,
    known: Known,
    is_failing: bool,
}

#[derive(PartialEq)]
enum Known {
    Nothing,
    Unreadable,
    Owner(OwnerReference),
}

impl Anchor {
    pub(super) fn new(client: Client, component: &'static Component) -> Self {
        Self { roles: Api::all(client), component, known: Known::Nothing, is_failing: false }
    }

    /// The owner, if there is one. Before anybody asked there is none.
    pub(super) fn owner(&self) -> Option<&OwnerReference> {
        match &self.known {
            Known::Owner(owner) => Some(owner),
            Known::Nothing | Known::Unreadable => None,
        }
    }

    /// Makes sure that it has been asked for once; `false` when there was no answer.
    pub(super) async fn ensure(&mut self) -> bool {
        if self.known == Known::Nothing {
            self.refresh().await;
        }
        self.known != Known::Nothing
    }

    /// Asks for it. Returns whether it is another than before. Without an answer everything stays as it was.
    pub(super) async fn refresh(&mut self) -> bool {
        let found = match self.roles.get_metadata(self.component.controller).await {
            Ok(role) => Known::Owner(OwnerReference {
                api_version: ClusterRole::api_version(&()).into(),
                kind: ClusterRole::kind(&()).into(),
                name: role.name_any(),
                uid: role.uid().unwrap_or_default(),
                ..OwnerReference::default()
            }),
            Err(kube::Error::Api(status)) if status.code == 403 || status.code == 404 => {
                if self.known != Known::Unreadable {
                    warn!(
                        clusterRole = self.component.controller,
                        err = status.message,
                        "Could not read our own ClusterRole; if the CRD is deleted, the DaemonSet goes with it"
                    );
                }
                Known::Unreadable
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let role = self.component.controller;
                    warn!(clusterRole = role, err = chain(&error), "Could not read our own ClusterRole; trying again");
                }
                return false;
            }
        };
        self.is_failing = false;
        let changed = self.known != found;
        self.known = found;
        changed
    }
}
