//! A node of the model: its kubelet, its pods and the driver on it.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::{
    DEPENDENTS_PAUSED_UNTIL_ANNOTATION, DRIVER_POOL_LABEL, DRIVER_UPGRADE_ANNOTATION,
    DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_STATE_LABEL,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::node::NodeView;
use crate::pods::{DriverPod, NodePods, Obstacle, PodName, WorkloadPod};
use crate::upgrade::{Action, Policy, Record, Refusal, State, UpgradePlan};

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
    pub(super) ends: Option<Timestamp>,
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
    pub(super) refusal: Option<Refusal>,
    pub(super) jobs_gone: Option<Timestamp>,
}

impl Machine {
    pub(super) fn is_under_way(&self) -> bool {
        self.view.record.as_ref().is_some_and(|record| record.message.is_empty())
    }

    /// Whether it could not be written for so long that others are begun beside it.
    pub(super) fn is_stuck(&self, now: Timestamp, policy: &Policy) -> bool {
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

    pub(super) fn is_unavailable(&self) -> bool {
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

    pub(super) fn node_pods(&self) -> Option<NodePods> {
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
    pub(super) fn move_at_once(&mut self) {
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
    pub(super) fn run_driver(
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

    pub(super) fn patch(&mut self, patch: &Value, version: u32, auto_upgrade: bool) -> bool {
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

    pub(super) fn cordoned(&mut self, change: Option<bool>) {
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

    pub(super) fn evict(&mut self, pod: &PodName, uid: &str, now: Timestamp, policy: &Policy) -> bool {
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

    pub(super) fn delete_driver(&mut self, uid: &str, now: Timestamp) -> bool {
        let is_turn = self.is_under_way() && self.view.state.is_none_or(|state| state == State::Restarting);
        assert!(is_turn, "a driver deleted off turn on {}", self.view.name);
        assert!(!self.has_dependents && self.pods.is_empty(), "{}'s driver was deleted under its pods", self.view.name);
        let Some((pod, since)) = self.drivers.iter_mut().find(|(pod, _)| pod.uid == uid) else { return false };
        (pod.is_terminating, pod.is_ready, *since) = (true, false, now);
        true
    }
}
