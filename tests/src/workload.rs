//! Pods of somebody who uses NPUs: what is in the way when a driver is to be replaced.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::Access;
use crate::access::config_for;
use crate::nodes::ATOM;
use crate::wait::{Wait, eventually};

/// Where workloads live.
pub const NAMESPACE: &str = "default";

/// The driver of NPUs that are allocated by claims.
pub const DRA_DRIVER: &str = "npu.rebellions.ai";

/// Who would make a pod anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody.
    None,
    /// A Job that makes no pods, because its controller does not run here.
    Job,
}

/// A pod to be created on a node. Unless told, it requests one NPU, and a Job owns it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Workload {
    name: String,
    node: String,
    owner: Owner,
    pod: Value,
    budget: Option<Value>,
    claim: bool,
}

impl Workload {
    /// A pod that requests an NPU.
    pub fn npu(name: &str, node: &str) -> Self {
        let mut workload = Self::plain(name, node);
        let npu = json!({"requests": {ATOM: "1"}, "limits": {ATOM: "1"}});
        workload.pod["spec"]["containers"][0]["resources"] = npu;
        workload
    }

    /// A pod that requests nothing.
    pub fn plain(name: &str, node: &str) -> Self {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"workload": name}, "annotations": {}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "registry.example/workload:1"}],
            },
        });
        Self { name: name.into(), node: node.into(), owner: Owner::Job, pod, budget: None, claim: false }
    }

    /// Its NPU is requested by an init container only.
    pub fn in_init_container(mut self) -> Self {
        let spec = &mut self.pod["spec"];
        let resources = spec["containers"][0]["resources"].take();
        spec["initContainers"] = json!([{"name": "init", "image": "registry.example/init:1", "resources": resources}]);
        spec["containers"][0]["resources"] = json!({});
        self
    }

    /// Its NPU is allocated by a `ResourceClaim`, in place of a request.
    pub fn by_claim(mut self) -> Self {
        let spec = &mut self.pod["spec"];
        spec["resourceClaims"] = json!([{"name": "npu", "resourceClaimName": self.name}]);
        spec["containers"][0]["resources"] = json!({"claims": [{"name": "npu"}]});
        self.claim = true;
        self
    }

    /// Nobody would make it anew.
    pub fn bare(mut self) -> Self {
        self.owner = Owner::None;
        self
    }

    /// It keeps data in an emptyDir.
    pub fn with_empty_dir(mut self) -> Self {
        let spec = &mut self.pod["spec"];
        spec["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
        self
    }

    /// With a further label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.pod["metadata"]["labels"][key] = value.into();
        self
    }

    /// A disruption budget never allows that it is evicted.
    pub fn never_disrupted(mut self) -> Self {
        self.budget = Some(json!({"minAvailable": 1}));
        self
    }

    /// It needs this long to end, such as `5s`.
    pub fn ends_after(mut self, time: &str) -> Self {
        self.pod["metadata"]["annotations"]["sim.test/term"] = time.into();
        self
    }

    /// Its containers never end.
    pub fn never_ends(mut self) -> Self {
        self.pod["metadata"]["annotations"]["sim.test/stuck"] = "true".into();
        self
    }

    /// Something else keeps the object when its containers have ended; see [`Access::release`].
    pub fn with_finalizer(mut self) -> Self {
        self.pod["metadata"]["finalizers"] = json!(["example.com/kept"]);
        self
    }

    /// Creates it and waits until it is ready, which takes that its node is played, and until its budget is in force.
    pub async fn create(mut self, access: &Access) -> anyhow::Result<()> {
        if self.owner == Owner::Job {
            self.pod["metadata"]["ownerReferences"] = json!([self.job(access)?]);
        }
        if self.claim {
            self.allocate(access)?;
        }
        access.create(&self.pod)?;
        let api = access.namespaced::<Pod>(NAMESPACE);
        eventually(&format!("pod {} to be ready on {}", self.name, self.node), async || {
            let pod = api.get_opt(&self.name).await.ok().flatten();
            Wait::until(pod.as_ref().is_some_and(crate::kubelet::is_ready), |ready| *ready)
        })
        .await;
        if let Some(budget) = self.budget.take() {
            self.protect(access, budget).await?;
        }
        Ok(())
    }

    /// A Job of its name, as the reference of an owner.
    fn job(&self, access: &Access) -> anyhow::Result<Value> {
        let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example/workload:1"}]}});
        access.create(&json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": {"template": template}}))?;
        let uid = access.kubectl(&["get", "job", &self.name, "-n", NAMESPACE, "-o", "jsonpath={.metadata.uid}"])?;
        Ok(json!({"apiVersion": "batch/v1", "kind": "Job", "name": self.name, "uid": uid.trim(), "controller": true}))
    }

    /// A claim of its name, allocated as by the scheduler.
    fn allocate(&self, access: &Access) -> anyhow::Result<()> {
        let request = json!({"name": "npu", "exactly": {"deviceClassName": DRA_DRIVER}});
        access.create(&json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": {"devices": {"requests": [request]}}}))?;
        let result = json!({"request": "npu", "driver": DRA_DRIVER, "pool": self.node, "device": "npu-0"});
        let patch = json!({"status": {"allocation": {"devices": {"results": [result]}}}}).to_string();
        let arguments = ["patch", "resourceclaim", &self.name, "-n", NAMESPACE, "--subresource=status", "--type=merge"];
        access.kubectl(&[arguments.as_slice(), &["-p", &patch]].concat()).context("allocate a claim")?;
        Ok(())
    }

    /// A disruption budget of its name, and waits until the disruption controller has counted its pods.
    async fn protect(&self, access: &Access, budget: Value) -> anyhow::Result<()> {
        let mut spec = budget;
        spec["selector"] = json!({"matchLabels": {"workload": self.name}});
        access.create(&json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": spec}))?;
        let seen = "jsonpath={.status.observedGeneration} {.status.currentHealthy} {.status.disruptionsAllowed}";
        eventually(&format!("the budget of {} to be in force", self.name), async || {
            let status = access.kubectl(&["get", "pdb", &self.name, "-n", NAMESPACE, "-o", seen]);
            Wait::until(status.unwrap_or_default(), |status| status == "1 1 0")
        })
        .await;
        Ok(())
    }
}

impl Access {
    /// The workload pods that are there and not ending, by name, in order.
    pub async fn workloads(&self) -> Vec<String> {
        let pods = self.namespaced::<Pod>(NAMESPACE).list(&ListParams::default()).await;
        let pods = pods.map(|list| list.items).unwrap_or_default();
        let living = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        living.map(|pod| pod.name_any()).collect()
    }

    /// Asks for an eviction, once: a client that tries again by itself would take minutes to tell of a refusal.
    pub async fn evict(&self, pod: &str) -> Result<(), kube::Error> {
        let mut config = config_for(&self.kubeconfig).await.map_err(|error| kube::Error::Service(error.into()))?;
        config.default_retry = false;
        let pods = Api::<Pod>::namespaced(Client::try_from(config)?, NAMESPACE);
        pods.evict(pod, &EvictParams::default()).await.map(drop)
    }

    /// Takes a pod's finalizers away.
    pub async fn release(&self, pod: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.namespaced::<Pod>(NAMESPACE).patch(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Takes a workload's disruption budget away.
    pub fn unprotect(&self, workload: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "pdb", workload, "-n", NAMESPACE]).map(drop)
    }
}
