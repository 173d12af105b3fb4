//! Simulated machines: nodes with a chosen system and NPUs, whose pods are played by [`crate::Kubelets`].

use std::collections::BTreeMap;

use accelerator_api::contract::WORKLOAD_CONFIG_LABEL;
use k8s_openapi::api::core::v1::Node;

use super::{DISCOVERED, create_with};
use crate::Access;

/// Names of machines end like this: what marks them for [`crate::Kubelets`], and keeps kwok from playing their pods.
pub const SUFFIX: &str = ".sim";

/// Annotation of a machine: the NPUs that its device plugin advertises, as `rebellions.ai/ATOM=8`.
pub const NPUS: &str = "sim.test/npus";

/// Annotation of a machine whose host has the driver: NPUs need no driver pod.
pub const HOST_DRIVER: &str = "sim.test/host-driver";

/// The resource that NPUs are advertised as, unless a machine says otherwise.
pub const ATOM: &str = "rebellions.ai/ATOM";

/// Machines to be created, all alike.
#[must_use]
pub struct Machines<'a> {
    access: &'a Access,
    prefix: String,
    count: usize,
    kernel: String,
    os: (String, String),
    arch: String,
    mode: String,
    npus: Option<(String, u64)>,
    has_host_driver: bool,
    is_discovered: bool,
    labels: BTreeMap<String, String>,
}

impl Access {
    /// Machines named `PREFIX-0.sim` and so on: Ubuntu 22.04 on amd64 with 8 NPUs, in the mode `container`, labelled by Node
    /// Feature Discovery.
    pub fn machines(&self, prefix: &str) -> Machines<'_> {
        Machines {
            access: self,
            prefix: prefix.into(),
            count: 1,
            kernel: "5.15.0-130-generic".into(),
            os: ("ubuntu".into(), "22.04".into()),
            arch: "amd64".into(),
            mode: "container".into(),
            npus: Some((ATOM.into(), 8)),
            has_host_driver: false,
            is_discovered: true,
            labels: BTreeMap::new(),
        }
    }
}

impl Machines<'_> {
    /// How many; one unless told.
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// The release of their kernel, such as `5.15.0-130-generic`.
    pub fn kernel(mut self, release: &str) -> Self {
        self.kernel = release.into();
        self
    }

    /// `ID` and `VERSION_ID` of their os-release, such as `rhel` and `9.4`.
    pub fn os(mut self, id: &str, version: &str) -> Self {
        self.os = (id.into(), version.into());
        self
    }

    /// Their architecture as Kubernetes spells it, such as `arm64`.
    pub fn arch(mut self, arch: &str) -> Self {
        self.arch = arch.into();
        self
    }

    /// Their mode; an empty one is none.
    pub fn mode(mut self, mode: &str) -> Self {
        self.mode = mode.into();
        self
    }

    /// How many NPUs their device plugin advertises, and as which resource. Zero: it never advertises any.
    pub fn npus(mut self, resource: &str, count: u64) -> Self {
        self.npus = (count > 0).then(|| (resource.into(), count));
        self
    }

    /// Their host has the driver: NPUs need no driver pod.
    pub fn with_host_driver(mut self) -> Self {
        self.has_host_driver = true;
        self
    }

    /// Without any label of Node Feature Discovery; what they are is in `status.nodeInfo` alone.
    pub fn without_discovery(mut self) -> Self {
        self.is_discovered = false;
        self
    }

    /// With a further label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Creates them. Returns their names.
    pub async fn create(self) -> anyhow::Result<Vec<String>> {
        let names: Vec<_> = (0..self.count).map(|number| format!("{}-{number}{SUFFIX}", self.prefix)).collect();
        let labels = self.all_labels();
        create_with(&self.access.client, names.clone(), &labels, |node| self.furnish(node)).await?;
        Ok(names)
    }

    fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::from([
            ("kubernetes.io/arch".to_owned(), self.arch.clone()),
            ("beta.kubernetes.io/arch".to_owned(), self.arch.clone()),
        ]);
        if self.is_discovered {
            labels.insert(DISCOVERED.into(), "true".into());
            labels.extend(system_labels(&self.kernel, &self.os.0, &self.os.1));
        }
        if !self.mode.is_empty() {
            labels.insert(WORKLOAD_CONFIG_LABEL.into(), self.mode.clone());
        }
        labels.extend(self.labels.clone());
        labels
    }

    fn furnish(&self, node: &mut Node) {
        let annotations = node.metadata.annotations.get_or_insert_default();
        if let Some((resource, count)) = &self.npus {
            annotations.insert(NPUS.into(), format!("{resource}={count}"));
        }
        if self.has_host_driver {
            annotations.insert(HOST_DRIVER.into(), "true".into());
        }
        let info = node.status.as_mut().and_then(|status| status.node_info.as_mut());
        if let Some(info) = info {
            info.kernel_version.clone_from(&self.kernel);
            info.architecture.clone_from(&self.arch);
            info.os_image = os_image(&self.os.0, &self.os.1);
            info.boot_id = format!("{}-boot-1", info.machine_id);
        }
    }
}

/// Node Feature Discovery's labels about a machine's system.
#[must_use]
pub fn system_labels(kernel: &str, os: &str, version: &str) -> BTreeMap<String, String> {
    [
        ("feature.node.kubernetes.io/kernel-version.full", kernel),
        ("feature.node.kubernetes.io/system-os_release.ID", os),
        ("feature.node.kubernetes.io/system-os_release.VERSION_ID", version),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// `PRETTY_NAME` of the os-release of some systems, which is what a kubelet reports.
fn os_image(id: &str, version: &str) -> String {
    match (id, version) {
        ("ubuntu", "22.04") => "Ubuntu 22.04.5 LTS".into(),
        ("ubuntu", "24.04") => "Ubuntu 24.04.3 LTS".into(),
        ("ubuntu", _) => format!("Ubuntu {version}"),
        ("debian", "12") => "Debian GNU/Linux 12 (bookworm)".into(),
        ("rhel", _) if version.starts_with("9.") => format!("Red Hat Enterprise Linux {version} (Plow)"),
        ("rhel", _) => format!("Red Hat Enterprise Linux {version} (Ootpa)"),
        _ => format!("{id} {version}"),
    }
}
