//! What a test talks to: a control plane with an administrator's client, and our programs on it.

use std::path::Path;

use accelerator_api::contract::{COMPONENTS, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{AcceleratorConfig, ObservedConfig};
use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde_json::{Value, json};

use crate::audit::Mark;
use crate::wait::{Wait, eventually};
use crate::{ControlPlane, Controller, controller, install, nodes, repository};

/// Where operands live by default.
pub const OPERANDS: &str = "rebellions";

/// A control plane, a client with every right, and what runs on it.
pub struct Cluster {
    control_plane: ControlPlane,
    /// An administrator.
    pub client: Client,
}

/// A client for whoever a kubeconfig is for.
pub async fn client_for(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(
        Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?,
    )?)
}

impl Cluster {
    /// Connects to a control plane.
    pub async fn connect(control_plane: ControlPlane) -> anyhow::Result<Self> {
        let client = client_for(&control_plane.kubeconfig).await?;
        Ok(Self { control_plane, client })
    }

    /// Objects that live in no namespace, or in any.
    #[must_use]
    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// Objects of one namespace.
    #[must_use]
    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) fn into_control_plane(self) -> ControlPlane {
        self.control_plane
    }

    /// The control plane itself.
    pub fn control_plane(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    /// Kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.control_plane.kubeconfig
    }

    /// Runs kubectl as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        install::kubectl(self.kubeconfig(), arguments, b"")
    }

    /// Installs `deploy/overlays/default`, but for the Deployments.
    pub async fn install(&self) -> anyhow::Result<()> {
        let mut objects = install::render("overlays/default")?;
        objects.retain(|object| !install::is_deployment(object));
        install::apply(self.kubeconfig(), &objects)?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd/acceleratorconfigs.petasus.io",
        ])?;
        // Pods are refused until their namespace has its default service account.
        eventually("the service accounts of both namespaces", async || {
            let found = [OPERANDS, controller::NAMESPACE].iter().all(|namespace| {
                self.kubectl(&["get", "serviceaccount", "default", "-n", namespace])
                    .is_ok()
            });
            Wait::until(found, |found| *found)
        })
        .await;
        Ok(())
    }

    /// Removes what a test made: configs, operands, nodes, events.
    pub async fn empty(&self) -> anyhow::Result<()> {
        let (all, now) = (
            ListParams::default(),
            DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            },
        );
        let pods = self.all::<Pod>();
        self.all::<AcceleratorConfig>().delete_collection(&now, &all).await?;
        for namespace in [OPERANDS, "default"] {
            self.namespaced::<DaemonSet>(namespace)
                .delete_collection(&now, &all)
                .await?;
            self.namespaced::<Pod>(namespace).delete_collection(&now, &all).await?;
        }
        self.all::<Node>().delete_collection(&now, &all).await?;
        eventually("an empty cluster", async || {
            let left = (
                self.daemon_sets().await.len(),
                pods.list_metadata(&all)
                    .await
                    .map_or(usize::MAX, |list| list.items.len()),
                self.configs().await.len(),
            );
            Wait::until(left, |left| *left == (0, 0, 0))
        })
        .await;
        self.namespaced::<Event>("default")
            .delete_collection(&now, &all)
            .await?;
        Ok(())
    }

    /// Starts one of our programs with its own rights.
    pub async fn start(&self, name: &'static str) -> Controller {
        self.start_with(name, &[]).await
    }

    /// Starts one of our programs with its own rights and these options.
    ///
    /// # Panics
    /// When it cannot be started.
    #[expect(clippy::expect_used, reason = "a test cannot go on without")]
    pub async fn start_with(&self, name: &'static str, arguments: &[&str]) -> Controller {
        let (folder, server) = (self.control_plane.path(), &self.control_plane.server);
        let controller = Controller::start(&self.client, server, &folder.join("ca.crt"), folder, name, arguments).await;
        controller.expect("a controller")
    }

    /// Starts all of our programs.
    pub async fn start_all(&self) -> Vec<Controller> {
        let mut controllers = vec![];
        for name in repository::programs() {
            controllers.push(self.start(name).await);
        }
        controllers
    }

    /// A client with the rights of one of our programs.
    pub async fn client_of(&self, program: &str) -> anyhow::Result<Client> {
        let folder = self.control_plane.path();
        let server = &self.control_plane.server;
        let kubeconfig = controller::identity(&self.client, server, &folder.join("ca.crt"), folder, program).await?;
        client_for(&kubeconfig).await
    }

    /// The end of the audit log as it is now.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        Mark::here(&self.control_plane.audit_log())
    }

    /// Creates nodes with NPUs in this mode, named `PREFIX-0` and so on; an empty mode is none. Returns their names.
    pub async fn npu_nodes(&self, prefix: &str, count: usize, mode: &str) -> anyhow::Result<Vec<String>> {
        let labels = if mode.is_empty() {
            nodes::npu_labels()
        } else {
            nodes::npu_labels_with_mode(mode)
        };
        let names: Vec<_> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        nodes::create(&self.client, names.clone(), &labels).await?;
        Ok(names)
    }

    /// Sets the mode of a node; `None` takes it away.
    pub async fn set_mode(&self, node: &str, mode: Option<&str>) -> anyhow::Result<()> {
        self.label(node, WORKLOAD_CONFIG_LABEL, mode).await
    }

    /// Sets a label of a node; `None` removes it.
    pub async fn label(&self, node: &str, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        nodes::label(&self.client, node, &[(key, value)]).await
    }

    /// Creates or replaces the spec of an AcceleratorConfig, given the section of our provider.
    pub async fn configure(&self, name: &str, rebellions: Value) -> Result<(), kube::Error> {
        self.configure_spec(name, json!({"providers": {"rebellions": rebellions}}))
            .await
    }

    /// Creates or replaces the spec of an AcceleratorConfig.
    pub async fn configure_spec(&self, name: &str, spec: Value) -> Result<(), kube::Error> {
        let object = json!({
            "apiVersion": "petasus.io/v1beta1",
            "kind": "AcceleratorConfig",
            "metadata": {"name": name},
            "spec": spec,
        });
        let params = PatchParams::apply("testbed").force();
        // The answer is not read as our type: a test may write what this version cannot read.
        self.all::<ObservedConfig>()
            .patch(name, &params, &Patch::Apply(object))
            .await
            .map(drop)
    }

    /// Deletes an AcceleratorConfig.
    pub async fn unconfigure(&self, name: &str) -> anyhow::Result<()> {
        self.all::<AcceleratorConfig>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// A section that enables these components.
    #[must_use]
    pub fn enable(components: &[&str]) -> Value {
        let mut section = json!({});
        for component in COMPONENTS
            .iter()
            .filter(|component| components.contains(&component.name))
        {
            let key = component.path.rsplit('.').next().unwrap_or_default();
            section[key] = json!({"enabled": true});
        }
        section
    }

    /// A section that enables everything.
    #[must_use]
    pub fn enable_all() -> Value {
        Self::enable(&COMPONENTS.map(|component| component.name))
    }

    /// Creates any object from JSON.
    pub fn create(&self, object: &Value) -> anyhow::Result<String> {
        install::kubectl(self.kubeconfig(), &["create", "-f", "-"], object.to_string().as_bytes()).context("create")
    }
}
