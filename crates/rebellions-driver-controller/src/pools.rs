//! Which pools there are, which node belongs to which, and what has to change for that.

mod assign;
mod changes;

use std::collections::{BTreeMap, HashMap};

use accelerator_api::contract::DRIVER;
use accelerator_api::{ComponentSpec, DriverSpec, Reason};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::ResourceExt;

use crate::image_tag::ImageTemplate;
use crate::install::{History, Install};
use crate::node::NodeView;
use crate::pods::DriverPod;
use crate::pool::{PoolKey, prefix};

use assign::assign;
pub use changes::patch;

/// The driver that the spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is installed, but for its image, which depends on the node.
    install: Install,
    image: ImageTemplate,
    /// What it asks of nodes, and nothing else.
    selection: ComponentSpec,
}

impl Request {
    /// What a section asks for. `rendered` is the DaemonSet that it renders to, with the default image's tag.
    #[must_use]
    pub fn of(section: &DriverSpec, rendered: &DaemonSet) -> Option<Self> {
        let install = Install::of(rendered.spec.as_ref()?.template.spec.as_ref()?)?;
        let image = ImageTemplate::of(section, &install.image);
        let ComponentSpec { node_selector, affinity, .. } = section.component.clone();
        Some(Self { install, image, selection: ComponentSpec { node_selector, affinity, ..ComponentSpec::default() } })
    }

    /// Whether a node is to run a driver at all. One that the spec's node selector or affinity leaves out is like one without the
    /// deploy label: its DaemonSet ends the pod, and no upgrade waits for it.
    fn is_for(&self, node: &NodeView) -> bool {
        node.deploys_driver && !node.is_deleted && self.selection.rejection(&node.labels).is_none()
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
    /// Whether it is being deleted: it neither makes nor ends pods any more, and one whose pods run on is there until each of them
    /// has been told, which takes minutes where there are thousands.
    pub is_ending: bool,
}

/// What the DaemonSets that exist install, by pool, but for those that are being deleted.
#[must_use]
pub fn installed(existing: &[Existing]) -> BTreeMap<Option<String>, String> {
    let kept = existing.iter().filter(|one| !one.is_ending);
    kept.map(|one| (one.pool.clone(), one.history.current.digest())).collect()
}

impl Existing {
    /// Reads one; `None` when it is none of the driver's by its name.
    #[must_use]
    pub fn of(live: &DaemonSet) -> Option<Self> {
        let name = live.name_any();
        let pool = name.strip_prefix(&prefix()).map(str::to_owned);
        let is_ending = live.metadata.deletion_timestamp.is_some();
        (pool.is_some() || name == DRIVER.operand).then(|| Self {
            pool,
            history: History::of(live).unwrap_or_default(),
            is_ending,
        })
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

/// A pod without a DaemonSet, which nobody else would end: where no driver is wanted, or whose end disturbs nothing.
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
    let mut members: BTreeMap<PoolKey, Vec<String>> = BTreeMap::new();
    if request.is_some_and(Request::is_uniform) {
        members.insert(PoolKey::default(), vec![]);
    }
    for node in nodes {
        let target = match request.filter(|one| one.is_for(node)).map(|one| assign(one, node)) {
            None => Target::Nothing,
            Some(Err((reason, why))) => Target::Unknown(reason, why),
            Some(Ok(key)) => {
                members.entry(key).or_default().push(node.name.clone());
                continue;
            }
        };
        pools.targets.insert(node.name.clone(), target);
    }
    if let Some(request) = request {
        pools.add(request, members, pods, existing);
    }
    pools.removals = changes::removals(request, &pools.wanted, nodes, pods, existing);
    (pools.moves, pools.leftovers) = changes::moves(&pools, nodes, pods, existing);
    pools
}

impl Request {
    /// What is installed on the nodes of a pool, or why that cannot be.
    fn asked(&self, key: &PoolKey) -> Result<Install, String> {
        let image = self.image.image(|variable| key.value(variable).into())?;
        Ok(Install { image, ..self.install.clone() })
    }
}

impl Pools {
    /// Adds the pools of these nodes. What was given up for one pool is given up for all: a controller that ended between the writes of
    /// two DaemonSets would else leave the second with what failed.
    fn add(
        &mut self,
        request: &Request,
        members: BTreeMap<PoolKey, Vec<String>>,
        pods: &[&DriverPod],
        existing: &[Existing],
    ) {
        let before: HashMap<_, _> = existing.iter().map(|one| (one.pool.clone(), &one.history)).collect();
        let has_given_up = |key: &PoolKey| {
            let before = before.get(&key.name());
            before.zip(request.asked(key).ok()).is_some_and(|(before, asked)| before.has_given_up(&asked))
        };
        let is_given_up = members.keys().any(has_given_up);
        for (key, nodes) in members {
            let target = match request.asked(&key) {
                Err(why) => Target::Unknown(Reason::DriverImageMissing, why),
                Ok(asked) => {
                    let before = before.get(&key.name()).map(|before| (*before).clone());
                    let fails = before.as_ref().filter(|before| is_given_up && before.current == asked);
                    let before = fails.and_then(History::roll_back).or(before);
                    let pool = pool(key, asked, nodes.clone(), pods, before.as_ref());
                    let target = Target::Install { pool: pool.name.clone(), digest: pool.digest.clone() };
                    self.wanted.push(pool);
                    target
                }
            };
            self.targets.extend(nodes.into_iter().map(|node| (node, target.clone())));
        }
    }
}

fn pool(key: PoolKey, asked: Install, nodes: Vec<String>, pods: &[&DriverPod], before: Option<&History>) -> Pool {
    let is_good = before.is_some_and(|before| {
        let current = before.current.digest();
        pods.iter().any(|pod| pod.is_ready && pod.install == current)
    });
    let history = History::next(before, asked, is_good);
    Pool { name: key.name(), key, digest: history.current.digest(), history, nodes }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
