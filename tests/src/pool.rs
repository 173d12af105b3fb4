//! Control planes that tests use one after the other. Starting one takes seconds of both cores, emptying one does not.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::{Cluster, ControlPlane, Profile};

static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

/// Set and not empty: every test gets its cluster with the guard rails.
const GUARD_RAILS: &str = "GUARD_RAILS";

struct Idle {
    control_plane: ControlPlane,
    is_guarded: bool,
}

/// A cluster for one test, with the operator installed, empty otherwise. Goes back to the others afterwards, unless the
/// test failed or changed what emptying does not restore.
pub struct Leased {
    cluster: Option<Cluster>,
    is_guarded: bool,
    keep: bool,
}

impl Cluster {
    /// A cluster with `deploy/overlays/default` installed, but for the Deployments: controllers are processes here.
    ///
    /// # Panics
    /// When there is none to be had; the message says what to do.
    pub async fn lease() -> Leased {
        lease(std::env::var_os(GUARD_RAILS).is_some_and(|value| !value.is_empty())).await
    }

    /// As [`Self::lease`], without guard rails even where every other test has them.
    ///
    /// # Panics
    /// As above.
    pub async fn lease_unguarded() -> Leased {
        lease(false).await
    }

    /// As [`Self::lease`], with the component `guard-rails`.
    ///
    /// # Panics
    /// As above.
    pub async fn lease_guarded() -> Leased {
        lease(true).await
    }
}

#[expect(clippy::panic, reason = "a test cannot go on without")]
async fn lease(guarded: bool) -> Leased {
    match try_lease(guarded).await {
        Ok(cluster) => Leased { cluster: Some(cluster), is_guarded: guarded, keep: true },
        Err(error) => panic!("no cluster to test on: {error:#}"),
    }
}

/// One that is idle, best one that has guard rails as wanted.
fn take_idle(guarded: bool) -> Option<Idle> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let best = idle.iter().position(|one| one.is_guarded == guarded).or_else(|| idle.len().checked_sub(1))?;
    Some(idle.swap_remove(best))
}

async fn try_lease(guarded: bool) -> anyhow::Result<Cluster> {
    let (cluster, is_guarded) = if let Some(idle) = take_idle(guarded) {
        let cluster = Cluster::connect(idle.control_plane).await?;
        cluster.empty().await?;
        (cluster, idle.is_guarded)
    } else {
        let control_plane = tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??;
        let cluster = Cluster::connect(control_plane).await?;
        cluster.install().await?;
        (cluster, false)
    };
    if is_guarded != guarded {
        cluster.set_guard_rails(guarded).await?;
    }
    Ok(cluster)
}

impl Leased {
    /// Installs the guard rails in the middle of a test.
    pub async fn guard(&mut self) -> anyhow::Result<()> {
        self.is_guarded = true;
        self.set_guard_rails(true).await
    }

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
            IDLE.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Idle { control_plane: cluster.into_control_plane(), is_guarded: self.is_guarded });
        }
    }
}
