//! The programs as processes: options, health, metrics, and a stop that is orderly.

use std::time::{Duration, Instant};

pub use testbed::admin::get;
use testbed::repository::programs;
use testbed::{Access, Cluster, Wait, eventually};

use crate::LABELER;

#[tokio::test]
async fn every_program_tells_its_health_and_metrics_and_stops_within_seconds() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("h", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    for name in programs() {
        let mut controller = cluster.start(name).await;
        let address = controller.admin_address().await?;
        eventually(&format!("{name} to be ready"), async || {
            Wait::until(get(&address, "/readyz").await, |(code, _)| *code == 200)
        })
        .await;
        assert_eq!(get(&address, "/livez").await.0, 200, "{name}");
        assert_eq!(get(&address, "/nothing").await.0, 404, "{name}");
        for metric in [
            format!("accelerator_build_info{{version=\"{}\",controller=\"{name}\"}} 1", env!("CARGO_PKG_VERSION")),
            format!("accelerator_api_requests_total{{verb=\"watch\",code=\"200\",controller=\"{name}\"}}"),
            format!("accelerator_api_received_bytes_total{{verb=\"list\",controller=\"{name}\"}}"),
            format!("accelerator_reconcile_duration_seconds_count{{controller=\"{name}\"}}"),
        ] {
            eventually(&metric, async || {
                let (_, metrics) = get(&address, "/metrics").await;
                let labels_in_any_order = metric.split(['{', '}', ',']).all(|part| metrics.contains(part));
                if labels_in_any_order { Wait::Done(()) } else { Wait::NotYet(metrics) }
            })
            .await;
        }
        let listed = controller.metric("accelerator_api_received_bytes_total", "list").await?;
        assert!(listed > 100.0, "{name} has taken lists of {listed} bytes");
        let begun = Instant::now();
        let status = controller.stop()?;
        assert!(status.success(), "{name} ended with {status}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name} took {:?}", begun.elapsed());
    }
    Ok(())
}

/// An API server that is down is waited for: no exit, no busy loop, one line in the log.
#[tokio::test]
async fn a_program_that_finds_no_api_server_waits_for_it() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let mut labeler = cluster.start(LABELER).await;
    let address = labeler.admin_address().await?;
    eventually("ready", async || Wait::until(get(&address, "/readyz").await.0, |code| *code == 200)).await;
    let apiserver = cluster.control_plane().process("kube-apiserver").expect("it runs");
    apiserver.signal(rustix::process::Signal::STOP);
    let mut second = cluster_less_start(&cluster)?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(second.try_wait()?.is_none(), "it waits");
    assert!(labeler.ended().is_none());
    assert_eq!(get(&address, "/livez").await.0, 200, "an outage is no reason to be restarted");
    second.kill()?;
    second.wait()?;
    let apiserver = cluster.control_plane().process("kube-apiserver").expect("it runs");
    apiserver.signal(rustix::process::Signal::CONT);
    cluster.npu_nodes("b", 1, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_deployed("b-0", crate::CONTAINER).await;
    Ok(())
}

/// Starts the labeler with the identity that the first one has: while the API server is frozen there is no new token.
fn cluster_less_start(cluster: &Cluster) -> anyhow::Result<std::process::Child> {
    let kubeconfig = cluster.kubeconfig.with_file_name(format!("accelerator-system.{LABELER}.kubeconfig"));
    let binary = std::env::current_exe()?;
    let profile = binary.parent().and_then(|deps| deps.parent()).expect("a test is in PROFILE/deps");
    let mut command = std::process::Command::new(profile.join(LABELER));
    command.env("KUBECONFIG", kubeconfig).args(["--admin-address", "127.0.0.1:0"]);
    command.stderr(std::process::Stdio::null());
    Ok(command.spawn()?)
}
