//! The first command of the README.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testbed::programs::own_binary;
use testbed::{Cluster, ControlPlane, Profile};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(own_binary("demo").expect("the demo"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn it_shows_everything_and_ends() -> anyhow::Result<()> {
    let output = demo(&["--exit"]).output()?;
    let (shown, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert!(output.status.success(), "{shown}\n{said}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = shown.lines().map(words).collect();
    for line in [
        "NODE MODE driver device-plugin metric-exporter vfio-manager npu-feature-discovery",
        "npu-1 container ready ready ready · ready",
        "npu-1 vm-passthrough · · · ready ready",
        "npu-2 container ready ready disabled · ready",
        "npu-6 - · · · · ·",
        "NAME STATUS NPUS NPU-DRIVER-UPGRADE-STATE",
        "machine-0.sim Ready 8",
        "machine-0.sim Ready 8 Done",
        "machine-5.sim Ready 8 Done",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line:?} is not in\n{shown}");
    }
    let upgraded = lines.iter().filter(|line| line.contains(".sim DriverUpgradeDone ")).count();
    assert_eq!(upgraded, 6, "{shown}");
    assert!(said.contains("nothing is left"), "{said}");
    Ok(())
}

#[tokio::test]
async fn in_somebodys_cluster_it_installs_nothing_untold_and_removes_what_it_made() -> anyhow::Result<()> {
    let start = || ControlPlane::start(Profile::Functional);
    let cluster = Cluster::connect(tokio::task::spawn_blocking(start).await??).await?;
    let run = async |arguments: &[&str]| -> anyhow::Result<_> {
        let mut command = demo(arguments);
        command.env("KUBECONFIG", &cluster.kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok((output.status.success(), told))
    };
    let everything = || -> anyhow::Result<String> {
        let kinds = "crd,namespaces,nodes,clusterroles,clusterrolebindings,roles,rolebindings,daemonsets,deployments";
        cluster.kubectl(&["get", kinds, "-A", "-o", "name"])
    };
    let before = everything()?;

    let (success, told) = run(&["--use-current-context", "--exit"]).await?;
    assert!(!success && told.contains("--install"), "{told}");
    assert_eq!(everything()?, before, "nothing was installed untold");

    let (success, told) = run(&["--use-current-context", "--install", "--exit"]).await?;
    assert!(success && told.contains("Removed everything that the demo made"), "{told}");
    assert_eq!(everything()?, before, "nothing is left");

    cluster.install().await?;
    cluster.configure("theirs", serde_json::json!({})).await?;
    let (success, told) = run(&["--use-current-context", "--exit"]).await?;
    assert!(!success && told.contains("AcceleratorConfig theirs"), "{told}");
    Ok(())
}

#[test]
fn ctrl_c_ends_it_at_any_time() -> anyhow::Result<()> {
    let mut child = demo(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(6));
    kill_process(Pid::from_raw(i32::try_from(child.id())?).expect("a pid"), Signal::INT)?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(child.wait()?.success(), "an end that was asked for is no failure");
    Ok(())
}
