//! Two replicas of a program: one writes, the other is ready to.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::PostParams;
use rustix::process::Signal;
use testbed::controller::NAMESPACE;
use testbed::{Access, Cluster, Controller, Wait, eventually, install, skewed};

use crate::programs::get;
use crate::{CONTAINER, LABELER};

/// Times in which a test does not wait for long.
pub const QUICK: &[&str] =
    &["--leader-elect-lease-duration=8s", "--leader-elect-renew-deadline=6s", "--leader-elect-retry-period=1s"];

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

/// Two replicas whose clocks are twenty minutes apart: a lease that looks long over by the one is respected all the same,
/// and one that seems to come from the future is taken when nobody renews it.
#[tokio::test]
async fn clocks_that_are_wrong_mislead_nobody() -> anyhow::Result<()> {
    const TEN_MINUTES: Duration = Duration::from_mins(10);
    let cluster = Cluster::lease().await;
    cluster.configure("default", Access::enable(&[])).await?;
    let behind = skewed(&cluster.folder, false, TEN_MINUTES)?;
    let ahead = skewed(&cluster.folder, true, TEN_MINUTES)?;
    let mut first = Controller::start_in(&cluster, LABELER, QUICK, &behind).await?;
    let one = first.admin_address().await?;
    becomes(&one, "leader").await;
    let renewed = cluster.kubectl(&["get", "lease", LABELER, "-n", NAMESPACE, "-o", "jsonpath={.spec.renewTime}"])?;
    let renewed: Timestamp = renewed.parse()?;
    // The API server's own clock is right.
    let made = cluster.config("default").await["metadata"]["creationTimestamp"].clone();
    let off = serde_json::from_value::<Timestamp>(made)?.duration_since(renewed);
    assert!(off > SignedDuration::from_mins(9), "the clock is not wrong: {off}");

    let mut second = Controller::start_in(&cluster, LABELER, QUICK, &ahead).await?;
    let other = second.admin_address().await?;
    becomes(&other, "follower").await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!((state(&one).await.as_str(), state(&other).await.as_str()), ("leader", "follower"));
    }
    cluster.npu_nodes("w", 2, "container").await?;
    cluster.expect_deployed("w-1", CONTAINER).await;
    cluster.expect_ready("default").await;
    first.process().signal(Signal::KILL);
    becomes(&other, "leader").await;
    // And the other way round.
    let mut third = Controller::start_in(&cluster, LABELER, QUICK, &behind).await?;
    let last = third.admin_address().await?;
    becomes(&last, "follower").await;
    drop(second);
    becomes(&last, "leader").await;
    cluster.npu_nodes("v", 1, "container").await?;
    cluster.expect_deployed("v-0", CONTAINER).await;
    cluster.expect_ready("default").await;
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
    assert!((1..=4).contains(&lost), "a line each when it begins, not one per try: {lost}");
    Ok(())
}

/// No program may make a lease, so that none can take another's before it is there: they come with the manifests.
#[tokio::test]
async fn without_its_lease_a_program_says_what_to_do_and_waits() -> anyhow::Result<()> {
    const MISSING: &str = "Lease does not exist; waiting for it";
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let lease = ["lease", LABELER, "-n", NAMESPACE];
    let delete = || cluster.kubectl(&[&["delete"], &lease[..]].concat());
    let apply = || {
        let objects = install::render("base/node-labeler")?;
        let lease: Vec<_> = objects.into_iter().filter(|object| object["kind"] == "Lease").collect();
        install::apply(&cluster.kubeconfig, &lease)
    };
    let holder = || {
        let path = ["get", "-o", "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}"];
        cluster.kubectl(&[&path[..], &lease[..]].concat())
    };
    delete()?;
    let mut labeler = Controller::start(&cluster, LABELER, QUICK).await?;
    let address = labeler.admin_address().await?;
    let told = async |times: usize| {
        eventually("the reason", async || Wait::until(said(&labeler, MISSING), |count| *count == times)).await;
    };
    told(1).await;
    let line = labeler.log().into_iter().find(|line| line["message"] == MISSING).expect("it was said");
    assert_eq!(
        line["err"],
        "there is no Lease node-labeler in the namespace accelerator-system, and nothing is written without it: apply \
         deploy/base/node-labeler or what contains it, of which the Lease is a part, without namePrefix and nameSuffix; or \
         correct --namespace"
    );
    let mark = cluster.mark()?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.npu_nodes("l", 1, "container").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(state(&address).await, "candidate");
    assert_eq!(get(&address, "/readyz").await.0, 503, "so that the Deployment does not count it as available");
    assert_eq!(mark.our_writes()?, []);
    let asked = mark.requests()?.into_iter().filter(|request| request.is_ours() && request.resource == "leases");
    let asked = asked.count();
    assert!((2..=10).contains(&asked), "{asked} requests in five seconds");

    apply()?;
    becomes(&address, "leader").await;
    cluster.expect_deployed("l-0", CONTAINER).await;
    let held = holder()?;
    assert!(held.ends_with(" 0"), "{held}");
    apply()?;
    assert_eq!(holder()?, held, "applied again, it stays whose it is");
    let old = cluster.client_of(LABELER).await?;
    let made = Api::<Lease>::namespaced(old, NAMESPACE).create(&PostParams::default(), &Lease::default()).await;
    assert!(matches!(&made, Err(kube::Error::Api(status)) if status.code == 403), "{made:?}");

    // Deleted under its holder, who stops.
    delete()?;
    told(2).await;
    becomes(&address, "candidate").await;
    apply()?;
    becomes(&address, "leader").await;
    Ok(())
}
