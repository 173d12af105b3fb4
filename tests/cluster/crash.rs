//! A crash at every write. Each workload is run once undisturbed; then, for each write that a program made, once with the
//! program killed after the API server carried it out and before the program heard of it, and once right after it heard.
//! It is started again, and in the end everything must be as in the undisturbed run: the state, what was created and
//! deleted, and every pod that need not have gone.

use std::collections::BTreeMap;
use std::time::Duration;

use accelerator_api::contract::{COMPONENTS, DEVICE_PLUGIN, VFIO_MANAGER};
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::{Access, Cluster, Controller, Fault, Leased, Proxy, Rule, Wait, eventually, say};

use crate::LABELER;

/// The programs that run: the labeler, and a component of each mode.
const PROGRAMS: [&str; 3] = [LABELER, DEVICE_PLUGIN.controller, VFIO_MANAGER.controller];
const NODES: usize = 5;

/// What an admin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    Install,
    ModeSwitch,
    DisableAndEnable,
    ImageChange,
    ConfigReplaced,
    DefaultModeOnAndOff,
}

const WORKLOADS: [Workload; 6] = [
    Workload::Install,
    Workload::ModeSwitch,
    Workload::DisableAndEnable,
    Workload::ImageChange,
    Workload::ConfigReplaced,
    Workload::DefaultModeOnAndOff,
];

/// A crash: of which program, at which of its writes, and whether it heard the answer.
#[derive(Clone, Copy, Debug)]
struct Crash {
    program: usize,
    write: usize,
    heard: bool,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    state: Value,
    /// DaemonSets created and deleted, by name.
    made: BTreeMap<String, usize>,
    /// Operands that were there before and still are, by `component@node`.
    kept: Vec<String>,
}

fn section(change: impl FnOnce(&mut Value)) -> Value {
    let mut section = Access::enable(&[DEVICE_PLUGIN.name, VFIO_MANAGER.name]);
    change(&mut section);
    section
}

impl Workload {
    async fn prepare(self, cluster: &Cluster) -> anyhow::Result<()> {
        let mode = if self == Self::DefaultModeOnAndOff { "" } else { "container" };
        cluster.npu_nodes("c", NODES, mode).await?;
        if self != Self::Install {
            cluster.configure("default", section(|_| {})).await?;
            cluster.expect_ready("default").await;
        }
        Ok(())
    }

    async fn act(self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Install => cluster.configure("default", section(|_| {})).await?,
            Self::ModeSwitch => {
                for node in ["c-0", "c-1"] {
                    cluster.set_mode(node, Some("vm-passthrough")).await?;
                }
            }
            Self::DisableAndEnable => {
                cluster.configure("default", section(|all| all["devicePlugin"]["enabled"] = json!(false))).await?;
                cluster.expect_condition("default", DEVICE_PLUGIN.condition_type, "False/Disabled").await;
                cluster.configure("default", section(|_| {})).await?;
            }
            Self::ImageChange => {
                let image = json!({"tag": "v0.3.8"});
                cluster.configure("default", section(|all| all["devicePlugin"]["image"] = image)).await?;
            }
            Self::ConfigReplaced => {
                cluster.configure("next", section(|_| {})).await?;
                cluster.expect_condition("next", "Accepted", "False/Superseded").await;
                let owners = async || {
                    let mut owners = vec![];
                    for component in [&DEVICE_PLUGIN, &VFIO_MANAGER] {
                        let text = cluster.daemon_set(component.name).await["metadata"]["ownerReferences"].to_string();
                        owners.push(text.contains("\"next\""));
                    }
                    owners
                };
                eventually("both to own", async || Wait::until(owners().await, |owns| owns.iter().all(|owns| *owns)))
                    .await;
                cluster.unconfigure("default").await?;
            }
            Self::DefaultModeOnAndOff => {
                cluster.configure("default", section(|all| all["workload"] = json!({"default": "container"}))).await?;
                eventually("the default mode", async || {
                    let mut labels = vec![];
                    for node in 0..NODES {
                        labels.push(cluster.deploy_labels(&format!("c-{node}")).await.len());
                    }
                    Wait::until(labels, |labels| labels.iter().all(|count| *count == 4))
                })
                .await;
                cluster.configure("default", section(|_| {})).await?;
            }
        }
        Ok(())
    }

    /// The config that counts in the end.
    fn config(self) -> &'static str {
        if self == Self::ConfigReplaced { "next" } else { "default" }
    }
}

/// What came of a workload.
struct Run {
    outcome: Outcome,
    /// Writes of each program.
    writes: Vec<usize>,
    /// Whether a program was killed, and started again.
    crashed: bool,
}

/// A control plane, and a proxy for each program.
struct Bench {
    cluster: Leased,
    proxies: Vec<Proxy>,
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::lease().await;
        let proxies = PROGRAMS.map(|name| Proxy::start(&cluster.entry, &cluster.folder, name));
        Ok(Self { proxies: proxies.into_iter().collect::<anyhow::Result<_>>()?, cluster })
    }

    async fn start(&self, program: usize) -> anyhow::Result<Controller> {
        let through = Access { entry: self.proxies[program].entry.clone(), ..Access::clone(&self.cluster) };
        let controller = Controller::start(&through, PROGRAMS[program], &["--leader-elect=false"]).await?;
        self.proxies[program].aim(controller.process().id());
        Ok(controller)
    }

    /// Runs a workload from an empty cluster. Returns the outcome and how many writes each program made.
    async fn run(&self, workload: Workload, crash: Option<Crash>, reference: Option<&Outcome>) -> anyhow::Result<Run> {
        self.cluster.empty().await?;
        let mut controllers = vec![];
        for program in 0..PROGRAMS.len() {
            self.proxies[program].heal();
            controllers.push(self.start(program).await?);
        }
        workload.prepare(&self.cluster).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (mark, before) = (self.cluster.mark()?, self.cluster.pods().await);
        let seen: Vec<_> = self.proxies.iter().map(|proxy| proxy.seen().len()).collect();
        if let Some(Crash { program, write, heard }) = crash {
            let fault = if heard { Fault::SignalAfterAnswer } else { Fault::SignalBeforeAnswer };
            self.proxies[program].set([Rule::nth(write, "write", "*", fault(Signal::KILL))]);
        }

        let mut again = None;
        let nurse = async {
            let Some(Crash { program, .. }) = crash else { return std::future::pending().await };
            // A write that is not reached this time, such as one of several status writes, kills nobody.
            while controllers[program].ended().is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            again = Some(self.start(program).await?);
            std::future::pending::<anyhow::Result<()>>().await
        };
        let outcome = async || {
            let pods = self.cluster.pods().await;
            let kept = before.iter().filter(|(name, uid)| pods.get(*name) == Some(uid)).map(|(name, _)| name.clone());
            let mut made = BTreeMap::new();
            for write in mark.our_writes()?.iter().filter(|write| write.resource == "daemonsets") {
                if write.code == 201 || (write.verb == "delete" && write.code == 200) {
                    *made.entry(format!("{} {}", write.verb, write.name)).or_insert(0) += 1;
                }
            }
            anyhow::Ok(Outcome { state: self.state(workload.config()).await, made, kept: kept.collect() })
        };
        let act = async {
            workload.act(&self.cluster).await?;
            let Some(reference) = reference else { return self.rest(workload, &outcome).await };
            eventually(&format!("{workload:?} with {crash:?} to end as without"), async || {
                Wait::until(outcome().await.ok(), |now| now.as_ref() == Some(reference))
            })
            .await;
            Ok(())
        };
        tokio::select! {
            acted = act => acted?,
            nursed = nurse => nursed?,
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let writes = self
            .proxies
            .iter()
            .zip(seen)
            .map(|(proxy, seen)| proxy.seen().split_off(seen).iter().filter(|seen| seen.is_write()).count());
        let result = Run { outcome: outcome().await?, writes: writes.collect(), crashed: again.is_some() };
        for controller in controllers.iter().chain(&again) {
            let log = std::fs::read_to_string(&controller.process().log)?;
            assert!(!log.contains("panicked"), "{workload:?} with {crash:?}: {log}");
        }
        Ok(result)
    }

    /// Waits until it is ready, and the same for a while: this is where it ends.
    async fn rest(&self, workload: Workload, outcome: impl AsyncFn() -> anyhow::Result<Outcome>) -> anyhow::Result<()> {
        let mut last = None;
        eventually(&format!("{workload:?} to end"), async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let ready = self.cluster.condition(workload.config(), "Ready").await.starts_with("True/");
            let now = outcome().await.ok();
            let rests = ready && last == now;
            last = now;
            Wait::until(rests, |rests| *rests)
        })
        .await;
        Ok(())
    }

    /// Everything that must be the same again, without times and versions.
    async fn state(&self, config: &str) -> Value {
        let mut nodes = BTreeMap::new();
        for node in (0..NODES).map(|number| format!("c-{number}")) {
            nodes.insert(node.clone(), self.cluster.deploy_labels(&node).await);
        }
        let mut operands = BTreeMap::new();
        for component in COMPONENTS {
            let daemon_set = self.cluster.daemon_set(component.name).await;
            let owners = daemon_set["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            operands.insert(component.name, json!([daemon_set["spec"], owners]));
        }
        let status = &self.cluster.config(config).await["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let mut told: Vec<_> = conditions
            .iter()
            .map(|one| format!("{} {} {} {}", one["type"], one["status"], one["reason"], one["message"]))
            .chain(status["components"].as_array().into_iter().flatten().map(Value::to_string))
            .collect();
        told.sort();
        json!({"nodes": nodes, "operands": operands, "counts": status["nodes"], "told": told})
    }
}

/// Each plan of a workload.
fn plans(writes: &[usize]) -> Vec<Crash> {
    let of = |(program, count): (usize, &usize)| {
        let at = move |write| [false, true].map(|heard| Crash { program, write, heard });
        (1..=*count).flat_map(at).collect::<Vec<_>>()
    };
    writes.iter().enumerate().flat_map(of).collect()
}

async fn crash_at(workloads: &[Workload], keep: impl Fn(usize) -> bool) -> anyhow::Result<usize> {
    let bench = Bench::new().await?;
    let (mut number, mut run, mut crashed) = (0, 0, 0);
    for workload in workloads {
        let reference = bench.run(*workload, None, None).await?;
        for plan in plans(&reference.writes) {
            number += 1;
            if keep(number) {
                crashed += usize::from(bench.run(*workload, Some(plan), Some(&reference.outcome)).await?.crashed);
                run += 1;
            }
        }
        let writes = reference.writes;
        say(format!(
            "{workload:?}: writes per program {writes:?}; so far {run} of {number} plans run, {crashed} crashed, no violation"
        ));
    }
    Ok(crashed)
}

/// A few of the plans, others than last time only when the workloads change.
#[tokio::test]
async fn a_crash_at_any_write_changes_nothing_sample() -> anyhow::Result<()> {
    let crashed = crash_at(&[Workload::Install, Workload::ModeSwitch], |number| number % 9 == 4).await?;
    assert!(crashed >= 1, "no program was killed");
    Ok(())
}

#[tokio::test]
#[ignore = "takes half an hour; run by `just crash-suite`"]
async fn a_crash_at_every_write_changes_nothing() -> anyhow::Result<()> {
    let crashed = crash_at(&WORKLOADS, |_| true).await?;
    say(format!("{crashed} crashes, no violation"));
    assert!(crashed >= 100, "{crashed} programs were killed");
    Ok(())
}
