//! Where the demo plays: on a control plane of its own, or in the cluster of whoever watches.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use node_labeler::view::{NodeView, WorkloadLabel};
use node_suite::{Software, World, images};
use serde_json::Value;
use testbed::access::client_for;
use testbed::controller::NAMESPACE;
use testbed::repository::programs;
use testbed::{
    Access, Cluster, ControlPlane, Controller, Folder, Kubelets, PLAYED, Process, Profile, Wait, eventually, install,
    nodes, say, start_kwok,
};

/// In somebody's cluster, names of its nodes begin with this, and its AcceleratorConfig has this label.
const PREFIX: &str = "accelerator-demo-";
pub const MARK: &str = "accelerator-demo";

/// Name of the real node.
const REAL: &str = "real-1";

/// From this many nodes on, leases would be most of the traffic.
const MANY: usize = 200;

/// A cluster to play in.
pub struct Stage {
    /// How to reach it.
    pub access: Access,
    controllers: Vec<Controller>,
    kind: Kind,
}

enum Kind {
    /// Ends when dropped, kubelets first.
    Own { kubelets: Option<Kubelets>, cluster: Box<Cluster> },
    /// One of its nodes is real. Ends when dropped.
    Real { world: Box<World>, _folder: Folder },
    /// Must be left as it was found.
    Theirs { installed: Vec<Value>, _kwok: Process, _folder: Folder },
}

impl Stage {
    /// Starts a control plane, installs the operator and starts its controllers.
    pub async fn own(nodes: usize) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let profile = if nodes > MANY { Profile::Scale } else { Profile::Functional };
        let control_plane = tokio::task::spawn_blocking(move || ControlPlane::start(profile)).await??;
        let cluster = Cluster::connect(control_plane).await?;
        say(format!("Control plane is up ({:.1} s).", begun.elapsed().as_secs_f32()));
        cluster.install().await?;
        say("Installed deploy/overlays/default; its controllers run as processes here, in place of Deployments.");
        let controllers = cluster.start_all().await;
        say(format!("Started {} controllers, each with the token of its own service account.", controllers.len()));
        Ok(Self {
            access: cluster.clone(),
            controllers,
            kind: Kind::Own { kubelets: None, cluster: Box::new(cluster) },
        })
    }

    /// As above, with a real node beside the simulated ones. The controllers run in pods on it.
    pub async fn with_a_real_node() -> anyhow::Result<Self> {
        let begun = Instant::now();
        let software = tokio::task::spawn_blocking(Software::get).await??;
        let software = software.map_err(|why| anyhow!("no real node can run here: {why}; leave out --real-node"))?;
        let folder = Folder::new()?;
        let archives = images::archives(folder.path())?;
        let world = World::start(&software, &archives, &[REAL]).await?;
        say(format!("Control plane and the real node {REAL} are up ({:.1} s).", begun.elapsed().as_secs_f32()));
        world.install()?;
        say("Installed deploy/overlays/default as it is; its controllers run in pods on the real node.");
        let access = world.cluster.clone();
        Ok(Self { access, controllers: vec![], kind: Kind::Real { world: Box::new(world), _folder: folder } })
    }

    /// Names of nodes that are not simulated.
    pub fn real_nodes(&self) -> &'static [&'static str] {
        if let Kind::Real { .. } = self.kind { &[REAL] } else { &[] }
    }

    /// Commands that show more, a line each.
    pub fn more_to_see(&self) -> String {
        let Kind::Real { world, .. } = &self.kind else { return String::new() };
        let logs = world.nodes.iter().map(|node| format!("\n  less {}", node.log("kubelet").display()));
        format!("\n  kubectl logs -n {NAMESPACE} deployment/node-labeler{}", logs.collect::<String>())
    }

    /// Uses the cluster of the current context. Installs nothing unless told to.
    pub async fn theirs(may_install: bool) -> anyhow::Result<Self> {
        let (access, folder) = current_context().await?;
        let missing = missing(&access)?;
        ensure!(
            missing.is_empty() || may_install,
            "this cluster lacks {} of the objects in deploy/overlays/default, such as {} {}; install the operator, or let \
             the demo do it for as long as it runs: --install",
            missing.len(),
            missing[0]["kind"].as_str().unwrap_or_default(),
            missing[0]["metadata"]["name"].as_str().unwrap_or_default()
        );
        if !missing.is_empty() {
            access.install().await?;
            say(format!("Installed {} objects of deploy/overlays/default.", missing.len()));
        }
        let mut configs = access.configs().await;
        if !configs.is_empty() && configs.iter().all(|config| config.labels().contains_key(MARK)) {
            say("Removing what an earlier demo left ...");
            clean(&access).await?;
            configs.clear();
        }
        ensure!(
            configs.is_empty(),
            "this cluster has the AcceleratorConfig {}, which the demo must not disturb; use another cluster",
            configs[0].name_any()
        );
        let others = access.all::<Node>().list_metadata(&ListParams::default()).await?.items;
        if let Some(other) = others.iter().find(|node| !is_demo(*node) && is_about_npus(*node)) {
            bail!(
                "this cluster has nodes with NPUs or with a mode, such as {}; the demo would deploy software to them; use \
                 another cluster",
                other.name_any()
            );
        }
        let kwok = start_kwok(&access.kubeconfig, folder.path())?;
        let mut controllers = vec![];
        for program in programs() {
            if !is_deployed(&access, program).await {
                controllers.push(access.start(program).await);
            }
        }
        say(format!("Started {} controllers; the others run in the cluster.", controllers.len()));
        Ok(Self { access, controllers, kind: Kind::Theirs { installed: missing, _kwok: kwok, _folder: folder } })
    }

    /// Names of the nodes that it creates.
    pub fn node(&self, number: usize) -> String {
        match self.kind {
            Kind::Own { .. } | Kind::Real { .. } => format!("npu-{number}"),
            Kind::Theirs { .. } => format!("{PREFIX}npu-{number}"),
        }
    }

    /// Creates nodes with NPUs and no mode.
    pub async fn create_nodes(&self, count: usize) -> anyhow::Result<()> {
        let names: Vec<_> = (1..=count).map(|number| self.node(number)).collect();
        let labels = nodes::npu_labels();
        nodes::create_with(&self.access.client, names, &labels, |node| self.mark(node)).await
    }

    /// Creates machines with eight NPUs each, whose kubelets know the driver: on a control plane of its own alone.
    pub async fn machines(&mut self, prefix: &str, count: usize) -> anyhow::Result<Option<Vec<String>>> {
        let Kind::Own { kubelets, cluster } = &mut self.kind else { return Ok(None) };
        *kubelets = Some(Kubelets::start(cluster).await?);
        cluster.machines(prefix).count(count).create().await.map(Some)
    }

    /// Beside real nodes, a node that does not exist must not attract anybody's pods but ours.
    fn mark(&self, node: &mut Node) {
        if !matches!(self.kind, Kind::Own { .. }) {
            node.annotations_mut().insert(PLAYED.0.into(), PLAYED.1.into());
            let taint = Taint { key: "rebellions.ai/npu".into(), effect: "NoSchedule".into(), ..Taint::default() };
            node.spec.get_or_insert_default().taints.get_or_insert_default().push(taint);
        }
    }

    /// Leaves everything as it was found.
    pub async fn close(self) -> anyhow::Result<()> {
        let Kind::Theirs { installed, .. } = &self.kind else {
            drop(self);
            say("Everything has ended; nothing is left.");
            return Ok(());
        };
        say("Removing what the demo made ...");
        let access = &self.access;
        let _ = access.unconfigure(crate::story::CONFIG).await;
        eventually("the operands to go", async || Wait::until(access.operands().await, Vec::is_empty)).await;
        eventually("the pods to go", async || Wait::until(access.pods().await.len(), |pods| *pods == 0)).await;
        clean(access).await?;
        drop(self.controllers);
        if !installed.is_empty() {
            install::delete(&access.kubeconfig, installed)?;
        }
        say("Removed everything that the demo made.");
        Ok(())
    }
}

/// Removes configs and nodes of a demo.
async fn clean(access: &Access) -> anyhow::Result<()> {
    for config in access.configs().await.iter().filter(|config| config.labels().contains_key(MARK)) {
        access.unconfigure(&config.name_any()).await?;
    }
    let all = access.all::<Node>();
    for node in all.list_metadata(&ListParams::default()).await?.items.iter().filter(|node| is_demo(*node)) {
        all.delete(&node.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn is_demo(node: &impl ResourceExt) -> bool {
    node.name_any().starts_with(PREFIX)
}

/// Whether a controller of ours might do something to the node.
fn is_about_npus(node: &impl ResourceExt) -> bool {
    let view = NodeView::of(node.meta());
    view.has_npu
        || view.workload != WorkloadLabel::Absent
        || node.labels().keys().any(|key| key.starts_with(nodes::DEPLOY_PREFIX))
}

/// The cluster of the current context, with its kubeconfig reduced to that.
async fn current_context() -> anyhow::Result<(Access, Folder)> {
    let folder = Folder::new()?;
    let reduced =
        install::current_kubeconfig().context("there is no current context; see kubectl config get-contexts")?;
    let kubeconfig = folder.path().join("admin.kubeconfig");
    std::fs::write(&kubeconfig, reduced.to_string())?;
    std::fs::set_permissions(&kubeconfig, std::fs::Permissions::from_mode(0o600))?;
    let context = reduced["current-context"].as_str().unwrap_or_default();
    say(format!(
        "Using the context {context}: simulated nodes accelerator-demo-… and an AcceleratorConfig will be made there."
    ));
    let access = Access {
        client: client_for(&kubeconfig).await?,
        entry: reduced["clusters"][0]["cluster"].clone(),
        folder: folder.path().into(),
        kubeconfig,
    };
    Ok((access, folder))
}

/// What of `deploy/overlays/default` is not there. The Deployments do not matter: what they run can run here.
fn missing(access: &Access) -> anyhow::Result<Vec<Value>> {
    let mut objects = install::render("overlays/default")?;
    objects.retain(|object| !install::is_deployment(object));
    let present = install::present(&access.kubeconfig, &objects)?;
    objects.retain(|object| !present.contains(&install::identity(object)));
    Ok(objects)
}

async fn is_deployed(access: &Access, program: &str) -> bool {
    let deployment = access.namespaced::<Deployment>(NAMESPACE).get_opt(program).await.ok().flatten();
    let ready = deployment.and_then(|deployment| deployment.status?.ready_replicas).unwrap_or(0);
    ready > 0
}
