//! An installation whose parts are of the last release or of the code as it is, each switched alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use accelerator_api::contract::{COMPONENTS, DEVICE_PLUGIN};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use testbed::releases::{Built, Release};
use testbed::repository::{programs, root};
use testbed::{Access, Cluster, ControlPlane, Controller, Profile, Wait, eventually, install, programs, say};

use super::snapshot::{Snapshot, Step};
use crate::leadership::becomes;
use crate::programs::get;
use crate::{CONTAINER, LABELER};

/// What is of one version or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Crd,
    Program(&'static str),
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Old,
    New,
}

/// Every part.
pub fn parts() -> Vec<Part> {
    std::iter::once(Part::Crd).chain(programs().map(Part::Program)).collect()
}

pub struct Installation {
    pub controllers: BTreeMap<&'static str, Controller>,
    release: Release,
    built: Built,
    versions: BTreeMap<Part, Version>,
    before: Snapshot,
    begun: Instant,
    steps: usize,
    /// Pods that were replaced because the template of their own component changed.
    rolled: usize,
    /// Last: it ends when its controllers have.
    pub cluster: Cluster,
}

impl Installation {
    /// All of the last release, at work: its whole overlay, its programs, two nodes for containers and one for virtual machines.
    pub async fn of_the_last_release() -> anyhow::Result<Self> {
        let release = Release::last()?;
        let building = release.clone();
        let built = tokio::task::spawn_blocking(move || building.build()).await??;
        let begun = Instant::now();
        let control_plane = tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??;
        let cluster = Cluster::connect(control_plane).await?;
        let mut this = Self {
            controllers: BTreeMap::new(),
            release,
            built,
            versions: parts().into_iter().map(|part| (part, Version::Old)).collect(),
            before: Snapshot::default(),
            begun,
            steps: 0,
            rolled: 0,
            cluster,
        };
        install::apply(&this.cluster.kubeconfig, &this.rendered(Version::Old, "overlays/default")?)?;
        this.expect_crd()?;
        for name in programs() {
            let controller = this.start(name, Version::Old).await?;
            this.controllers.insert(name, controller);
        }
        this.cluster.npu_nodes("c", 2, "container").await?;
        this.cluster.npu_nodes("v", 1, "vm-passthrough").await?;
        this.cluster.configure("default", section()).await?;
        this.settle().await?;
        this.look_again().await;
        assert_eq!(this.before.pods.len(), 2 * CONTAINER.len() + crate::VM.len(), "{:?}", this.before.pods.keys());
        Ok(this)
    }

    /// What a folder below `deploy/` renders to.
    pub fn rendered(&self, version: Version, folder: &str) -> anyhow::Result<Vec<Value>> {
        match version {
            Version::Old => install::render_of(&self.built.source, folder),
            Version::New => install::render_of(root(), folder),
        }
    }

    fn binary(&self, name: &str, version: Version) -> anyhow::Result<PathBuf> {
        match version {
            Version::Old => self.built.program(name),
            Version::New => programs::own_binary(name),
        }
    }

    async fn start(&self, name: &'static str, version: Version) -> anyhow::Result<Controller> {
        Controller::start_binary(&self.cluster, name, &self.binary(name, version)?, &[], &[]).await
    }

    pub fn expect_crd(&self) -> anyhow::Result<()> {
        let crd = "crd/acceleratorconfigs.petasus.io";
        self.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crd]).map(drop)
    }

    /// Replaces one part as an admin does: its folder below `deploy/` is applied, and its program is followed by that of the
    /// other version, which waits for the lease.
    pub async fn switch(&mut self, part: Part, version: Version) -> anyhow::Result<()> {
        if self.versions.insert(part, version) == Some(version) {
            return Ok(());
        }
        let mark = self.cluster.mark()?;
        let folder = match part {
            Part::Crd => "crds".to_owned(),
            Part::Program(name) => format!("base/{name}"),
        };
        install::apply(&self.cluster.kubeconfig, &self.rendered(version, &folder)?)?;
        let mut step = Step::default();
        match part {
            Part::Crd => self.expect_crd()?,
            Part::Program(name) => {
                self.follow(name, version).await?;
                step.switched = Some(name);
            }
        }
        self.settle().await?;
        self.check(&format!("{part:?} to {version:?}"), step, &mark.requests()?).await
    }

    /// Starts the other one, which follows, and ends the one that leads.
    async fn follow(&mut self, name: &'static str, version: Version) -> anyhow::Result<()> {
        let mut next = self.start(name, version).await?;
        let address = next.admin_address().await?;
        eventually(&format!("{name} to be ready to follow"), async || {
            Wait::until(get(&address, "/readyz").await.0, |code| *code == 200)
        })
        .await;
        if let Some(last) = self.controllers.remove(name) {
            Self::expect_no_panic(&last);
            assert!(last.stop()?.success(), "{name} ended badly");
        }
        becomes(&address, "leader").await;
        eventually(&format!("{name} to look"), async || {
            let looks = next.metric("accelerator_reconcile_total", "success").await;
            Wait::until(looks.unwrap_or_default(), |looks| *looks >= 1.0)
        })
        .await;
        self.controllers.insert(name, next);
        self.expect_told(name, version).await;
        Ok(())
    }

    fn expect_no_panic(controller: &Controller) {
        let log = std::fs::read_to_string(&controller.process().log).unwrap_or_default();
        assert!(!log.contains("panicked"), "{}: {log}", controller.name);
    }

    /// The status has what the new one says, or an event says that the CRD is too old for it.
    async fn expect_told(&self, name: &str, version: Version) {
        let Some(component) = COMPONENTS.into_iter().find(|component| component.controller == name) else { return };
        let expected = match version {
            Version::Old => &self.release.version,
            Version::New => env!("CARGO_PKG_VERSION"),
        };
        eventually(&format!("{name} {expected} to report, or to say why it cannot"), async || {
            let entries = self.cluster.config("default").await["status"]["components"].clone();
            let entries = entries.as_array().cloned().unwrap_or_default();
            let entry = entries.into_iter().find(|entry| entry["name"] == component.operand).unwrap_or_default();
            let excuse = format!("CrdTooOld: {name} ");
            let is_excused = self.cluster.events("default").await.iter().any(|event| event.starts_with(&excuse));
            Wait::until((entry["controllerVersion"].clone(), is_excused), |(told, is_excused)| {
                told == expected || *is_excused
            })
        })
        .await;
    }

    /// Waits until the status is true, and nobody writes any more.
    pub async fn settle(&self) -> anyhow::Result<()> {
        self.cluster.expect_ready("default").await;
        eventually("nobody to write any more", async || {
            let mark = self.cluster.mark().expect("an audit log");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let writes = mark.our_writes().expect("an audit log");
            Wait::until(writes, |writes| writes.iter().all(|write| write.resource == "events"))
        })
        .await;
        self.cluster.expect_ready("default").await;
        Ok(())
    }

    /// What is there now is what the next step is compared with.
    pub async fn look_again(&mut self) {
        self.before = Snapshot::of(&self.cluster).await;
    }

    /// Compares with what was there before.
    pub async fn check(&mut self, what: &str, step: Step<'_>, requests: &[testbed::Request]) -> anyhow::Result<()> {
        let after = Snapshot::of(&self.cluster).await;
        let violations = self.before.violations(&after, step, requests);
        assert_eq!(violations, Vec::<String>::new(), "{what}, with {:?}", self.versions);
        self.controllers.values().for_each(Self::expect_no_panic);
        if step.asked.is_empty() {
            self.rolled += self.before.replaced(&after).len();
        }
        self.steps += 1;
        self.before = after;
        Ok(())
    }

    /// A node joins, a component gets another image, and both are undone: the programs do not only stand side by side.
    pub async fn work(&mut self) -> anyhow::Result<()> {
        let mark = self.cluster.mark()?;
        if self.cluster.all::<Node>().get_opt("w-0").await?.is_none() {
            self.cluster.npu_nodes("w", 1, "").await?;
        }
        self.cluster.set_mode("w-0", Some("container")).await?;
        self.cluster.expect_deployed("w-0", CONTAINER).await;
        let mut other = section();
        other["devicePlugin"]["image"] = json!({"tag": "v0.3.8"});
        self.cluster.configure("default", other).await?;
        self.settle().await?;
        let daemon_set = self.cluster.daemon_set(DEVICE_PLUGIN.name).await.to_string();
        assert!(daemon_set.contains(":v0.3.8\""), "{daemon_set}");
        let pods = self.cluster.pods().await;
        assert!(CONTAINER.iter().all(|name| pods.contains_key(&format!("{name}@w-0"))), "{pods:?}");
        self.cluster.configure("default", section()).await?;
        self.cluster.set_mode("w-0", None).await?;
        self.cluster.expect_deployed("w-0", &[]).await;
        self.settle().await?;
        eventually("the node that left its mode to be empty", async || {
            Wait::until(self.cluster.pods().await, |pods| pods.keys().all(|pod| !pod.ends_with("@w-0")))
        })
        .await;
        let step = Step { switched: None, asked: &[DEVICE_PLUGIN.name] };
        self.check("work", step, &mark.requests()?).await
    }

    /// Tells what was tried.
    pub fn tell(&self, scenario: &str) {
        say(format!(
            "{scenario}: {} steps in {} s, {} pods at the end, {} replaced because their own template changed, no violation",
            self.steps,
            self.begun.elapsed().as_secs(),
            self.before.pods.len(),
            self.rolled
        ));
    }

    /// The other programs than this one.
    pub fn others(of: &str) -> impl Iterator<Item = Part> + use<'_> {
        programs().filter(move |name| *name != of).map(Part::Program)
    }
}

/// Everything is enabled.
pub fn section() -> Value {
    Access::enable_all()
}

pub const LABELER_PART: Part = Part::Program(LABELER);
