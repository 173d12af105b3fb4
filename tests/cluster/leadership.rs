//! Two replicas of a program: one writes, the other is ready to.

use std::time::Duration;

use rustix::process::Signal;
use testbed::{Access, Cluster, Controller, Wait, eventually};

use crate::programs::get;
use crate::{CONTAINER, LABELER};

/// Times in which a test does not wait for long.
const QUICK: &[&str] =
    &["--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms"];

/// What a replica says that it is.
async fn state(address: &str) -> String {
    let (_, metrics) = get(address, "/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with("accelerator_leadership{") && line.ends_with(" 1"));
    let state = line.and_then(|line| line.split("state=\"").nth(1)).and_then(|rest| rest.split('"').next());
    state.unwrap_or("nothing").to_owned()
}

/// Waits until a replica says that it is this.
pub async fn becomes(address: &str, expected: &str) {
    eventually(&format!("to be a {expected}"), async || Wait::until(state(address).await, |state| state == expected))
        .await;
}

/// A leader and a follower, with their addresses.
async fn pair(cluster: &Cluster) -> anyhow::Result<[(Controller, String); 2]> {
    let mut first = Controller::start(cluster, LABELER, QUICK).await?;
    let address = first.admin_address().await?;
    becomes(&address, "leader").await;
    let mut second = Controller::start(cluster, LABELER, QUICK).await?;
    let other = second.admin_address().await?;
    becomes(&other, "follower").await;
    Ok([(first, address), (second, other)])
}

fn said(controller: &Controller, message: &str) -> usize {
    controller.log().iter().filter(|line| line["message"] == message).count()
}

#[tokio::test]
async fn a_follower_takes_over_when_the_leader_is_stopped_and_writes_only_then() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.configure("default", Access::enable_all()).await?;
    let [(leader, _), (follower, address)] = pair(&cluster).await?;
    for node in cluster.npu_nodes("l", 3, "container").await? {
        cluster.expect_deployed(&node, CONTAINER).await;
    }
    assert_eq!(get(&address, "/readyz").await.0, 200, "a follower sees the cluster");
    assert_eq!(said(&follower, "Labelled node"), 0);
    assert!(leader.stop()?.success());
    becomes(&address, "leader").await;
    cluster.npu_nodes("m", 1, "container").await?;
    cluster.expect_deployed("m-0", CONTAINER).await;
    assert_eq!(said(&follower, "Labelled node"), 1, "what the first did is not done again");
    Ok(())
}

/// The kernel stops the leader for longer than its lease: it must not go on where it was.
#[tokio::test]
async fn a_leader_that_slept_through_its_lease_follows() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.configure("default", Access::enable_all()).await?;
    let [(mut leader, address), (follower, other)] = pair(&cluster).await?;
    leader.process().signal(Signal::STOP);
    becomes(&other, "leader").await;
    for node in cluster.npu_nodes("s", 5, "container").await? {
        cluster.expect_deployed(&node, CONTAINER).await;
    }
    let mark = cluster.mark()?;
    leader.process().signal(Signal::CONT);
    becomes(&address, "follower").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(said(&leader, "Labelled node"), 0);
    let writes: Vec<_> = mark.our_writes()?.into_iter().filter(|write| write.resource == "nodes").collect();
    assert_eq!(writes, [], "the sleeper had watched the same nodes join");
    assert!(leader.ended().is_none(), "losing a lease is no reason to end");
    drop(follower);
    becomes(&address, "leader").await;
    Ok(())
}

/// Without an API server nobody leads for long, and one does again afterwards.
#[tokio::test]
async fn without_an_api_server_nobody_leads() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let [(first, one), (second, other)] = pair(&cluster).await?;
    cluster.control_plane().process("kube-apiserver").expect("it runs").signal(Signal::STOP);
    eventually("no leader", async || {
        let states = (state(&one).await, state(&other).await);
        Wait::until(states, |(one, other)| one != "leader" && other != "leader")
    })
    .await;
    cluster.control_plane().process("kube-apiserver").expect("it runs").signal(Signal::CONT);
    eventually("one leader", async || {
        let mut states = [state(&one).await, state(&other).await];
        states.sort();
        Wait::until(states, |states| states == &["follower", "leader"])
    })
    .await;
    let lost =
        said(&first, "Could not reach lease; trying again") + said(&second, "Could not reach lease; trying again");
    assert!((1..=2).contains(&lost), "a line each when it begins, not one per try: {lost}");
    Ok(())
}
