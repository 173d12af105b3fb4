//! A small cluster: nodes with kubelets that react late, a DaemonSet controller, node-labeler, pods, and an API server that checks
//! versions and identities. It checks every request of the planner as an admin would want it checked.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{
    DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER_POOL_LABEL, DRIVER_UPGRADE_ANNOTATION,
    DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_STATE_LABEL,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods, Obstacle, PodName, WorkloadPod};
use crate::upgrade::{
    Action, DriverPods, Fleet, IntOrPercent, Member, Policy, Record, Refusal, State, Target, UpgradePlan, plan,
};

/// NPUs of every node.
pub(super) const NPUS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cordon {
    Nobody,
    Ours,
    Admins,
}

#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) is_job: bool,
    pub(super) is_guarded: bool,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) refusal: Option<String>,
    ends: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) view: NodeView,
    pub(super) drivers: Vec<(DriverPod, Timestamp)>,
    pub(super) pods: Vec<Workload>,
    pub(super) has_dependents: bool,
    pub(super) paused_until: Option<Timestamp>,
    pub(super) crashes: bool,
    pub(super) cordon: Cordon,
    /// The pool that its kernel asks for.
    pub(super) wants: String,
    /// Whether the API server refuses to write it, and what is known of that.
    pub(super) refuses: bool,
    refusal: Option<Refusal>,
    jobs_gone: Option<Timestamp>,
}

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

impl Machine {
    pub(super) fn is_under_way(&self) -> bool {
        self.view.record.as_ref().is_some_and(|record| record.message.is_empty())
    }

    /// Whether it could not be written for so long that others are begun beside it.
    fn is_stuck(&self, now: Timestamp, policy: &Policy) -> bool {
        let since = self.view.record.as_ref().map(Record::since);
        self.refusal.is_some() && since.is_some_and(|since| since + policy.validation_timeout <= now)
    }

    /// What was refused is known as long as it is to be written.
    pub(super) fn forget_refusal(&mut self, plan: &UpgradePlan) {
        let name = &self.view.name;
        let is_written = |action: &Action| matches!(action, Action::Patch { node, .. } if node == name);
        if !plan.held_back.contains(name) && !plan.actions.iter().any(is_written) {
            self.refusal = None;
        }
    }

    /// The DaemonSet of all nodes made its driver, and was deleted without its pods.
    pub(super) fn orphan(&mut self) {
        let is_one = matches!(self.drivers.as_slice(), [(pod, _)] if !pod.is_terminating && pod.has_begun);
        if is_one && self.view.record.is_none() {
            self.drivers[0].0.pool = None;
            self.view.pool = None;
        }
    }

    pub(super) fn has_ready_driver(&self) -> bool {
        self.drivers.iter().any(|(pod, _)| pod.is_ready && !pod.is_terminating)
    }

    pub(super) fn runs(&self, digest: &str) -> bool {
        self.drivers.iter().any(|(pod, _)| pod.is_ready && !pod.is_terminating && pod.install == digest)
    }

    fn is_unavailable(&self) -> bool {
        let has_failed = self.view.record.as_ref().is_some_and(Record::speaks_against_driver);
        self.is_under_way()
            || has_failed
            || !self.view.is_ready
            || self.view.is_unschedulable
            || !self.has_ready_driver()
    }

    pub(super) fn touch(&mut self) {
        self.view.version += 1;
    }

    fn node_pods(&self) -> Option<NodePods> {
        let name = |pod: &Workload| PodName { namespace: "jobs".into(), name: pod.name.clone() };
        let to_evict = self.pods.iter().map(|pod| WorkloadPod {
            pod: name(pod),
            uid: pod.name.clone(),
            is_terminating: pod.ends.is_some(),
            obstacle: pod.obstacle,
            refusal: pod.refusal.clone(),
        });
        let dependents = if self.has_dependents {
            vec![PodName { namespace: "rebellions".into(), name: "dp".into() }]
        } else {
            vec![]
        };
        let jobs = self.pods.iter().filter(|pod| pod.is_job).map(name).collect();
        self.is_under_way().then(|| NodePods { to_evict: to_evict.collect(), jobs, dependents })
    }

    /// What the pools do: a node with nothing to disturb changes its label at once.
    fn move_at_once(&mut self) {
        let is_in_use = |pod: &DriverPod| pod.has_begun && pod.kernel == self.view.kernel;
        for (pod, _) in self.drivers.iter_mut().filter(|(pod, _)| pod.pool.is_none() && !is_in_use(pod)) {
            (pod.is_terminating, pod.is_ready) = (true, false);
        }
        let is_disturbed = self.drivers.iter().any(|(pod, _)| pod.pool.is_none() || is_in_use(pod));
        if self.view.pool.as_ref() != Some(&self.wants) && !is_disturbed {
            self.view.pool = Some(self.wants.clone());
        }
    }

    /// The DaemonSet controllers, and the kubelet for the driver.
    fn run_driver(
        &mut self,
        now: Timestamp,
        written: &BTreeMap<&'static str, u32>,
        missing: &BTreeSet<String>,
        uids: &mut u64,
    ) {
        let pool = self.view.pool.clone();
        let is_anothers = |pod: &DriverPod| pod.pool.is_some() && pod.pool != pool && !pod.is_terminating;
        for (pod, since) in self.drivers.iter_mut().filter(|(pod, _)| is_anothers(pod)) {
            (pod.is_terminating, pod.is_ready, *since) = (true, false, now);
        }
        if self.view.is_ready {
            self.drivers.retain(|(pod, since)| !pod.is_terminating || now < *since + SignedDuration::from_secs(20));
        }
        let version = pool.as_deref().and_then(|pool| written.get(pool));
        if let Some(version) = version.filter(|_| !self.drivers.iter().any(|(pod, _)| pod.pool == pool)) {
            let is_in_use = |pod: &DriverPod| pod.has_begun && pod.kernel == self.view.kernel;
            assert!(!self.drivers.iter().any(|(pod, _)| is_in_use(pod)), "a second driver on {}", self.view.name);
            *uids += 1;
            let install = format!("{}{version}", pool.as_deref().unwrap_or_default());
            let pod = DriverPod {
                name: format!("driver-{uids}"),
                uid: uids.to_string(),
                version: *uids,
                node: self.view.name.clone(),
                kernel: self.view.kernel.clone(),
                pool,
                install,
                ..DriverPod::default()
            };
            self.drivers.push((pod, now));
        }
        for (pod, since) in self.drivers.iter_mut().filter(|(pod, _)| !pod.is_terminating) {
            pod.is_image_missing = missing.contains(&pod.install);
            let is_started = self.view.is_ready && *since + SignedDuration::from_secs(20) <= now;
            pod.has_begun |= is_started;
            let works = is_started && !pod.is_image_missing && !self.crashes;
            pod.restarts += u32::from(is_started && self.crashes && !pod.is_image_missing);
            pod.is_ready = works;
        }
    }

    fn patch(&mut self, patch: &Value, version: u32, auto_upgrade: bool) -> bool {
        let metadata = &patch["metadata"];
        if metadata["resourceVersion"] != self.view.version.to_string().as_str() {
            return false;
        }
        let before = self.view.clone();
        let has_state = before.state.is_some_and(|state| state.is_under_way() || state == State::Failed);
        let is_settled = before.record.is_none() && !has_state && !before.is_paused;
        let is_wanted = before.is_requested || !self.runs(&format!("{}{version}", self.wants)) || !auto_upgrade;
        assert!(!is_settled || is_wanted, "a write to {}, which is not being upgraded", before.name);
        let (labels, annotations) = (&metadata["labels"], &metadata["annotations"]);
        if let Some(label) = labels.get(DRIVER_UPGRADE_STATE_LABEL) {
            self.view.state = label.as_str().map(|label| State::parse(label).expect("one of ours"));
        }
        if let Some(label) = labels.get(DRIVER_POOL_LABEL) {
            let is_free = !self.has_dependents && self.pods.is_empty();
            assert!(is_free || self.drivers.is_empty(), "{} was moved under its pods", before.name);
            self.view.pool = label.as_str().map(Into::into);
        }
        if let Some(record) = annotations.get(DRIVER_UPGRADE_ANNOTATION) {
            self.view.record = record.as_str().map(|text| Record::parse(text).expect("one of ours"));
        }
        if let Some(until) = annotations.get(DEPENDENTS_PAUSED_UNTIL_ANNOTATION) {
            self.paused_until = until.as_str().map(|until| until.parse().expect("a time"));
            self.view.is_paused = self.paused_until.is_some();
        }
        if annotations.get(DRIVER_UPGRADE_REQUESTED_ANNOTATION).is_some() {
            self.view.is_requested = false;
        }
        self.cordoned(patch.get("spec").map(|spec| spec["unschedulable"] == true));
        self.touch();
        true
    }

    fn cordoned(&mut self, change: Option<bool>) {
        match change {
            Some(true) => {
                assert_eq!(self.cordon, Cordon::Nobody, "a cordon over another's");
                (self.cordon, self.view.is_unschedulable) = (Cordon::Ours, true);
            }
            Some(false) => {
                assert_eq!(self.cordon, Cordon::Ours, "somebody else's cordon was lifted on {}", self.view.name);
                (self.cordon, self.view.is_unschedulable) = (Cordon::Nobody, false);
            }
            None => {}
        }
        let claims = self.view.record.as_ref().is_some_and(|record| record.cordoned);
        assert_eq!(claims, self.cordon == Cordon::Ours, "the record of {} and its cordon", self.view.name);
        assert!(!claims || self.is_under_way(), "a cordon stays on {}, which is not under way", self.view.name);
    }

    fn evict(&mut self, pod: &PodName, uid: &str, now: Timestamp, policy: &Policy) -> bool {
        assert!(self.is_under_way(), "an eviction off turn on {}", self.view.name);
        let claims = self.view.record.as_ref().is_some_and(|record| record.cordoned);
        assert!(self.view.is_unschedulable || !claims, "an eviction before the cordon");
        let since = self.view.record.as_ref().map_or(Timestamp::UNIX_EPOCH, Record::since);
        let is_through = policy.job_timeout.is_some_and(|timeout| since + timeout <= now);
        assert!(is_through || !self.pods.iter().any(|pod| pod.is_job), "an eviction before jobs are through");
        let Some(pod) = self.pods.iter_mut().find(|one| one.name == pod.name && one.name == uid) else { return false };
        assert!(pod.obstacle.is_none(), "an eviction that the policy forbids");
        pod.refusal =
            pod.is_guarded.then(|| "Cannot evict pod as it would violate the pod's disruption budget.".into());
        if !pod.is_guarded {
            pod.ends.get_or_insert(now + SignedDuration::from_secs(30));
        }
        !pod.is_guarded
    }

    fn delete_driver(&mut self, uid: &str, now: Timestamp) -> bool {
        let is_turn = self.is_under_way() && self.view.state.is_none_or(|state| state == State::Restarting);
        assert!(is_turn, "a driver deleted off turn on {}", self.view.name);
        assert!(!self.has_dependents && self.pods.is_empty(), "{}'s driver was deleted under its pods", self.view.name);
        let Some((pod, since)) = self.drivers.iter_mut().find(|(pod, _)| pod.uid == uid) else { return false };
        (pod.is_terminating, pod.is_ready, *since) = (true, false, now);
        true
    }
}
