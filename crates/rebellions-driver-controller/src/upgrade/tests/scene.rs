//! One node in a chosen situation, for tables.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods, Obstacle, PodName, WorkloadPod};
use crate::upgrade::{DriverPods, Fleet, Member, Policy, Reason, Record, Refusal, State, Target, UpgradePlan, plan};

/// A node, its pods, and what it should run: `new`.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) node: NodeView,
    pub(super) driver: Vec<DriverPod>,
    pub(super) is_orphan: bool,
    pub(super) pods: Option<NodePods>,
    pub(super) target: Target<'static>,
    pub(super) jobs_gone: Option<Timestamp>,
    pub(super) refusal: Option<Refusal>,
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

pub(super) fn ago(minutes: i64) -> Timestamp {
    now() - SignedDuration::from_mins(minutes)
}

pub(super) fn pod(name: &str) -> PodName {
    PodName { namespace: "team".into(), name: name.into() }
}

pub(super) fn workload(name: &str) -> WorkloadPod {
    WorkloadPod { pod: pod(name), uid: name.into(), is_terminating: false, obstacle: None, refusal: None }
}

pub(super) fn fleet<'a>(policy: &'a Policy, members: &'a [Member<'a>]) -> Fleet<'a> {
    Fleet { policy, members, own_node: None, is_rolled_back: false, now: now() }
}

pub(super) fn cordoned(minutes: i64) -> Scene {
    Scene::old().under_way(State::Cordoned, minutes)
}

pub(super) fn restarting(minutes: i64) -> Scene {
    Scene::old().under_way(State::Restarting, minutes).npus(0)
}

pub(super) fn validating(minutes: i64) -> Scene {
    Scene::old().under_way(State::Validating, minutes).new_driver(|_| ())
}

impl Scene {
    /// A node whose driver is old and works.
    pub(super) fn named(name: &str) -> Self {
        let node = NodeView {
            name: name.into(),
            version: 7,
            deploys_driver: true,
            deploys_device_plugin: true,
            pool: Some("p".into()),
            is_ready: true,
            npus: BTreeMap::from([("rebellions.ai/ATOM".to_owned(), 8)]),
            ..NodeView::default()
        };
        let target = Target::Install { pool: Some("p"), digest: "new" };
        let driver = vec![driver_pod("old-pod", "old")];
        Self { node, driver, is_orphan: false, pods: None, target, jobs_gone: None, refusal: None }
    }

    pub(super) fn old() -> Self {
        Self::named("n1")
    }

    /// A node that was upgraded.
    pub(super) fn upgraded(self) -> Self {
        let node = NodeView { state: Some(State::Done), ..self.node };
        Self { node, driver: vec![driver_pod("new-pod", "new")], ..self }
    }

    /// Its upgrade stands there since so many minutes; what was there before is known, and its pods are gone.
    pub(super) fn under_way(mut self, state: State, minutes: i64) -> Self {
        self.node.state = Some(state);
        self.node.is_unschedulable = true;
        self.node.is_paused = state == State::Restarting;
        self.node.record = Some(Record {
            install: "new".into(),
            attempt: 1,
            cordoned: true,
            since: Some(ago(minutes)),
            replaces: "old-pod".into(),
            npus: BTreeMap::from([("rebellions.ai/ATOM".to_owned(), 8)]),
            ..Record::default()
        });
        self.pods = Some(NodePods::default());
        self
    }

    /// It failed so many minutes ago.
    pub(super) fn failed(self, reason: Reason, minutes: i64) -> Self {
        let mut scene = self.under_way(State::Failed, minutes);
        scene.node.is_unschedulable = false;
        scene.edit(|record| {
            record.cordoned = false;
            record.reason = reason.as_str().into();
            record.message = "node n1: it failed".into();
        })
    }

    pub(super) fn edit(mut self, change: impl FnOnce(&mut Record)) -> Self {
        change(self.node.record.as_mut().expect("a record"));
        self
    }

    pub(super) fn node(mut self, change: impl FnOnce(&mut NodeView)) -> Self {
        change(&mut self.node);
        self
    }

    pub(super) fn npus(self, count: u64) -> Self {
        self.node(|node| node.npus = BTreeMap::from([("rebellions.ai/ATOM".to_owned(), count)]))
    }

    /// The API server refuses to write it, and is asked again in so many minutes.
    pub(super) fn refused(self, minutes: i64) -> Self {
        Self { refusal: Some(Refusal { words: "a policy says no".into(), retry_at: ago(-minutes) }), ..self }
    }

    /// Its driver pods are these.
    pub(super) fn driver(mut self, pods: &[DriverPod]) -> Self {
        self.driver = pods.to_vec();
        self
    }

    pub(super) fn new_driver(self, change: impl FnOnce(&mut DriverPod)) -> Self {
        let mut pod = driver_pod("new-pod", "new");
        change(&mut pod);
        self.driver(&[pod])
    }

    pub(super) fn pods(mut self, change: impl FnOnce(&mut NodePods)) -> Self {
        change(self.pods.get_or_insert_default());
        self
    }

    pub(super) fn evicts(self, names: &[&str]) -> Self {
        self.pods(|pods| pods.to_evict = names.iter().map(|name| workload(name)).collect())
    }

    pub(super) fn obstacle(self, obstacle: Obstacle) -> Self {
        self.pods(|pods| {
            pods.to_evict = vec![workload("w1"), WorkloadPod { obstacle: Some(obstacle), ..workload("w2") }];
        })
    }

    pub(super) fn member(&self) -> Member<'_> {
        let mut driver = DriverPods::default();
        for pod in &self.driver {
            driver.add(pod, self.target);
        }
        driver.is_orphan = self.is_orphan;
        let (pods, refusal) = (self.pods.as_ref(), self.refusal.as_ref());
        Member { node: &self.node, target: self.target, driver, pods, jobs_gone: self.jobs_gone, refusal }
    }

    pub(super) fn plan(&self) -> UpgradePlan {
        self.plan_by(&super::world::policy())
    }

    pub(super) fn plan_by(&self, policy: &Policy) -> UpgradePlan {
        plan(&fleet(policy, &[self.member()]))
    }
}

/// A driver pod that runs.
pub(super) fn driver_pod(name: &str, install: &str) -> DriverPod {
    DriverPod {
        name: name.into(),
        uid: name.into(),
        node: "n1".into(),
        pool: Some("p".into()),
        install: install.into(),
        is_ready: true,
        has_begun: true,
        ..DriverPod::default()
    }
}
