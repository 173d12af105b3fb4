//! The configuration files of a node's programs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testbed::kubeconfig::{self, User};
use testbed::{ControlPlane, HOST};

use super::spec::Spec;

/// Where the node finds this folder.
pub const FOLDER: &str = "/etc/node";

/// Where containerd looks for what to ask in place of a registry.
pub const REGISTRIES: &str = "/etc/containerd/certs.d";

/// How the node reaches the API server.
pub struct Server<'a> {
    /// Its address from the node.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
}

/// Writes everything that a node of this control plane needs into `folder`.
pub fn write(spec: &Spec, control_plane: &ControlPlane, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("cni"))?;
    let server = Server { address: HOST, port: control_plane.port };
    write_identities(&spec.name, control_plane, &server, folder)?;
    let write = |name: &str, config: &Value| fs::write(folder.join(name), config.to_string());
    write("kubelet.yaml", &kubelet(&format!("/{}", spec.control_group())))?;
    write("kube-proxy.yaml", &kube_proxy())?;
    write("cni/10-pods.conflist", &pod_network(&spec.pod_subnet()))?;
    fs::write(folder.join("containerd.toml"), containerd())?;
    Ok(())
}

/// Certificates and kubeconfigs of kubelet and kube-proxy.
pub fn write_identities(
    node: &str,
    control_plane: &ControlPlane,
    server: &Server<'_>,
    folder: &Path,
) -> anyhow::Result<()> {
    fs::copy(control_plane.path().join("ca.crt"), folder.join("ca.crt"))?;
    let (node, proxy) = (format!("system:node:{node}"), "system:kube-proxy");
    let inside = Path::new(FOLDER);
    let mut entry = kubeconfig::entry(&format!("https://{}:{}", server.address, server.port), &inside.join("ca.crt"));
    entry["tls-server-name"] = "kubernetes".into();
    for (name, user, group) in
        [("kubelet", node.as_str(), "system:nodes"), ("kube-proxy", proxy, "system:node-proxier")]
    {
        control_plane.issue(folder, name, user, group)?;
        let file = folder.join(format!("{name}.kubeconfig"));
        kubeconfig::write(&file, &entry, &User::Certificate(&inside.join(name)))?;
    }
    Ok(())
}

/// The kubelet's configuration; its pods live below `control_group`.
#[must_use]
pub fn kubelet(control_group: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{FOLDER}/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": control_group,
        // A machine whose control groups are of version 1 can still run a node.
        "failCgroupV1": false,
        "failSwapOn": false,
        // Root without CAP_SYS_RESOURCE may not lower it.
        "oomScoreAdj": 0,
        "maxOpenFiles": 65536,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": false,
        // How full this machine's disk is, is not the node's business.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
    })
}

fn kube_proxy() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": format!("{FOLDER}/kube-proxy.kubeconfig")},
        // These are settings of the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}

/// Where pods get their addresses and routes from.
#[must_use]
pub fn pod_network(subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni-ipam",
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// containerd's configuration.
#[must_use]
pub fn containerd() -> String {
    format!(
        r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{REGISTRIES}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{FOLDER}/cni"
"#,
        pause = crate::images::PAUSE
    )
}
