//! Which pools there are, which node belongs to which, and what has to change for that.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{DRIVER, DRIVER_POOL_LABEL, NPU_FAMILY_LABEL};
use accelerator_api::{DriverSpec, Reason};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;

use crate::image_tag::{ImageTemplate, Variable};
use crate::install::{History, Install};
use crate::node::NodeView;
use crate::pods::DriverPod;
use crate::pool::{PoolKey, daemon_set_name, prefix};

/// The driver that the spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is installed, but for its image, which depends on the node.
    install: Install,
    image: ImageTemplate,
}

impl Request {
    /// What a section asks for. `rendered` is the DaemonSet that it renders to, with the default image's tag.
    #[must_use]
    pub fn of(section: &DriverSpec, rendered: &DaemonSet) -> Option<Self> {
        let install = Install::of(rendered.spec.as_ref()?.template.spec.as_ref()?)?;
        let image = ImageTemplate::of(section, &install.image);
        Some(Self { install, image })
    }

    /// Whether every node gets the same image, so that there are no pools.
    #[must_use]
    pub fn is_uniform(&self) -> bool {
        self.image.variables().next().is_none()
    }
}

/// A DaemonSet of the driver that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// The pool that it serves; `None` for `rebellions-driver`.
    pub pool: Option<String>,
    /// What it installs.
    pub history: History,
}

impl Existing {
    /// Reads one; `None` when it is none of the driver's by its name.
    #[must_use]
    pub fn of(live: &DaemonSet) -> Option<Self> {
        let name = live.name_any();
        let pool = name.strip_prefix(&prefix()).map(str::to_owned);
        (pool.is_some() || name == DRIVER.operand)
            .then(|| Self { pool, history: History::of(live).unwrap_or_default() })
    }
}

/// Nodes that need the same image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// What makes it.
    pub key: PoolKey,
    /// Its name; `None` when one DaemonSet serves every node.
    pub name: Option<String>,
    /// What its DaemonSet installs, which after a rollback is not what the spec asks for, and what it installed before.
    pub history: History,
    /// Digest of what it installs.
    pub digest: String,
    /// Names of its nodes, in order.
    pub nodes: Vec<String>,
}

/// What a node is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This driver.
    Install {
        /// The pool whose DaemonSet is to serve it; `None` for `rebellions-driver`.
        pool: Option<String>,
        /// Digest of what is installed.
        digest: String,
    },
    /// It is not known which. What the node runs stays; with the reason, also for people, without the node's name.
    Unknown(Reason, String),
    /// None.
    Nothing,
}

/// A change of the pool label of a node that disturbs nothing on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Name of the node.
    pub node: String,
    /// The label's value from now on; `None` when it is removed.
    pub pool: Option<String>,
}

/// A DaemonSet that is not wanted any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Whether its pods stay: they run a driver that may be right.
    pub keeps_pods: bool,
}

/// A pod that no DaemonSet will ever replace, and whose end disturbs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Name of the pod.
    pub name: String,
    /// Its identity.
    pub uid: String,
}

/// What is wanted, and what has to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pools {
    /// Every pool that has nodes, in the order of keys; the one without a name also when it has none.
    pub wanted: Vec<Pool>,
    /// What each node is to run, by its name.
    pub targets: BTreeMap<String, Target>,
    /// Pool labels to write now. Those of other nodes change when their driver is replaced.
    pub moves: Vec<Move>,
    /// DaemonSets to delete now.
    pub removals: Vec<Removal>,
    /// Pods to delete now.
    pub leftovers: Vec<Leftover>,
}

/// Decides. `request` is `None` when no driver is wanted on any node. Nodes, pods and DaemonSets have to be all that there are: what is
/// not known counts as gone.
#[must_use]
pub fn pools(request: Option<&Request>, nodes: &[&NodeView], pods: &[&DriverPod], existing: &[Existing]) -> Pools {
    let mut pools = Pools::default();
    // Every pool with its image and its nodes.
    let mut members: BTreeMap<PoolKey, (String, Vec<String>)> = BTreeMap::new();
    if let Some(request) = request.filter(|request| request.is_uniform()) {
        members.insert(PoolKey::default(), (request.install.image.clone(), vec![]));
    }
    for node in nodes {
        let target =
            match request.filter(|_| node.deploys_driver && !node.is_deleted).map(|request| assign(request, node)) {
                None => Target::Nothing,
                Some(Err((reason, why))) => Target::Unknown(reason, why),
                Some(Ok((key, image))) => {
                    members.entry(key).or_insert_with(|| (image, vec![])).1.push(node.name.clone());
                    continue;
                }
            };
        pools.targets.insert(node.name.clone(), target);
    }
    for (key, (image, nodes)) in members {
        let install = request.map(|request| Install { image, ..request.install.clone() }).unwrap_or_default();
        let pool = pool(key, install, nodes, pods, existing);
        for node in &pool.nodes {
            let target = Target::Install { pool: pool.name.clone(), digest: pool.digest.clone() };
            pools.targets.insert(node.clone(), target);
        }
        pools.wanted.push(pool);
    }
    let by_node = by_node(pods);
    for node in nodes {
        relabel(node, by_node.get(node.name.as_str()).map_or(&[], Vec::as_slice), &mut pools);
    }
    pools.removals = removals(request, &pools.wanted, nodes, pods, existing);
    pools
}

fn by_node<'a>(pods: &[&'a DriverPod]) -> BTreeMap<&'a str, Vec<&'a DriverPod>> {
    pods.iter().fold(BTreeMap::new(), |mut all: BTreeMap<_, Vec<_>>, pod| {
        all.entry(pod.node.as_str()).or_default().push(*pod);
        all
    })
}

/// The pool of a node and its image, or why it has none.
fn assign(request: &Request, node: &NodeView) -> Result<(PoolKey, String), (Reason, String)> {
    let mut key = PoolKey::default();
    for variable in request.image.variables() {
        match variable {
            Variable::Family => key.family = Some(family(node)?),
            Variable::Os => key.os = Some(known(node.os.as_ref(), "operating system")?),
            Variable::Kernel => key.kernel = Some(known(node.kernel.as_ref(), "kernel")?),
            Variable::Arch => key.arch = Some(known(node.arch.as_ref(), "architecture")?),
        }
    }
    let image = request.image.image(|variable| key.value(variable).to_owned());
    let image = image.map_err(|why| (Reason::DriverImageMissing, why))?;
    Ok((key, image))
}

fn known(value: Option<&String>, what: &str) -> Result<String, (Reason, String)> {
    value.cloned().ok_or_else(|| {
        let why = format!(
            "its {what}, which the tag of the driver's image needs, is not known from labels of Node Feature Discovery \
             or from status.nodeInfo"
        );
        (Reason::KernelUnknown, why)
    })
}

fn family(node: &NodeView) -> Result<String, (Reason, String)> {
    let why = match node.families.as_slice() {
        [family] => return Ok(family.clone()),
        [] => format!(
            "the family of its NPUs, which the driver's image needs, is not known: neither a label {NPU_FAMILY_LABEL} nor one of \
             Node Feature Discovery with a known PCI device id is there"
        ),
        families => format!(
            "it has NPUs of {} families ({}), and the driver's image is for one",
            families.len(),
            families.join(", ")
        ),
    };
    Err((Reason::FamilyUnknown, why))
}

fn pool(key: PoolKey, asked: Install, nodes: Vec<String>, pods: &[&DriverPod], existing: &[Existing]) -> Pool {
    let name = key.name();
    let before = existing.iter().find(|one| one.pool == name).map(|one| &one.history);
    let is_good = before.is_some_and(|before| {
        let current = before.current.digest();
        pods.iter().any(|pod| pod.is_ready && pod.install == current)
    });
    let history = History::next(before, asked, is_good);
    Pool { key, name, digest: history.current.digest(), history, nodes }
}

/// Changes the label of a node where that disturbs nothing.
fn relabel(node: &NodeView, pods: &[&DriverPod], pools: &mut Pools) {
    let wanted = match pools.targets.get(&node.name) {
        Some(Target::Install { pool, .. }) => pool,
        Some(Target::Nothing) => &None,
        Some(Target::Unknown(..)) | None => return,
    };
    if *wanted == node.pool || !pods.iter().all(|pod| is_idle(pod, node)) {
        return;
    }
    // The DaemonSet that made these is deleted; nobody else ends them, and two drivers must not run on a node.
    let left: Vec<_> = pods.iter().filter(|pod| wanted.is_some() && pod.pool.is_none()).collect();
    if left.is_empty() {
        pools.moves.push(Move { node: node.name.clone(), pool: wanted.clone() });
    }
    let staying = left.into_iter().filter(|pod| !pod.is_terminating);
    pools.leftovers.extend(staying.map(|pod| Leftover { name: pod.name.clone(), uid: pod.uid.clone() }));
}

/// Whether the driver of this pod is not in use: it has never been loaded, or is for another kernel than the node runs.
fn is_idle(pod: &DriverPod, node: &NodeView) -> bool {
    let is_for_another_kernel = pod.kernel.as_ref().zip(node.kernel.as_ref()).is_some_and(|(pod, node)| pod != node);
    !pod.has_begun || is_for_another_kernel
}

fn removals(
    request: Option<&Request>,
    wanted: &[Pool],
    nodes: &[&NodeView],
    pods: &[&DriverPod],
    existing: &[Existing],
) -> Vec<Removal> {
    let wanted: BTreeSet<_> = wanted.iter().map(|pool| pool.name.as_deref()).collect();
    let used = nodes.iter().map(|node| node.pool.as_deref()).chain(pods.iter().map(|pod| pod.pool.as_deref()));
    let used: BTreeSet<_> = used.collect();
    let is_over =
        |pool: Option<&str>| request.is_none() || !wanted.contains(&pool) && (pool.is_none() || !used.contains(&pool));
    let over = existing.iter().map(|one| one.pool.as_deref()).filter(|pool| is_over(*pool));
    over.map(|pool| Removal { name: daemon_set_name(pool), keeps_pods: request.is_some() }).collect()
}

/// The merge patch that a move is.
#[must_use]
pub fn patch(change: &Move, version: u64) -> serde_json::Value {
    serde_json::json!({"metadata": {"resourceVersion": version.to_string(), "labels": {DRIVER_POOL_LABEL: change.pool}}})
}

#[cfg(test)]
mod tests;
