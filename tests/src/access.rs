//! What a test does to a cluster, and the programs that it starts on it.

use std::path::{Path, PathBuf};

use accelerator_api::contract::{COMPONENTS, WORKLOAD_CONFIG_LABEL};
use accelerator_api::{AcceleratorConfig, ObservedConfig};
use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde_json::{Value, json};

use crate::wait::{Wait, eventually};
use crate::{Controller, controller, install, nodes, repository};

/// Where operands live by default.
pub const OPERANDS: &str = "rebellions";

/// How to reach a cluster, as somebody who may do everything.
#[derive(Clone)]
pub struct Access {
    /// The client.
    pub client: Client,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// How to reach the API server, as in a kubeconfig, for those who may do less.
    pub entry: Value,
    /// Where tokens and logs go.
    pub folder: PathBuf,
}

/// A client for whoever a kubeconfig is for.
pub async fn client_for(kubeconfig: &Path) -> anyhow::Result<Client> {
    Ok(Client::try_from(config_for(kubeconfig).await?)?)
}

/// The configuration of such a client.
pub(crate) async fn config_for(kubeconfig: &Path) -> anyhow::Result<Config> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)
}

impl Access {
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

    /// Runs kubectl as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        install::kubectl(&self.kubeconfig, arguments, b"")
    }

    /// Installs `deploy/overlays/default`, but for the Deployments.
    pub async fn install(&self) -> anyhow::Result<()> {
        let mut objects = install::render("overlays/default")?;
        objects.retain(|object| !install::is_deployment(object));
        install::apply(&self.kubeconfig, &objects)?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/acceleratorconfigs.petasus.io"])?;
        // Pods are refused until their namespace has its default service account.
        eventually("the service accounts of both namespaces", async || {
            let found = [OPERANDS, controller::NAMESPACE]
                .iter()
                .all(|namespace| self.kubectl(&["get", "serviceaccount", "default", "-n", namespace]).is_ok());
            Wait::until(found, |found| *found)
        })
        .await;
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
        let controller = Controller::start(self, name, arguments).await;
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
        client_for(&controller::identity(self, program).await?).await
    }

    /// Creates nodes with NPUs in this mode, named `PREFIX-0` and so on; an empty mode is none. Returns their names.
    pub async fn npu_nodes(&self, prefix: &str, count: usize, mode: &str) -> anyhow::Result<Vec<String>> {
        let labels = if mode.is_empty() { nodes::npu_labels() } else { nodes::npu_labels_with_mode(mode) };
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

    /// Creates or replaces the spec of an AcceleratorConfig, given the section of our provider. Pods count as available at
    /// once unless the section says otherwise: simulated ones do not crash, and tests do not wait for it.
    pub async fn configure(&self, name: &str, mut rebellions: Value) -> Result<(), kube::Error> {
        let is_free = |value: &Value| value.is_null() || value.is_object();
        if rebellions.is_object() && is_free(&rebellions["daemonsets"]) {
            let strategy = &mut rebellions["daemonsets"]["updateStrategy"];
            if is_free(strategy) && strategy.get("minReadySeconds").is_none() {
                strategy["minReadySeconds"] = json!(0);
            }
        }
        self.configure_spec(name, json!({"providers": {"rebellions": rebellions}})).await
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
        self.all::<ObservedConfig>().patch(name, &params, &Patch::Apply(object)).await.map(drop)
    }

    /// Deletes an AcceleratorConfig.
    pub async fn unconfigure(&self, name: &str) -> anyhow::Result<()> {
        self.all::<AcceleratorConfig>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A section that enables these components.
    #[must_use]
    pub fn enable(components: &[&str]) -> Value {
        let mut section = json!({});
        for component in COMPONENTS.iter().filter(|component| components.contains(&component.name)) {
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
        install::kubectl(&self.kubeconfig, &["create", "-f", "-"], object.to_string().as_bytes()).context("create")
    }
}
