//! Watches machines and their pods, and carries out what is next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::play::{self, Life, Next};
use super::status::uid;
use super::{Shared, npus};
use crate::nodes::{IN_FLIGHT, SUFFIX};

/// After so long what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// Something to do for a machine.
enum Act {
    Status(Pod, Value),
    Remove(Pod),
    Npus(Value),
}

/// What came of it.
enum Done {
    Pod(Box<Pod>),
    Node(Box<Node>),
    Gone,
    Failed(Option<String>),
}

#[derive(Default)]
struct Machine {
    node: Option<Node>,
    pods: BTreeMap<String, Pod>,
    is_busy: bool,
}

struct Shell {
    client: Client,
    shared: Arc<Shared>,
    machines: BTreeMap<String, Machine>,
    lives: HashMap<String, Life>,
    dirty: BTreeSet<String>,
    due: BTreeMap<String, Timestamp>,
    tasks: JoinSet<(String, Vec<Done>)>,
    slots: Arc<Semaphore>,
}

/// The status of a node's condition Ready.
pub fn readiness(node: &Node) -> Option<String> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status.clone())
}

#[expect(clippy::disallowed_methods, reason = "a kubelet has a clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Plays all machines until it is aborted.
pub async fn run(client: Client, shared: Arc<Shared>) {
    let mut shell = Shell {
        shared: shared.clone(),
        machines: BTreeMap::new(),
        lives: HashMap::new(),
        dirty: BTreeSet::new(),
        due: BTreeMap::new(),
        tasks: JoinSet::new(),
        slots: Arc::new(Semaphore::new(IN_FLIGHT)),
        client: client.clone(),
    };
    let config = watcher::Config::default();
    let mut nodes = pin!(watcher(Api::<Node>::all(client.clone()), config.clone()).default_backoff());
    let mut pods = pin!(watcher(Api::<Pod>::all(client), config).default_backoff());
    loop {
        let wake = shell.due.values().min().copied().map(|due| Duration::try_from(due - now()).unwrap_or_default());
        tokio::select! {
            Some(event) = nodes.next() => shell.node(event),
            Some(event) = pods.next() => shell.pod(event),
            Some(done) = shell.tasks.join_next() => if let Ok((name, done)) = done { shell.done(&name, done); },
            () = shared.changed.notified() => shell.dirty.extend(shell.machines.keys().cloned()),
            () = tokio::time::sleep(wake.unwrap_or(Duration::MAX)) => shell.wake(),
        }
        shell.work();
    }
}

impl Shell {
    fn node<E>(&mut self, event: Result<watcher::Event<Node>, E>) {
        match event {
            Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => self.take_node(node),
            Ok(watcher::Event::Delete(node)) => {
                if let Some(machine) = self.machines.get_mut(&node.name_any()) {
                    machine.node = None;
                }
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
        }
    }

    fn pod<E>(&mut self, event: Result<watcher::Event<Pod>, E>) {
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => self.take_pod(pod),
            Ok(watcher::Event::Delete(pod)) => {
                self.lives.remove(&uid(&pod));
                let node = node_of(&pod);
                if let Some(machine) = self.machines.get_mut(&node) {
                    // Another may have its name by now.
                    if machine.pods.get(&key(&pod)).is_some_and(|known| uid(known) == uid(&pod)) {
                        machine.pods.remove(&key(&pod));
                    }
                    self.dirty.insert(node);
                }
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
        }
    }

    fn take_node(&mut self, node: Node) {
        let name = node.name_any();
        if !name.ends_with(SUFFIX) {
            return;
        }
        let machine = self.machines.entry(name.clone()).or_default();
        if machine.node.as_ref().is_none_or(|known| version(known) < version(&node)) {
            machine.node = Some(node);
            self.dirty.insert(name);
        }
    }

    fn take_pod(&mut self, pod: Pod) {
        let node = node_of(&pod);
        if !node.ends_with(SUFFIX) {
            return;
        }
        let machine = self.machines.entry(node.clone()).or_default();
        if machine.pods.get(&key(&pod)).is_none_or(|known| version(known) < version(&pod)) {
            machine.pods.insert(key(&pod), pod);
            self.dirty.insert(node);
        }
    }

    fn wake(&mut self) {
        let now = now();
        let due: Vec<_> = self.due.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.due.remove(&name);
            self.dirty.insert(name);
        }
    }

    fn done(&mut self, name: &str, done: Vec<Done>) {
        if let Some(machine) = self.machines.get_mut(name) {
            machine.is_busy = false;
        }
        self.dirty.insert(name.to_owned());
        for done in done {
            match done {
                Done::Pod(pod) => self.take_pod(*pod),
                Done::Node(node) => self.take_node(*node),
                Done::Gone => {}
                Done::Failed(uid) => {
                    if let Some(life) = uid.and_then(|uid| self.lives.get_mut(&uid)) {
                        life.forget_shown();
                    }
                    self.dirty.remove(name);
                    self.due.insert(name.to_owned(), now() + AGAIN);
                }
            }
        }
    }

    /// Begins what is to be done for every machine of which something is new.
    fn work(&mut self) {
        let is_idle = |name: &&String| self.machines.get(*name).is_some_and(|machine| !machine.is_busy);
        let idle: Vec<_> = self.dirty.iter().filter(is_idle).cloned().collect();
        for name in idle {
            self.dirty.remove(&name);
            self.due.remove(&name);
            let (acts, due) = self.plan(&name);
            if let Some(due) = due {
                self.due.insert(name.clone(), due);
            }
            if !acts.is_empty() {
                self.begin(name, acts);
            }
        }
    }

    /// What is to be done for a machine now, and when it is to be looked at again.
    fn plan(&mut self, name: &str) -> (Vec<Act>, Option<Timestamp>) {
        let Some(machine) = self.machines.get(name) else { return (vec![], None) };
        let Some(node) = machine.node.as_ref().filter(|node| is_up(node)) else { return (vec![], None) };
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let boot_id = info.map(|info| info.boot_id.as_str()).unwrap_or_default();
        let (troubles, now) = (self.shared.troubles(), now());
        let (mut acts, mut due) = (vec![], None::<Timestamp>);
        for pod in machine.pods.values() {
            let trouble = troubles.iter().rev().find(|trouble| trouble.hits(pod));
            let life = self.lives.entry(uid(pod)).or_default();
            let at = match play::next(pod, boot_id, trouble.map(|trouble| &trouble.kind), life, now) {
                Next::Nothing => None,
                Next::Wait(at) => Some(at),
                Next::Status(patch, at) => {
                    acts.push(Act::Status(pod.clone(), patch));
                    at
                }
                Next::Remove => {
                    acts.push(Act::Remove(pod.clone()));
                    None
                }
            };
            due = due.into_iter().chain(at).min();
        }
        acts.extend(npus::patch(node, &machine.pods.values()).map(Act::Npus));
        (acts, due)
    }

    fn begin(&mut self, name: String, acts: Vec<Act>) {
        if let Some(machine) = self.machines.get_mut(&name) {
            machine.is_busy = true;
        }
        let (client, slots) = (self.client.clone(), self.slots.clone());
        self.tasks.spawn(async move {
            let _slot = slots.acquire().await;
            let done = join_all(acts.into_iter().map(|act| carry_out(&client, &name, act))).await;
            (name, done)
        });
    }
}

async fn carry_out(client: &Client, node: &str, act: Act) -> Done {
    let pods = |pod: &Pod| Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let params = PatchParams::default();
    let (uid, done) = match act {
        Act::Status(pod, patch) => {
            let mut patch = patch;
            // Another may have its name by now.
            patch["metadata"]["uid"] = uid(&pod).into();
            let done = pods(&pod).patch_status(&pod.name_any(), &params, &Patch::Merge(patch)).await;
            (Some(uid(&pod)), done.map(|pod| Done::Pod(Box::new(pod))))
        }
        Act::Remove(pod) => {
            let preconditions = Preconditions { uid: Some(uid(&pod)), resource_version: None };
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            (Some(uid(&pod)), pods(&pod).delete(&pod.name_any(), &now).await.map(|_| Done::Gone))
        }
        Act::Npus(patch) => {
            let done = Api::<Node>::all(client.clone()).patch_status(node, &params, &Patch::Merge(patch)).await;
            (None, done.map(|node| Done::Node(Box::new(node))))
        }
    };
    match done {
        Ok(done) => done,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Done::Gone,
        Err(_) => Done::Failed(uid),
    }
}

/// A machine that a test has told to be down does nothing from that moment on.
fn is_up(node: &Node) -> bool {
    readiness(node).as_deref() == Some("True") && !node.labels().contains_key("sim.test/down")
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}
