//! A control plane of our own with an administrator's client.

use std::ops::Deref;

use accelerator_api::AcceleratorConfig;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::access::{OPERANDS, client_for};
use crate::audit::Mark;
use crate::wait::{Wait, eventually};
use crate::{Access, ControlPlane, controller, repository, workload};

/// A control plane and somebody who may do everything on it.
pub struct Cluster {
    access: Access,
    control_plane: ControlPlane,
}

impl Deref for Cluster {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Cluster {
    /// Connects to a control plane.
    pub async fn connect(control_plane: ControlPlane) -> anyhow::Result<Self> {
        let access = Access {
            client: client_for(&control_plane.kubeconfig).await?,
            kubeconfig: control_plane.kubeconfig.clone(),
            entry: control_plane.entry.clone(),
            folder: control_plane.path().into(),
        };
        Ok(Self { access, control_plane })
    }

    pub(crate) fn into_control_plane(self) -> ControlPlane {
        self.control_plane
    }

    /// The control plane itself.
    pub fn control_plane(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    /// Removes what a test made: configs, operands, workloads, nodes, events, and who holds the leases.
    pub async fn empty(&self) -> anyhow::Result<()> {
        let (all, now) =
            (ListParams::default(), DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() });
        let pods = self.all::<Pod>();
        self.all::<AcceleratorConfig>().delete_collection(&now, &all).await?;
        self.remove_workloads().await?;
        for namespace in [OPERANDS, workload::NAMESPACE] {
            self.namespaced::<DaemonSet>(namespace).delete_collection(&now, &all).await?;
        }
        self.all::<Node>().delete_collection(&now, &all).await?;
        eventually("an empty cluster", async || {
            // Also those that ask to be ended gently, with nobody there to do it.
            for namespace in [OPERANDS, workload::NAMESPACE] {
                let _ = self.namespaced::<Pod>(namespace).delete_collection(&now, &all).await;
            }
            let left = (
                self.daemon_sets().await.len(),
                pods.list_metadata(&all).await.map_or(usize::MAX, |list| list.items.len()),
                self.configs().await.len(),
            );
            Wait::until(left, |left| *left == (0, 0, 0))
        })
        .await;
        for program in repository::programs() {
            let leases = self.namespaced::<Lease>(controller::NAMESPACE);
            leases.patch(program, &PatchParams::default(), &Patch::Merge(json!({"spec": null}))).await?;
        }
        self.namespaced::<Event>("default").delete_collection(&now, &all).await?;
        Ok(())
    }

    /// Removes what workloads consist of, and whatever keeps their pods.
    async fn remove_workloads(&self) -> anyhow::Result<()> {
        let (all, now) = (ListParams::default(), DeleteParams::default());
        for pod in self.namespaced::<Pod>(workload::NAMESPACE).list_metadata(&all).await?.items {
            if !pod.finalizers().is_empty() {
                self.release(&pod.name_any()).await?;
            }
        }
        self.namespaced::<Job>(workload::NAMESPACE).delete_collection(&now, &all).await?;
        self.namespaced::<PodDisruptionBudget>(workload::NAMESPACE).delete_collection(&now, &all).await?;
        let claims = ApiResource::from_gvk(&GroupVersionKind::gvk("resource.k8s.io", "v1", "ResourceClaim"));
        let claims = Api::<DynamicObject>::namespaced_with(self.client.clone(), workload::NAMESPACE, &claims);
        claims.delete_collection(&now, &all).await?;
        Ok(())
    }

    /// The end of the audit log as it is now.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        Mark::here(&self.control_plane.audit_log())
    }
}
