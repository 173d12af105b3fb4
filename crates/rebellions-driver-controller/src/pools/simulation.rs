//! Decisions carried out on a small model of a cluster: what the DaemonSet controller and kubelets make of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::changes::is_idle;
use super::tests::{install, node, request};
use super::*;

const KERNELS: [&str; 3] = ["5.15.0", "6.8.0", "6.8.0-custom_1"];

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    /// The admin asks for another driver, or none.
    Ask(usize),
    /// A node comes back with another kernel.
    Reboot(usize, usize),
    /// Discovery and kubelet say nothing about a node's kernel any more.
    Forget(usize),
    /// A node gets or loses its deploy label.
    Deploy(usize, bool),
    /// Somebody deletes a node's driver pods.
    Delete(usize),
    /// The upgrade replaces the driver of a node, if it is not the wanted one.
    Upgrade(usize),
    /// The controller looks.
    Decide,
    /// The DaemonSet controller looks.
    Daemons,
    /// Kubelets start and end pods.
    Kubelets,
}

struct Cluster {
    asked: usize,
    nodes: Vec<NodeView>,
    pods: Vec<DriverPod>,
    daemon_sets: Vec<Existing>,
    made: usize,
}

/// Nothing, one image, an image per kernel, another version of that, and an image of the admin's that is the same for one kernel.
fn asks(asked: usize) -> Option<Request> {
    match asked {
        0 => None,
        1 => Some(request("", "mine", "r.io/d:mine")),
        2 => Some(request("{version}-{kernel}", "", "r.io/d:3.0.0")),
        3 => Some(request("{version}-{kernel}", "", "r.io/d:3.2.2")),
        _ => Some(request("", "3.0.0-5.15.0", "r.io/d:3.0.0-5.15.0")),
    }
}

fn is_in_use(pod: &DriverPod, node: &NodeView) -> bool {
    pod.node == node.name && !is_idle(pod, node)
}

impl Cluster {
    fn new() -> Self {
        let nodes = ["a", "b", "c"].map(|name| node(name, KERNELS[0], None)).into();
        Self { asked: 2, nodes, pods: vec![], daemon_sets: vec![], made: 0 }
    }

    fn decide(&self) -> Pools {
        let (nodes, pods): (Vec<_>, Vec<_>) = (self.nodes.iter().collect(), self.pods.iter().collect());
        pools(asks(self.asked).as_ref(), &nodes, &pods, &self.daemon_sets)
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Ask(asked) => self.asked = *asked,
            Event::Reboot(node, kernel) => {
                self.nodes[*node].kernel = Some(KERNELS[*kernel].into());
            }
            Event::Forget(node) => self.nodes[*node].kernel = None,
            Event::Deploy(node, deploys) => self.nodes[*node].deploys_driver = *deploys,
            Event::Delete(node) => self.end_pods(*node),
            Event::Upgrade(node) => self.upgrade(*node),
            Event::Decide => self.carry_out(),
            Event::Daemons => self.daemons(),
            Event::Kubelets => self.kubelets(),
        }
        for node in &self.nodes {
            let used = self.pods.iter().filter(|pod| is_in_use(pod, node)).count();
            assert!(used <= 1, "{} runs {used} drivers", node.name);
        }
    }

    fn end_pods(&mut self, node: usize) {
        let name = &self.nodes[node].name;
        self.pods.iter_mut().filter(|pod| pod.node == *name).for_each(|pod| pod.is_terminating = true);
    }

    /// As the upgrade does: a pod that has to go is ended, by leaving its pool where a DaemonSet would make it anew.
    fn upgrade(&mut self, node: usize) {
        let targets = self.decide().targets;
        let Some(Target::Install { pool, digest }) = targets.get(&self.nodes[node].name) else { return };
        let name = self.nodes[node].name.clone();
        if self.pods.iter().any(|pod| pod.node == name && pod.install != *digest) {
            let installed = installed(&self.daemon_sets);
            let is_orphan = self.pods.iter().any(|pod| pod.node == name && !installed.contains_key(&pod.pool));
            self.end_pods(node);
            if self.nodes[node].pool != *pool && !is_orphan {
                self.nodes[node].pool = Some(String::new());
            }
        }
    }

    fn carry_out(&mut self) {
        let pools = self.decide();
        for change in &pools.moves {
            let node = self.nodes.iter_mut().find(|node| node.name == change.node).expect("a node");
            assert!(!self.pods.iter().any(|pod| is_in_use(pod, node)), "{} is disturbed", node.name);
            node.pool.clone_from(&change.pool);
        }
        for leftover in &pools.leftovers {
            self.pods.iter_mut().filter(|pod| pod.uid == leftover.uid).for_each(|pod| pod.is_terminating = true);
        }
        for removal in &pools.removals {
            let pool = removal.name.strip_prefix("rebellions-driver-");
            if removal.keeps_pods {
                // It is there until Kubernetes has gone through its pods.
                self.daemon_sets
                    .iter_mut()
                    .filter(|one| one.pool.as_deref() == pool)
                    .for_each(|one| one.is_ending = true);
            } else {
                self.daemon_sets.retain(|one| one.pool.as_deref() != pool);

                self.pods
                    .iter_mut()
                    .filter(|pod| pod.pool.as_deref() == pool)
                    .for_each(|pod| pod.is_terminating = true);
            }
        }
        for pool in &pools.wanted {
            if self.daemon_sets.iter().any(|one| one.pool == pool.name && one.is_ending) {
                continue;
            }
            self.daemon_sets.retain(|one| one.pool != pool.name);
            self.daemon_sets.push(Existing {
                pool: pool.name.clone(),
                history: pool.history.clone(),
                is_ending: false,
            });
        }
        // What it did is seen by the DaemonSet controller before a kubelet does anything that takes longer.
        self.daemons();
    }

    fn daemons(&mut self) {
        for daemon_set in self.daemon_sets.iter().filter(|one| !one.is_ending) {
            for node in &self.nodes {
                let is_selected = node.deploys_driver && node.pool == daemon_set.pool;
                let is_its = |pod: &DriverPod| pod.node == node.name && pod.pool == daemon_set.pool;
                if !is_selected {
                    self.pods.iter_mut().filter(|pod| is_its(pod)).for_each(|pod| pod.is_terminating = true);
                } else if !self.pods.iter().any(is_its) {
                    assert!(!self.pods.iter().any(|pod| is_in_use(pod, node)), "a second driver on {}", node.name);
                    self.made += 1;
                    let is_pool = daemon_set.pool.is_some();
                    self.pods.push(DriverPod {
                        uid: self.made.to_string(),
                        node: node.name.clone(),
                        pool: daemon_set.pool.clone(),
                        install: daemon_set.history.current.digest(),
                        // A pool's name is its kernel here.
                        kernel: KERNELS
                            .iter()
                            .find(|kernel| is_pool && is_pool_of(&daemon_set.history, kernel))
                            .map(|one| (*one).into()),
                        ..DriverPod::default()
                    });
                }
            }
        }
    }

    fn kubelets(&mut self) {
        self.pods.retain(|pod| !pod.is_terminating);
        self.daemon_sets.retain(|one| !one.is_ending);
        for pod in &mut self.pods {
            (pod.has_begun, pod.is_ready) = (true, true);
        }
    }

    /// Everybody does what is left to do, and the upgrade replaces whatever is not the wanted one.
    fn settle(&mut self) {
        for _ in 0..8 {
            for event in [
                Event::Decide,
                Event::Daemons,
                Event::Kubelets,
                Event::Upgrade(0),
                Event::Upgrade(1),
                Event::Upgrade(2),
            ] {
                self.apply(&event);
            }
            self.kubelets();
        }
    }
}

fn is_pool_of(history: &History, kernel: &str) -> bool {
    history.current.image.ends_with(&format!("-{kernel}"))
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => (0..5_usize).prop_map(Event::Ask),
        1 => (0..3_usize, 0..3_usize).prop_map(|(node, kernel)| Event::Reboot(node, kernel)),
        1 => (0..3_usize).prop_map(Event::Forget),
        1 => (0..3_usize, any::<bool>()).prop_map(|(node, deploys)| Event::Deploy(node, deploys)),
        1 => (0..3_usize).prop_map(Event::Delete),
        2 => (0..3_usize).prop_map(Event::Upgrade),
        3 => Just(Event::Decide),
        3 => Just(Event::Daemons),
        3 => Just(Event::Kubelets),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in which order: no node ever runs two drivers, no driver in use is ended by a move, and in the end every node
    /// runs the driver that it needs, made by the DaemonSet that it should be or by one that had made the right one.
    #[test]
    fn pools_lead_where_they_should(events in prop::collection::vec(event(), 0..60)) {
        let mut cluster = Cluster::new();
        for event in &events {
            cluster.apply(event);
        }
        cluster.settle();
        let pools = cluster.decide();
        prop_assert!(pools.moves.is_empty() && pools.leftovers.is_empty() && pools.removals.is_empty(), "{pools:?}");
        for node in &cluster.nodes {
            let running: Vec<_> = cluster.pods.iter().filter(|pod| pod.node == node.name).collect();
            match &pools.targets[&node.name] {
                Target::Install { digest, .. } => {
                    let installs: Vec<_> = running.iter().map(|pod| &pod.install).collect();
                    prop_assert_eq!(installs, [digest], "{}", node.name);
                }
                Target::Nothing => {
                    prop_assert!(running.is_empty(), "{} runs {running:?}", node.name);
                    prop_assert!(node.pool.is_none(), "{} keeps its label", node.name);
                }
                Target::Unknown(..) => prop_assert!(running.len() <= 1),
            }
        }
        let by_pool: BTreeMap<_, _> = cluster.daemon_sets.iter().map(|one| (one.pool.clone(), one)).collect();
        prop_assert_eq!(by_pool.len(), cluster.daemon_sets.len());
        if cluster.asked == 0 {
            prop_assert!(by_pool.is_empty());
        }
    }
}

/// The release before has one DaemonSet for all nodes, and an image that is right for one of them.
#[test]
fn a_driver_that_is_right_survives_the_change_to_pools() {
    let mut cluster = Cluster { asked: 4, ..Cluster::new() };
    cluster.settle();
    let right = install("r.io/d:3.0.0-5.15.0").digest();
    let before: Vec<_> = cluster.pods.iter().map(|pod| (pod.uid.clone(), pod.install.clone())).collect();
    assert_eq!(before.iter().filter(|(_, install)| *install == right).count(), 3);
    cluster.asked = 2;
    cluster.settle();
    let after: Vec<_> = cluster.pods.iter().map(|pod| (pod.uid.clone(), pod.install.clone())).collect();
    assert_eq!(after, before);
    assert!(cluster.nodes.iter().all(|node| node.pool.is_none()));
    cluster.apply(&Event::Delete(1));
    cluster.settle();
    let pools: Vec<_> = cluster.nodes.iter().map(|node| node.pool.as_deref()).collect();
    assert_eq!(pools, [None, Some("5.15.0"), None]);
}
