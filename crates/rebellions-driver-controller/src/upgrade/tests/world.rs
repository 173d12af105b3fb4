//! A small cluster: nodes with kubelets that react late, a DaemonSet controller, node-labeler, pods, and an API server that checks
//! versions and identities. It checks every request of the planner as an admin would want it checked.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::DRIVER_UPGRADE_STATE_LABEL;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::node::NodeView;
use crate::pods::{NodePods, Obstacle};
use crate::upgrade::{Action, DriverPods, Fleet, IntOrPercent, Member, Policy, Refusal, Target, UpgradePlan, plan};

use super::machine::{Cordon, Machine, Workload};

/// NPUs of every node.
pub(super) const NPUS: u64 = 8;

pub(super) struct World {
    pub(super) now: Timestamp,
    pub(super) policy: Policy,
    pub(super) nodes: BTreeMap<String, Machine>,
    pub(super) version: u32,
    /// The version that each pool's DaemonSet installs, and whether it is written as soon as another one is wanted.
    pub(super) written: BTreeMap<&'static str, u32>,
    pub(super) is_written: bool,
    pub(super) missing: BTreeSet<String>,
    pub(super) labeler: bool,
    pub(super) uids: u64,
    /// Node patches of the planner, by node.
    pub(super) writes: BTreeMap<String, usize>,
    /// Events, by node.
    pub(super) events: Vec<(String, String)>,
}

pub(super) fn policy() -> Policy {
    Policy {
        auto_upgrade: true,
        max_parallel: IntOrPercent::Int(2),
        max_unavailable: IntOrPercent::Percent(40),
        job_timeout: Some(SignedDuration::from_mins(10)),
        job_selector: "kind=job".into(),
        evict_unmanaged: false,
        evict_empty_dir: false,
        drain_selector: None,
        eviction_timeout: SignedDuration::from_mins(5),
        validation_timeout: SignedDuration::from_mins(10),
        failure_threshold: IntOrPercent::Percent(30),
        rollback: false,
        paused: false,
    }
}

impl World {
    /// Nodes in two pools, which run the first version.
    pub(super) fn new(nodes: usize) -> Self {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let mut world = Self {
            now,
            policy: policy(),
            nodes: BTreeMap::new(),
            version: 1,
            written: BTreeMap::from([("a", 1), ("b", 1)]),
            is_written: true,
            missing: BTreeSet::new(),
            labeler: true,
            uids: 0,
            writes: BTreeMap::new(),
            events: Vec::new(),
        };
        for index in 0..nodes {
            world.add_node(index);
        }
        world.tick(60);
        world.tick(60);
        world
    }

    pub(super) fn add_node(&mut self, index: usize) {
        let name = format!("n{index}");
        let pool = if index.is_multiple_of(3) { "b" } else { "a" };
        self.uids += 1;
        let view = NodeView {
            name: name.clone(),
            uid: self.uids.to_string(),
            version: 1,
            deploys_driver: true,
            deploys_device_plugin: true,
            kernel: Some(pool.into()),
            pool: Some(pool.into()),
            is_ready: true,
            ..NodeView::default()
        };
        let machine = Machine {
            view,
            drivers: Vec::new(),
            pods: Vec::new(),
            has_dependents: true,
            paused_until: None,
            crashes: false,
            cordon: Cordon::Nobody,
            wants: pool.into(),
            refuses: false,
            refusal: None,
            jobs_gone: None,
        };
        self.nodes.entry(name).or_insert(machine);
    }

    pub(super) fn digest(&self, pool: &str) -> String {
        format!("{pool}{}", self.version)
    }

    pub(super) fn add_pod(&mut self, node: &str, is_job: bool, is_guarded: bool, obstacle: Option<Obstacle>) {
        self.uids += 1;
        let name = format!("w{}", self.uids);
        if let Some(machine) =
            self.nodes.get_mut(node).filter(|machine| !machine.view.is_unschedulable && machine.view.is_ready)
        {
            machine.pods.push(Workload { name, is_job, is_guarded, obstacle, refusal: None, ends: None });
        }
    }

    /// Time passes, and everybody but the driver controller reacts.
    pub(super) fn tick(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        if self.is_written {
            self.written.values_mut().for_each(|version| *version = self.version);
        }
        let (now, labeler) = (self.now, self.labeler);
        for machine in self.nodes.values_mut() {
            let before = machine.view.clone();
            let is_paused = machine.paused_until.is_some_and(|until| now < until);
            if labeler && machine.view.is_ready {
                machine.has_dependents = !is_paused;
            }
            machine.move_at_once();
            machine.run_driver(now, &self.written, &self.missing, &mut self.uids);
            if machine.view.is_ready {
                machine.pods.retain(|pod| pod.ends.is_none_or(|ends| now < ends));
                let npus = if machine.has_dependents && machine.has_ready_driver() { NPUS } else { 0 };
                machine.view.npus = BTreeMap::from([("rebellions.ai/ATOM".to_owned(), npus)]);
            }
            let has_jobs = machine.pods.iter().any(|pod| pod.is_job);
            machine.jobs_gone = if has_jobs { None } else { machine.jobs_gone.or(Some(now)) };
            if machine.view != before {
                machine.view.version += 1;
            }
        }
    }

    /// What the planner makes of it.
    pub(super) fn plan(&self) -> UpgradePlan {
        let digests: BTreeMap<&str, String> =
            self.nodes.values().map(|node| (node.wants.as_str(), self.digest(&node.wants))).collect();
        let pods: Vec<Option<NodePods>> = self.nodes.values().map(Machine::node_pods).collect();
        let members: Vec<Member<'_>> = self
            .nodes
            .values()
            .zip(&pods)
            .map(|(machine, pods)| {
                let target = if self.is_pending(machine) {
                    Target::Pending
                } else {
                    Target::Install { pool: Some(&machine.wants), digest: &digests[machine.wants.as_str()] }
                };
                let mut driver = DriverPods::default();
                for (pod, _) in &machine.drivers {
                    driver.add(pod, target);
                }
                driver.is_orphan = driver.current.is_some_and(|pod| pod.pool.is_none());
                let refusal = machine.refusal.as_ref();
                Member {
                    node: &machine.view,
                    target,
                    driver,
                    pods: pods.as_ref(),
                    jobs_gone: machine.jobs_gone,
                    refusal,
                }
            })
            .collect();
        let plan = plan(&Fleet {
            policy: &self.policy,
            members: &members,
            own_node: Some("n1"),
            is_rolled_back: false,
            now: self.now,
        });
        self.check(&plan);
        plan
    }

    /// Whether the DaemonSet of its pool is still to be written.
    fn is_pending(&self, machine: &Machine) -> bool {
        self.written[machine.wants.as_str()] != self.version
    }

    /// What holds for every plan, by a count of our own.
    fn check(&self, plan: &UpgradePlan) {
        let is_moving = |node: &&Machine| node.is_under_way() && !node.is_stuck(self.now, &self.policy);
        let under_way = self.nodes.values().filter(is_moving).count();
        let unavailable = self.nodes.values().filter(|node| node.is_unavailable()).count();
        let started = plan.actions.iter().filter(|action| is_start(action)).map(|action| &self.nodes[action.node()]);
        let starts: Vec<&Machine> = started.filter(|node| !node.is_under_way()).collect();
        let total = self.nodes.len();
        if !starts.is_empty() {
            assert!(under_way + starts.len() <= self.policy.max_parallel.at_least_one_of(total), "too many under way");
        }
        let taken = starts.iter().filter(|node| !node.is_unavailable()).count();
        if taken > 0 {
            assert!(unavailable + taken <= self.policy.max_unavailable.at_least_one_of(total), "too many unavailable");
        }
        for pool in ["a", "b"] {
            let of_pool = || self.nodes.values().filter(|node| node.wants == pool);
            let is_proven = of_pool().any(|node| node.view.record.is_none() && node.runs(&self.digest(pool)));
            let moving = of_pool().filter(is_moving).count();
            let starting = starts.iter().filter(|node| node.wants == pool).count();
            assert!(is_proven || starting == 0 || moving + starting == 1, "more than one first node in {pool}");
        }
        for node in &starts {
            assert!(node.view.is_ready && !node.view.is_skipped, "{} was begun", node.view.name);
        }
        for action in plan.actions.iter().filter(|action| self.is_pending(&self.nodes[action.node()])) {
            assert!(
                matches!(action, Action::Patch { .. }) && !is_start(action),
                "{action:?} while a DaemonSet is written"
            );
        }
        let done = self
            .nodes
            .values()
            .filter(|node| !self.is_pending(node) && node.view.record.is_none() && node.runs(&self.digest(&node.wants)))
            .count();
        assert_eq!(plan.summary.counts.done, done, "done");
        assert!(plan.summary.nodes.len() <= 10);
    }

    /// Carries out one request as the API server would. Returns whether it was accepted.
    pub(super) fn request(&mut self, action: &Action) -> bool {
        let (now, policy) = (self.now, self.policy.clone());
        let Some(machine) = self.nodes.get_mut(action.node()) else { return false };
        if matches!(action, Action::Patch { .. }) {
            let retry_at = now + SignedDuration::from_secs(20);
            machine.refusal = machine.refuses.then(|| Refusal { words: "a policy says no".into(), retry_at });
            if machine.refuses {
                return false;
            }
        }
        match action {
            Action::Patch { node, patch, tell } => {
                let wanted = self.version;
                let is_accepted = machine.patch(patch, wanted, policy.auto_upgrade);
                if is_accepted {
                    *self.writes.entry(node.clone()).or_default() += 1;
                    let events = tell.iter().map(|tell| (node.clone(), tell.reason.to_owned()));
                    self.events.extend(events);
                }
                is_accepted
            }
            Action::Evict { pod, uid, .. } => machine.evict(pod, uid, now, &policy),
            Action::DeleteDriverPod { uid, .. } => machine.delete_driver(uid, now),
        }
    }
}

fn is_start(action: &Action) -> bool {
    matches!(action, Action::Patch { patch, .. } if patch["metadata"]["labels"][DRIVER_UPGRADE_STATE_LABEL] == "Cordoned")
}
