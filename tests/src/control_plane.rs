//! The processes of a control plane: etcd, API server, controller manager, scheduler, and kwok for nodes and pods.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::certificates::{Authority, token_keys};
use crate::kubeconfig::{self, User};
use crate::process::{Folder, Process};
use crate::programs::control_plane_binary;

/// How long the API server may take to become ready. It takes 3 s on a quiet machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// How simulated nodes and pods behave.
const STAGES: &str = include_str!("../control-plane/stages.yaml");

/// How much of a cluster's own traffic there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As in a cluster: nodes have leases, and a node whose lease lapses is tainted.
    Functional,
    /// No leases and no taints by condition, so that thousands of nodes leave the machine to what is measured.
    Scale,
    /// As functional, and real nodes can join: the API server listens on every address of this machine, is reached by
    /// their pods at [`HOST`], and asks kubelets for logs. kwok keeps to the nodes that are marked as [`PLAYED`].
    RealNodes,
    /// As functional, and pods with one of Kubernetes' critical priority classes are refused in namespaces without a quota for them.
    LimitedPriorities,
}

/// The address under which real nodes and their pods reach this machine. Each has a link of its own to it.
pub const HOST: &str = "10.77.0.1";

/// A control plane. Dropping it ends it and removes everything of it.
#[derive(Debug)]
pub struct ControlPlane {
    /// How to reach it, as in a kubeconfig.
    pub entry: Value,
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// Port of the API server.
    pub port: u16,
    authority: Authority,
    processes: Vec<(&'static str, Process)>,
    folder: Folder,
}

impl ControlPlane {
    /// Starts one. Ports are chosen free; should another process take one at that very moment, it is tried again.
    pub fn start(profile: Profile) -> anyhow::Result<Self> {
        let mut failure = anyhow::anyhow!("never tried");
        for _ in 0..3 {
            match Self::try_start(profile) {
                Ok(control_plane) => return Ok(control_plane),
                Err(error) if format!("{error:#}").contains("address already in use") => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    fn try_start(profile: Profile) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::new()?;
        std::fs::write(at("ca.crt"), authority.pem())?;
        let (private, public) = token_keys()?;
        std::fs::write(at("tokens.key"), private)?;
        std::fs::write(at("tokens.pub"), public)?;
        authority.server()?.write(folder.path(), "apiserver")?;
        let [etcd, peer, apiserver] = free_ports()?;
        let entry = kubeconfig::entry(&format!("https://127.0.0.1:{apiserver}"), &at("ca.crt"));
        for user in ["admin", "controller-manager", "scheduler", "kwok"] {
            authority.administrator(user)?.write(folder.path(), user)?;
            let path = at(&format!("{user}.kubeconfig"));
            kubeconfig::write(&path, &entry, &User::Certificate(&at(user)))?;
        }
        std::fs::write(at("audit.yaml"), include_str!("../control-plane/audit.yaml"))?;
        std::fs::write(at("stages.yaml"), STAGES)?;
        std::fs::write(at("scheduler.yaml"), scheduler_config(&at("scheduler.kubeconfig"))?)?;
        std::fs::write(at("admission.yaml"), limited_priorities().to_string())?;
        std::fs::write(at("kwok.yaml"), serde_json::to_vec(&kwok_options(profile))?)?;

        let kubeconfig = at("admin.kubeconfig");
        let mut this = Self { entry, kubeconfig, port: apiserver, authority, processes: vec![], folder };
        this.run("etcd", &etcd_arguments(this.path(), etcd, peer))?;
        this.run("kube-apiserver", &apiserver_arguments(this.path(), profile, apiserver, etcd))?;
        this.wait_until_ready()?;
        this.run("kube-controller-manager", &controller_manager_arguments(this.path(), profile))?;
        this.run("kube-scheduler", &scheduler_arguments(this.path()))?;
        this.run("kwok", &kwok_arguments(this.path()))?;
        Ok(this)
    }

    /// The folder with its certificates, configurations and logs.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `NAME.crt` and `NAME.key` of a client that the API server knows as `user`, a member of `group`.
    pub fn issue(&self, folder: &Path, name: &str, user: &str, group: &str) -> anyhow::Result<()> {
        Ok(self.authority.client(user, group)?.write(folder, name)?)
    }

    /// The audit log: one JSON object a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.path().join("audit.json")
    }

    /// One of its processes.
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        self.processes.iter_mut().find(|(known, _)| *known == name).map(|(_, process)| process)
    }

    /// Names and process ids of all of them.
    #[must_use]
    pub fn process_ids(&self) -> Vec<(&'static str, u32)> {
        self.processes.iter().map(|(name, process)| (*name, process.id())).collect()
    }

    fn run(&mut self, name: &'static str, arguments: &[String]) -> anyhow::Result<()> {
        let mut command = Command::new(control_plane_binary(name)?);
        command.args(arguments).current_dir(self.path());
        self.processes.push((name, Process::start(&mut command, &self.path().join(format!("{name}.log")))?));
        Ok(())
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let kubectl = control_plane_binary("kubectl")?;
        let begun = Instant::now();
        loop {
            let mut probe = Command::new(&kubectl);
            probe.args(["get", "--raw", "/readyz"]).env("KUBECONFIG", &self.kubeconfig);
            if probe.output().context("could not run kubectl")?.status.success() {
                return Ok(());
            }
            if let Some((name, process)) = self
                .processes
                .iter_mut()
                .find_map(|(name, process)| process.ended().is_some().then_some((name, process)))
            {
                bail!("{name} ended at start:\n{}", process.tail());
            }
            if begun.elapsed() > PATIENCE {
                let logs: Vec<_> =
                    self.processes.iter().map(|(name, process)| format!("{name}:\n{}", process.tail())).collect();
                bail!("the API server was not ready after {} s\n{}", PATIENCE.as_secs(), logs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Ports that nobody listens on now. All of them are held before the first is let go, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<_, _>>()?;
    let ports: Vec<_> =
        listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<Result<_, std::io::Error>>()?;
    ports.try_into().ok().context("a port for each")
}

/// `--name=value` for each, files relative to the control plane's folder.
fn flags<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn etcd_arguments(folder: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    flags([
        ("name", "testbed"),
        ("data-dir", &folder.join("etcd").display().to_string()),
        // A cluster that lives for minutes needs no disk.
        ("unsafe-no-fsync", "true"),
        ("quota-backend-bytes", "8589934592"),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("testbed={peer}")),
        ("log-level", "warn"),
    ])
}

fn apiserver_arguments(folder: &Path, profile: Profile, port: u16, etcd: u16) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut arguments = flags([
        ("etcd-servers", &format!("http://127.0.0.1:{etcd}")),
        ("secure-port", &port.to_string()),
        ("tls-cert-file", &at("apiserver.crt")),
        ("tls-private-key-file", &at("apiserver.key")),
        ("client-ca-file", &at("ca.crt")),
        ("service-account-key-file", &at("tokens.pub")),
        ("service-account-signing-key-file", &at("tokens.key")),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-cluster-ip-range", "10.96.0.0/16"),
        ("authorization-mode", "Node,RBAC"),
        ("anonymous-auth", "false"),
        ("allow-privileged", "true"),
        ("audit-policy-file", &at("audit.yaml")),
        ("audit-log-path", &at("audit.json")),
        ("audit-log-maxsize", "4000"),
    ]);
    match profile {
        Profile::RealNodes => arguments.extend(flags([
            ("bind-address", "0.0.0.0"),
            ("advertise-address", HOST),
            // The Service `kubernetes` gets a real endpoint.
            ("endpoint-reconciler-type", "lease"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("kubelet-client-certificate", &at("admin.crt")),
            ("kubelet-client-key", &at("admin.key")),
            ("kubelet-preferred-address-types", "InternalIP"),
        ])),
        Profile::Functional | Profile::Scale | Profile::LimitedPriorities => arguments.extend(flags([
            ("bind-address", "127.0.0.1"),
            ("advertise-address", "127.0.0.1"),
            ("endpoint-reconciler-type", "none"),
        ])),
    }
    if profile == Profile::LimitedPriorities {
        arguments.push(format!("--admission-control-config-file={}", at("admission.yaml")));
    }
    if profile == Profile::Scale {
        // Nobody is there to take the taint away again.
        arguments.push("--disable-admission-plugins=TaintNodesByCondition".into());
    }
    arguments
}

/// Source: Kubernetes' documentation of resource quotas, "Limit Priority Class consumption by default".
fn limited_priorities() -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{"name": "ResourceQuota", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "ResourceQuotaConfiguration",
            "limitedResources": [{"resource": "pods", "matchScopes": [{
                "scopeName": "PriorityClass",
                "operator": "In",
                "values": ["system-cluster-critical", "system-node-critical"],
            }]}],
        }}],
    })
}

fn controller_manager_arguments(folder: &Path, profile: Profile) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut controllers = vec![
        "clusterrole-aggregation-controller",
        "daemonset-controller",
        "deployment-controller",
        "disruption-controller",
        "garbage-collector-controller",
        "namespace-controller",
        "pod-garbage-collector-controller",
        "replicaset-controller",
        "root-ca-certificate-publisher-controller",
        "serviceaccount-controller",
        "serviceaccount-token-controller",
    ];
    if profile == Profile::LimitedPriorities {
        controllers.push("resourcequota-controller");
    }
    if profile != Profile::Scale {
        controllers.extend(["node-lifecycle-controller", "taint-eviction-controller"]);
    }
    let kubeconfig = at("controller-manager.kubeconfig");
    flags([
        ("kubeconfig", &kubeconfig),
        ("secure-port", "0"),
        ("leader-elect", "false"),
        ("root-ca-file", &at("ca.crt")),
        ("service-account-private-key-file", &at("tokens.key")),
        ("use-service-account-credentials", "true"),
        ("kube-api-qps", "1000"),
        ("kube-api-burst", "2000"),
        ("concurrent-daemonset-syncs", "4"),
        ("controllers", &controllers.join(",")),
    ])
}

fn scheduler_arguments(folder: &Path) -> Vec<String> {
    flags([("config", &folder.join("scheduler.yaml").display().to_string()), ("secure-port", "0")])
}

fn scheduler_config(kubeconfig: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig, "qps": 1000, "burst": 2000},
        "leaderElection": {"leaderElect": false},
        "parallelism": 2,
        "podInitialBackoffSeconds": 1,
        "podMaxBackoffSeconds": 2,
    }))?)
}

fn kwok_arguments(folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", at("kwok.kubeconfig")),
        format!("--config={}", at("kwok.yaml")),
        format!("--config={}", at("stages.yaml")),
    ]
}

/// The annotation of nodes that kwok plays in a cluster with nodes of its own.
pub const PLAYED: (&str, &str) = ("kwok.x-k8s.io/node", "fake");

/// Starts kwok in somebody else's cluster, for the nodes that are marked for it and no others.
pub fn start_kwok(kubeconfig: &Path, folder: &Path) -> anyhow::Result<Process> {
    std::fs::copy(kubeconfig, folder.join("kwok.kubeconfig"))?;
    std::fs::write(folder.join("stages.yaml"), STAGES)?;
    std::fs::write(folder.join("kwok.yaml"), serde_json::to_vec(&kwok_options(Profile::RealNodes))?)?;
    let mut command = Command::new(control_plane_binary("kwok")?);
    Process::start(command.args(kwok_arguments(folder)).current_dir(folder), &folder.join("kwok.log"))
}

fn kwok_options(profile: Profile) -> Value {
    let mut config = json!({
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": {
            "manageAllNodes": true,
            "nodeLeaseDurationSeconds": if profile == Profile::Scale { 0 } else { 40 },
            "podPlayStageParallelism": 16,
            "nodePlayStageParallelism": 16,
            // Even without leases kwok ends when this is 0.
            "nodeLeaseParallelism": 8,
            "podsOnNodeSyncParallelism": 4,
            "enableDebuggingHandlers": false,
        },
    });
    if profile == Profile::RealNodes {
        config["options"]["manageAllNodes"] = false.into();
        config["options"]["manageNodesWithAnnotationSelector"] = format!("{}={}", PLAYED.0, PLAYED.1).into();
    }
    config
}
