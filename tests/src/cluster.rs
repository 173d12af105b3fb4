//! A control plane of our own with an administrator's client.

use std::ops::Deref;

use accelerator_api::AcceleratorConfig;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};

use crate::access::{OPERANDS, client_for};
use crate::audit::Mark;
use crate::wait::{Wait, eventually};
use crate::{Access, ControlPlane, controller};

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

    /// Removes what a test made: configs, operands, nodes, events, leases of controllers that were killed.
    pub async fn empty(&self) -> anyhow::Result<()> {
        let (all, now) =
            (ListParams::default(), DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() });
        let pods = self.all::<Pod>();
        self.all::<AcceleratorConfig>().delete_collection(&now, &all).await?;
        for namespace in [OPERANDS, "default"] {
            self.namespaced::<DaemonSet>(namespace).delete_collection(&now, &all).await?;
            self.namespaced::<Pod>(namespace).delete_collection(&now, &all).await?;
        }
        self.all::<Node>().delete_collection(&now, &all).await?;
        eventually("an empty cluster", async || {
            let left = (
                self.daemon_sets().await.len(),
                pods.list_metadata(&all).await.map_or(usize::MAX, |list| list.items.len()),
                self.configs().await.len(),
            );
            Wait::until(left, |left| *left == (0, 0, 0))
        })
        .await;
        self.namespaced::<Lease>(controller::NAMESPACE).delete_collection(&now, &all).await?;
        self.namespaced::<Event>("default").delete_collection(&now, &all).await?;
        Ok(())
    }

    /// The end of the audit log as it is now.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        Mark::here(&self.control_plane.audit_log())
    }
}
