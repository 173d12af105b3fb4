//! Control planes that tests use one after the other. Starting one takes seconds of both cores, emptying one does not.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::{Cluster, ControlPlane, Profile};

static IDLE: Mutex<Vec<ControlPlane>> = Mutex::new(Vec::new());

/// A cluster for one test, with the operator installed, empty otherwise. Goes back to the others afterwards, unless the
/// test failed or changed what emptying does not restore.
pub struct Leased {
    cluster: Option<Cluster>,
    keep: bool,
}

impl Cluster {
    /// A cluster with `deploy/overlays/default` installed, but for the Deployments: controllers are processes here.
    ///
    /// # Panics
    /// When there is none to be had; the message says what to do.
    #[expect(clippy::panic, reason = "a test cannot go on without")]
    pub async fn lease() -> Leased {
        match try_lease().await {
            Ok(cluster) => Leased { cluster: Some(cluster), keep: true },
            Err(error) => panic!("no cluster to test on: {error:#}"),
        }
    }
}

async fn try_lease() -> anyhow::Result<Cluster> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    if let Some(control_plane) = idle {
        let cluster = Cluster::connect(control_plane).await?;
        cluster.empty().await?;
        return Ok(cluster);
    }
    let control_plane = tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??;
    let cluster = Cluster::connect(control_plane).await?;
    cluster.install().await?;
    Ok(cluster)
}

impl Leased {
    /// Does not give the cluster back: the test changes what emptying does not restore, such as the CRD or rights.
    pub fn spoil(&mut self) {
        self.keep = false;
    }
}

impl Deref for Leased {
    type Target = Cluster;

    #[expect(clippy::expect_used, reason = "taken only in drop")]
    fn deref(&self) -> &Cluster {
        self.cluster.as_ref().expect("leased")
    }
}

impl DerefMut for Leased {
    #[expect(clippy::expect_used, reason = "taken only in drop")]
    fn deref_mut(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("leased")
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take()
            && self.keep
            && !std::thread::panicking()
        {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(cluster.into_control_plane());
        }
    }
}
