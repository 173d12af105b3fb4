//! A cluster with real nodes, as an admin has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::controller::NAMESPACE;
use testbed::programs::control_plane_binary;
use testbed::repository::root;
use testbed::{Cluster, ControlPlane, Profile, install};

use crate::{Node, Software, VirtualNode};

/// What an admin applies.
const OVERLAY: &str = "deploy/overlays/default";

/// A control plane, its real nodes, and an administrator's tools.
pub struct World {
    /// The control plane.
    pub cluster: Cluster,
    /// The nodes, in the order of their names.
    pub nodes: Vec<Node>,
    /// Nodes that are virtual machines, beside them.
    pub virtual_nodes: Vec<VirtualNode>,
    software: Software,
    images: Vec<PathBuf>,
}

/// What kubectl printed.
#[derive(Clone, Debug)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error: warnings of the API server are here.
    pub errors: String,
}

impl World {
    /// Starts a control plane and nodes of these names on which nothing has run before, and waits until they are Ready.
    pub async fn start(software: &Software, images: &[PathBuf], names: &[&str]) -> anyhow::Result<Self> {
        let control_plane = tokio::task::spawn_blocking(|| ControlPlane::start(Profile::RealNodes)).await??;
        let cluster = Cluster::connect(control_plane).await?;
        let mut this =
            Self { cluster, nodes: vec![], virtual_nodes: vec![], software: software.clone(), images: images.into() };
        for name in names {
            this.add_node(name)?;
        }
        for node in &this.nodes {
            node.ready(&this.cluster).await;
        }
        Ok(this)
    }

    /// Starts one more node.
    pub fn add_node(&mut self, name: &str) -> anyhow::Result<()> {
        let node = Node::start(&self.software, self.cluster.control_plane(), name, &self.images)?;
        self.nodes.push(node);
        Ok(())
    }

    /// Starts a node that is a virtual machine with NPUs of these device ids.
    pub fn add_virtual_node(&mut self, name: &str, npus: &[u16]) -> anyhow::Result<()> {
        let node = VirtualNode::start(&self.software, self.cluster.control_plane(), name, &self.images, npus)?;
        self.virtual_nodes.push(node);
        Ok(())
    }

    /// A node.
    pub fn node(&self, name: &str) -> anyhow::Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// A node, to be changed.
    pub fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// Runs a line of shell as an administrator who stands in the repository, with kubectl and kustomize on the PATH.
    pub fn shell(&self, line: &str) -> anyhow::Result<Said> {
        let kubectl = control_plane_binary("kubectl")?;
        let programs = kubectl.parent().unwrap_or(Path::new("/"));
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(root())
            .env("PATH", path)
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .env("KUBECACHEDIR", self.cluster.folder.join("kubectl"))
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = Said { out: text(&output.stdout), errors: text(&output.stderr) };
        ensure!(output.status.success(), "{line}\n{}{}", said.out, said.errors);
        Ok(said)
    }

    /// Installs the operator and waits until its controllers are available.
    pub fn install(&self) -> anyhow::Result<()> {
        self.shell(&format!("kubectl apply --server-side -k {OVERLAY}"))?;
        self.controllers_available()
    }

    /// Waits until every Deployment of ours is available.
    pub fn controllers_available(&self) -> anyhow::Result<()> {
        self.shell(&format!("kubectl wait --for=condition=Available deployment --all -n {NAMESPACE} --timeout=120s"))?;
        Ok(())
    }

    /// Installs the operator, enables these components and gives every node this mode.
    pub async fn run_components(&self, components: &[&str], mode: &str) -> anyhow::Result<()> {
        self.install()?;
        self.cluster.configure("npu", testbed::Access::enable(components)).await?;
        for node in &self.nodes {
            self.cluster.set_mode(&node.name, Some(mode)).await?;
        }
        Ok(())
    }

    /// Sets variables of a component's main container, which for a stand-in means what it does.
    pub async fn configure_component(&self, component: &str, settings: &Value) -> anyhow::Result<()> {
        let mut section = testbed::Access::enable(&[component]);
        for value in section.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            for (key, setting) in settings.as_object().into_iter().flatten() {
                value[key] = setting.clone();
            }
        }
        self.cluster.configure("npu", section).await?;
        Ok(())
    }

    /// Pods of a namespace.
    pub async fn pods(&self, namespace: &str) -> anyhow::Result<Vec<Pod>> {
        Ok(self.cluster.namespaced::<Pod>(namespace).list(&ListParams::default()).await?.items)
    }

    /// Who holds a lease of ours; empty when nobody does.
    pub async fn leader(&self, program: &str) -> anyhow::Result<String> {
        let lease = self.cluster.namespaced::<Lease>(NAMESPACE).get_opt(program).await?;
        Ok(lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default())
    }

    /// What tells whether an object was replaced or written: `kind/name uid resourceVersion` of all objects of these kinds in
    /// a namespace.
    pub fn fingerprints(&self, namespace: &str, kinds: &str) -> anyhow::Result<Vec<String>> {
        let output =
            r"{range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}{'\n'}{end}";
        let line = format!("kubectl get {kinds} -n {namespace} -o jsonpath=\"{output}\"");
        Ok(self.shell(&line)?.out.lines().map(str::to_owned).collect())
    }

    /// Changes a Deployment of ours and waits until it is rolled out.
    pub fn roll_out(&self, program: &str, change: &str) -> anyhow::Result<()> {
        self.shell(&format!("{change} && kubectl rollout status -n {NAMESPACE} deployment/{program} --timeout=120s"))?;
        Ok(())
    }

    /// Applies objects.
    pub fn apply(&self, objects: &[Value]) -> anyhow::Result<()> {
        install::apply(&self.cluster.kubeconfig, objects).map(drop)
    }

    /// Writes down what there is to know after a failure.
    pub fn keep(&self, target: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(target)?;
        for (file, line) in [
            ("configs.yaml", "kubectl get ac -o yaml"),
            ("objects.txt", "kubectl get nodes,deployments,daemonsets,pods,leases -A -o wide"),
            ("pods.yaml", "kubectl get pods -A -o yaml"),
            ("events.txt", "kubectl get events -A --sort-by=.metadata.creationTimestamp"),
        ] {
            let said = self.shell(line).map_or_else(|error| format!("{error:#}"), |said| said.out);
            std::fs::write(target.join(file), said)?;
        }
        let status = Command::new("bash")
            .args(["-c", "cp *.log audit.json \"$0\""])
            .arg(target)
            .current_dir(&self.cluster.folder)
            .status()?;
        ensure!(status.success(), "could not copy the control plane's logs");
        self.nodes.iter().try_for_each(|node| node.keep_logs(target))?;
        self.virtual_nodes.iter().try_for_each(|node| node.keep_logs(target))
    }
}

/// The name of the node that a pod is on.
#[must_use]
pub fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// Whether a pod is a program's.
#[must_use]
pub fn is_of(pod: &Pod, program: &str) -> bool {
    pod.name_any().starts_with(program)
}

/// Environment of a stand-in.
#[must_use]
pub fn stand_in(what: &str) -> Value {
    json!({"env": [{"name": "STAND_IN", "value": what}]})
}
