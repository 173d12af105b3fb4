//! Upgrades in the middle of which the programs that carry them out are killed, or another replica takes over.

use std::time::Duration;

use accelerator_api::contract::DRIVER;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::{
    Access, Cluster, Controller, Fault, History, Kubelets, Proxy, Recording, Rule, Trouble, Wait, Workload, eventually,
    repository, say,
};

use super::{Upgrade, assert_clean};
use crate::leadership::{QUICK, becomes};
use crate::{CONTAINER, LABELER};

/// The programs that are killed.
const PROGRAMS: [&str; 2] = [DRIVER.controller, LABELER];

/// A crash: of which program, at which of its writes, and whether it heard the answer.
#[derive(Clone, Copy, Debug)]
struct Crash {
    program: usize,
    write: usize,
    heard: bool,
}

/// Two nodes that are upgraded again and again.
struct Bench {
    proxies: Vec<Proxy>,
    killable: Vec<Controller>,
    nodes: Vec<String>,
    /// How often they have been upgraded.
    runs: usize,
    upgrade: Upgrade,
}

fn version(number: usize) -> String {
    format!("3.{number}.0")
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::lease().await;
        let nodes = cluster.machines("n").count(2).create().await?;
        let proxies = PROGRAMS.map(|name| Proxy::start(&cluster.entry, &cluster.folder, name));
        let proxies = proxies.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let kubelets = Kubelets::start(&cluster).await?;
        let mut controllers = vec![];
        for program in repository::programs().filter(|program| !PROGRAMS.contains(program)) {
            controllers.push(cluster.start(program).await);
        }
        let policy = json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": 1});
        let upgrade = Upgrade { kubelets, controllers, policy, cluster };
        let mut bench = Self { proxies, killable: vec![], nodes, runs: 0, upgrade };
        for program in 0..PROGRAMS.len() {
            let controller = bench.start(program).await?;
            bench.killable.push(controller);
        }
        bench.upgrade.configure(&version(0)).await?;
        for node in &bench.nodes {
            bench.upgrade.expect_works(node, &version(0)).await;
        }
        bench.upgrade.cluster.expect_ready("default").await;
        Ok(bench)
    }

    async fn start(&self, program: usize) -> anyhow::Result<Controller> {
        let through = Access { entry: self.proxies[program].entry.clone(), ..Access::clone(&self.upgrade.cluster) };
        let controller = Controller::start(&through, PROGRAMS[program], &["--leader-elect=false"]).await?;
        self.proxies[program].aim(controller.process().id());
        Ok(controller)
    }

    /// Upgrades both nodes. Returns how many writes each program made, and whether one was killed.
    async fn run(&mut self, crash: Option<Crash>) -> anyhow::Result<(Vec<usize>, bool)> {
        let cluster = &self.upgrade.cluster;
        Workload::npu(&format!("work-{}", self.runs), &self.nodes[0]).create(cluster).await?;
        let recording = Recording::start(cluster).await?;
        let seen: Vec<_> = self.proxies.iter().map(|proxy| proxy.seen().len()).collect();
        if let Some(Crash { program, write, heard }) = crash {
            let fault = if heard { Fault::SignalAfterAnswer } else { Fault::SignalBeforeAnswer };
            self.proxies[program].set([Rule::nth(write, "write", "*", fault(Signal::KILL))]);
        }
        self.runs += 1;
        self.upgrade.configure(&version(self.runs)).await?;
        let has_crashed = self.finish(crash).await?;
        let history = recording.stop(&self.upgrade.cluster).await?;
        self.check(&history, crash);
        let writes = self.proxies.iter().zip(seen);
        let writes =
            writes.map(|(proxy, seen)| proxy.seen().split_off(seen).iter().filter(|seen| seen.is_write()).count());
        Ok((writes.collect(), has_crashed))
    }

    /// Waits until both nodes are upgraded and starts again who was killed. Returns whether somebody was.
    async fn finish(&mut self, crash: Option<Crash>) -> anyhow::Result<bool> {
        let mut has_crashed = false;
        loop {
            eventually(&format!("both nodes to be upgraded with {crash:?}"), async || {
                match self.revive(crash).await {
                    Ok(revived) => has_crashed |= revived,
                    Err(error) => return Wait::NotYet(error.to_string()),
                }
                Wait::until(self.left_to_do().await, Vec::is_empty)
            })
            .await;
            // The last write may come, and kill, when there is nothing left to be seen.
            tokio::time::sleep(Duration::from_secs(1)).await;
            for proxy in &self.proxies {
                proxy.heal();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            if !self.revive(crash).await? {
                return Ok(has_crashed);
            }
            has_crashed = true;
        }
    }

    /// Starts the program again if it was killed.
    async fn revive(&mut self, crash: Option<Crash>) -> anyhow::Result<bool> {
        let Some(Crash { program, .. }) = crash else { return Ok(false) };
        let was_killed = self.killable[program].ended().is_some();
        if was_killed {
            self.killable[program] = self.start(program).await?;
        }
        Ok(was_killed)
    }

    /// What is not yet as it is after an upgrade that nobody disturbs.
    async fn left_to_do(&self) -> Vec<String> {
        let (upgrade, version) = (&self.upgrade, version(self.runs));
        let mut left = vec![];
        for name in &self.nodes {
            if let Err(seen) = upgrade.works(name, &version).await {
                left.push(format!("{name}: {seen}"));
            }
            let Ok(node) = upgrade.cluster.all::<Node>().get(name).await else { continue };
            let is_ours = |key: &String| key.starts_with("petasus.io/driver");
            let annotations: Vec<_> = node.annotations().keys().filter(|key| is_ours(key)).cloned().collect();
            let state = node.labels().get("rebellions.ai/npu-driver-upgrade-state").cloned().unwrap_or_default();
            let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
            let deployed = upgrade.cluster.deploy_labels(name).await.len();
            if !annotations.is_empty() || state != "Done" || is_cordoned || deployed != CONTAINER.len() {
                left.push(format!("{name}: {state}, cordoned {is_cordoned}, {deployed} components, {annotations:?}"));
            }
        }
        let config = upgrade.cluster.config("default").await;
        let is_current = |condition: &&Value| {
            condition["type"] == DRIVER.condition_type
                && condition["status"] == "True"
                && condition["observedGeneration"] == config["metadata"]["generation"]
        };
        if !config["status"]["conditions"].as_array().into_iter().flatten().any(|one| is_current(&one)) {
            left.push(upgrade.cluster.condition("default", DRIVER.condition_type).await);
        }
        left
    }

    fn check(&self, history: &History, crash: Option<Crash>) {
        assert_eq!(history.violations(1, 1), Vec::<String>::new(), "{crash:?}");
        let evicted = history.evictions().into_iter().filter(|request| request.has_succeeded()).count();
        assert_eq!(evicted, 1, "{crash:?}");
        for node in &self.nodes {
            assert_eq!(history.drivers(node), 2, "{node} had its driver, and then the new one: {crash:?}");
        }
        for controller in &self.killable {
            let log = std::fs::read_to_string(&controller.process().log).unwrap_or_default();
            assert!(!log.contains("panicked"), "{crash:?}: {log}");
        }
    }
}

/// Crashes at those writes of an upgrade of two nodes whose number is kept. Returns how many programs were killed.
async fn crash_at(keep: impl Fn(usize) -> bool) -> anyhow::Result<usize> {
    let mut bench = Bench::new().await?;
    let (writes, _) = bench.run(None).await?;
    let (mut number, mut crashed) = (0, 0);
    for (program, count) in writes.iter().enumerate() {
        for write in 1..=*count {
            for heard in [false, true] {
                number += 1;
                if keep(number) {
                    crashed += usize::from(bench.run(Some(Crash { program, write, heard })).await?.1);
                }
            }
        }
    }
    say(format!("writes per program {writes:?}, {number} plans, {crashed} crashed, no violation"));
    Ok(crashed)
}

/// A few of the plans.
#[tokio::test]
async fn a_crash_at_any_write_of_an_upgrade_changes_nothing_sample() -> anyhow::Result<()> {
    let crashed = crash_at(|number| number % 16 == 5).await?;
    assert!(crashed >= 1, "no program was killed");
    Ok(())
}

#[tokio::test]
#[ignore = "takes minutes: just upgrade-suite"]
async fn a_crash_at_every_write_of_an_upgrade_changes_nothing() -> anyhow::Result<()> {
    let crashed = crash_at(|_| true).await?;
    assert!(crashed >= 30, "{crashed} programs were killed");
    Ok(())
}

/// The leader sleeps through its lease in the middle of a node's upgrade, and wakes up when the other has finished it.
#[tokio::test]
async fn another_replica_goes_on_where_the_leader_was() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let nodes = cluster.machines("n").count(3).create().await?;
    let mut upgrade = Upgrade::new(cluster, json!({"autoUpgrade": true})).await?;
    upgrade.kill(DRIVER.controller);
    let mut leader = Controller::start(&upgrade.cluster, DRIVER.controller, QUICK).await?;
    let address = leader.admin_address().await?;
    becomes(&address, "leader").await;
    let mut follower = Controller::start(&upgrade.cluster, DRIVER.controller, QUICK).await?;
    let other = follower.admin_address().await?;
    becomes(&other, "follower").await;
    upgrade.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(2)));
    Workload::npu("work", &nodes[0]).create(&upgrade.cluster).await?;
    let recording = Recording::start(&upgrade.cluster).await?;
    upgrade.configure("3.1.0").await?;
    upgrade.expect_state(&nodes[0], "Restarting").await;
    leader.process().signal(Signal::STOP);
    becomes(&other, "leader").await;
    upgrade.expect_state(&nodes[1], "Restarting").await;
    leader.process().signal(Signal::CONT);
    becomes(&address, "follower").await;
    follower.process().signal(Signal::KILL);
    becomes(&address, "leader").await;
    for node in &nodes {
        upgrade.expect_done(node, "3.1.0").await;
    }
    upgrade.cluster.expect_ready("default").await;
    let history = recording.stop(&upgrade.cluster).await?;
    assert_clean(&history, 1, 1);
    for node in &nodes {
        assert_eq!(history.states(node), ["Cordoned", "Restarting", "Validating", "Done"], "{node}");
        assert_eq!(history.drivers(node), 2, "{node}");
    }
    Ok(())
}
