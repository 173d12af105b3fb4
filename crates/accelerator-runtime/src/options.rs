//! The options that every controller has.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use accelerator_process::LogOptions;
use anyhow::{Context, ensure};
use clap::Args;
use k8s_openapi::jiff::SignedDuration;

use crate::leadership::{JITTER, Timing};

/// Where a pod finds the name of its namespace. Source: Kubernetes' projected service account volume.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Options that every controller has, each also from the environment.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Namespace that the operands live in
    #[arg(long, env = "OPERAND_NAMESPACE", default_value = "rebellions", value_name = "NAMESPACE")]
    pub operand_namespace: String,

    /// Elect a leader among the replicas: only one writes, the others are ready to take over
    #[arg(
        long,
        env = "LEADER_ELECT",
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    pub leader_elect: bool,

    /// How long replicas wait before they take over from a leader that no longer renews its lease
    #[arg(long, env = "LEADER_ELECT_LEASE_DURATION", default_value = "15s", value_name = "DURATION")]
    pub leader_elect_lease_duration: SignedDuration,

    /// How long a leader that cannot renew its lease goes on; shorter than the lease
    #[arg(long, env = "LEADER_ELECT_RENEW_DEADLINE", default_value = "10s", value_name = "DURATION")]
    pub leader_elect_renew_deadline: SignedDuration,

    /// How often a leader renews and the others look; shorter than the renew deadline
    #[arg(long, env = "LEADER_ELECT_RETRY_PERIOD", default_value = "2s", value_name = "DURATION")]
    pub leader_elect_retry_period: SignedDuration,

    /// Namespace of the lease [default: the pod's own, otherwise accelerator-system]
    #[arg(long, env = "NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// How often what is known is compared with the API server, give or take a third
    #[arg(long, env = "RESYNC_INTERVAL", default_value = "6h", value_name = "DURATION")]
    pub resync_interval: SignedDuration,

    /// Address that /livez, /readyz and /metrics are served on; port 0 picks a free one and logs it
    #[arg(long, env = "ADMIN_ADDRESS", default_value = "0.0.0.0:8080", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,

    /// Name of the node that this process runs on; in a pod, of spec.nodeName. What would disturb it comes last
    #[arg(long, env = "NODE_NAME", value_name = "NODE")]
    pub node_name: Option<String>,

    /// How to log
    #[command(flatten)]
    pub log: LogOptions,

    /// Context of the kubeconfig to use outside a cluster [default: the current one]
    #[arg(long, env = "KUBE_CONTEXT", value_name = "CONTEXT")]
    pub context: Option<String>,
}

impl Options {
    /// The election's times, if they can work.
    pub(crate) fn timing(&self) -> anyhow::Result<Timing> {
        let time = |option: &str, given: SignedDuration| {
            Duration::try_from(given).with_context(|| format!("--leader-elect-{option} must not be negative"))
        };
        let timing = Timing {
            lease: time("lease-duration", self.leader_elect_lease_duration)?,
            renew_deadline: time("renew-deadline", self.leader_elect_renew_deadline)?,
            retry: time("retry-period", self.leader_elect_retry_period)?,
        };
        ensure!(
            timing.lease > timing.renew_deadline && !timing.retry.is_zero(),
            "--leader-elect-lease-duration must be longer than --leader-elect-renew-deadline, and no time may be 0"
        );
        ensure!(
            timing.renew_deadline > timing.retry.mul_f64(JITTER),
            "--leader-elect-renew-deadline must be longer than {JITTER} times --leader-elect-retry-period"
        );
        Ok(timing)
    }

    /// The time between two comparisons with the API server.
    pub(crate) fn resync_interval(&self) -> anyhow::Result<Duration> {
        let interval = Duration::try_from(self.resync_interval).context("--resync-interval must not be negative")?;
        ensure!(interval >= Duration::from_secs(1), "--resync-interval must be at least 1s");
        Ok(interval)
    }

    /// The namespace of the lease.
    #[must_use]
    pub fn namespace(&self) -> String {
        let of_the_pod = || std::fs::read_to_string(POD_NAMESPACE).ok().map(|name| name.trim().to_owned());
        self.namespace.clone().or_else(of_the_pod).unwrap_or_else(|| "accelerator-system".into())
    }

    /// Who this process is among its replicas. In a cluster the pod's name, so that a container that is started again in
    /// its pod goes on at once; elsewhere a name that no other process has.
    pub(crate) fn identity() -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        if Path::new(POD_NAMESPACE).exists() {
            return host.to_owned();
        }
        format!("{host}_{}_{:08x}", std::process::id(), rand::random::<u32>())
    }
}
