//! A cluster in which something always changes: what Ready says there, and what it costs to say it.

use std::time::{Duration, Instant};

use accelerator_api::AcceleratorConfig;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, WatchParams};
use kube::core::WatchEvent;
use testbed::gitops::verdicts;
use testbed::{Access, Cluster, repository};

/// How often a node joins, and for how long it is tried.
const PERIOD: Duration = Duration::from_secs(4);
const ROUNDS: u32 = 15;
/// What a program may write in that time: 12 at once and one every 6 s, and what takes Ready back; an event of each type.
const STATUS_WRITES: usize = 24;
const EVENTS: usize = 2;

/// Ready as it was told, one after the other: when, its status and its reason.
async fn follow(cluster: &Cluster) -> tokio::task::JoinHandle<Vec<(Instant, bool, String)>> {
    let api = cluster.all::<AcceleratorConfig>();
    let mut watch = Box::pin(api.watch(&WatchParams::default(), "0").await.expect("a watch"));
    tokio::spawn(async move {
        let (mut told, end) = (vec![], Instant::now() + PERIOD * ROUNDS);
        loop {
            let Ok(event) = tokio::time::timeout_at(end.into(), watch.next()).await else {
                told.push((end, false, String::new()));
                return told;
            };
            let event = event.expect("the watch goes on").expect("a good event");
            let (WatchEvent::Added(config) | WatchEvent::Modified(config)) = event else { continue };
            let status = config.status.unwrap_or_default();
            let ready = status.condition("Ready").expect("a condition");
            told.push((Instant::now(), ready.status == "True", ready.reason.clone()));
        }
    })
}

#[tokio::test]
async fn a_node_that_joins_and_leaves_every_few_seconds_is_told_of_now_and_then() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("stays", 5, "container").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;

    let (mark, told) = (cluster.mark()?, follow(&cluster).await);
    let nodes = cluster.all::<Node>();
    for round in 0..ROUNDS {
        cluster.npu_nodes("comes", 1, "container").await?;
        tokio::time::sleep(PERIOD / 2).await;
        let health = verdicts(&cluster.config("default").await)?;
        let health = (health.kstatus.status.as_str(), health.flux.as_str());
        assert_eq!(health, ("InProgress", "Current"), "nodes are on their way in a config that counts, round {round}");
        nodes.delete("comes-0", &DeleteParams::default()).await?;
        tokio::time::sleep(PERIOD / 2).await;
    }
    let told = told.await?;
    let ready: Duration = told.windows(2).filter(|pair| pair[0].1).map(|pair| pair[1].0 - pair[0].0).sum();
    assert!(ready < PERIOD / 2, "ready for {ready:?} although a node was always on its way: {told:?}");
    let writes = mark.our_writes()?;
    for program in repository::programs() {
        let of =
            |resource: &str| writes.iter().filter(|write| write.user == program && write.resource == resource).count();
        let (status, events) = (of("acceleratorconfigs/status"), of("events"));
        assert!(status <= STATUS_WRITES && events <= EVENTS, "{program}: {status} status writes, {events} events");
    }
    cluster.expect_ready("default").await;
    Ok(())
}
