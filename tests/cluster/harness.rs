//! The test bed itself: it leaves nothing behind, however it ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Whether a process runs; one that ended and was not waited for by its parent does not.
fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// A process that ends with the test, however that ends: what it started then ends as well.
struct OwnChild(Child);

impl Drop for OwnChild {
    fn drop(&mut self) {
        // No errors to report: it has ended, or nobody can end it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a control plane in a process of its own, ends that with this signal, and sees what is left.
fn nothing_is_left_after(signal: Signal) -> anyhow::Result<()> {
    let mut child = OwnChild(Command::new(env!("CARGO_BIN_EXE_control-plane")).stderr(Stdio::piped()).spawn()?);
    let mut folder = None;
    let mut pids = vec![];
    for line in BufReader::new(child.0.stderr.take().expect("piped")).lines() {
        let line = line?;
        if let Some((_, path)) = line.split_once("KUBECONFIG=") {
            folder = Path::new(path).parent().map(Path::to_owned);
        }
        if let Some((_, list)) = line.split_once("Process ids: [") {
            let list = list.split(']').next().unwrap_or_default();
            pids = list.split(", ").filter_map(|pid| pid.parse().ok()).collect();
            break;
        }
    }
    let folder = folder.expect("it says where it is");
    assert_eq!(pids.len(), 5, "etcd, API server, controller manager, scheduler, kwok");
    assert!(pids.iter().all(|pid| runs(*pid)) && folder.exists());
    kill_process(Pid::from_raw(i32::try_from(child.0.id())?).expect("a pid"), signal)?;
    child.0.wait()?;
    let begun = Instant::now();
    while pids.iter().any(|pid| runs(*pid)) || folder.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still there: {pids:?} or {}", folder.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn nothing_is_left_after_ctrl_c() -> anyhow::Result<()> {
    nothing_is_left_after(Signal::INT)
}

#[test]
fn nothing_is_left_after_being_killed() -> anyhow::Result<()> {
    nothing_is_left_after(Signal::KILL)
}

#[tokio::test]
async fn nodes_go_down_and_come_back_and_pods_fail_and_heal() -> anyhow::Result<()> {
    use testbed::{Cluster, Wait, eventually};
    let cluster = Cluster::lease().await;
    cluster.npu_nodes("n", 1, "").await?;
    let ready = async || {
        cluster
            .kubectl(&["get", "node", "n-0", "-o", "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}"])
            .unwrap_or_default()
    };
    cluster.label("n-0", "sim.test/down", Some("Unknown")).await?;
    eventually("the node to be down", async || Wait::until(ready().await, |ready| ready == "Unknown")).await;
    cluster.label("n-0", "sim.test/down", None).await?;
    eventually("the node to be back", async || Wait::until(ready().await, |ready| ready == "True")).await;
    Ok(())
}
