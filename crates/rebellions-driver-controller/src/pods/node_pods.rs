//! Which pods of a node leave it before its driver is replaced, and which are waited for.

use std::collections::{BTreeMap, BTreeSet};

use accelerator_api::contract::NPU_RESOURCE_PREFIX;
use kube::core::{Selector, SelectorExt};

use super::{NodePods, Obstacle, Pod, PodName, WorkloadPod};
use crate::policy::Policy;
use crate::selector;

/// The annotation of pods that a kubelet made of a file; nobody else can end them.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What decides about a pod beside itself.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// Which pods are waited for.
    jobs: Option<Selector>,
    /// Which pods leave although they use no NPU.
    drain: Option<Selector>,
    evict_unmanaged: bool,
    evict_empty_dir: bool,
    /// Namespace of the operands.
    operands: &'a str,
    /// Namespace of the controllers, which stay.
    controllers: &'a str,
    /// Names of the DaemonSets whose pods use the driver.
    dependents: &'a [&'a str],
    /// Namespace and name of every resource claim that holds an NPU.
    claims: &'a BTreeSet<(String, String)>,
}

impl<'a> Rules<'a> {
    /// The rules of this policy.
    #[must_use]
    pub fn new(
        policy: &Policy,
        operands: &'a str,
        controllers: &'a str,
        dependents: &'a [&'a str],
        claims: &'a BTreeSet<(String, String)>,
    ) -> Self {
        // What cannot be read, which the schema does not take, selects everything to be waited for and nothing to leave.
        let jobs = Some(&policy.job_selector).filter(|text| !text.is_empty());
        Self {
            jobs: jobs.map(|text| selector::parse(text).unwrap_or_default()),
            drain: policy.drain_selector.as_deref().and_then(selector::parse),
            evict_unmanaged: policy.evict_unmanaged,
            evict_empty_dir: policy.evict_empty_dir,
            operands,
            controllers,
            dependents,
            claims,
        }
    }

    /// Sorts the pods of a node, in the order of names.
    #[must_use]
    pub fn sort<'p>(&self, pods: impl IntoIterator<Item = &'p Pod>) -> NodePods {
        let mut sorted = NodePods::default();
        for pod in pods.into_iter().filter(|pod| !pod.is_finished()) {
            if pod.is_owned_by("DaemonSet") || pod.is_mirror() {
                if self.is_dependent(pod) {
                    sorted.dependents.push(pod.full_name());
                }
                continue;
            }
            if !pod.is_terminating() && self.jobs.as_ref().is_some_and(|jobs| jobs.matches(pod.labels())) {
                sorted.jobs.push(pod.full_name());
            }
            if self.leaves(pod) {
                sorted.to_evict.push(WorkloadPod {
                    pod: pod.full_name(),
                    uid: pod.fields.metadata.uid.clone().unwrap_or_default(),
                    is_terminating: pod.is_terminating(),
                    obstacle: self.obstacle(pod).filter(|_| !pod.is_terminating()),
                    refusal: None,
                });
            }
        }
        sorted.to_evict.sort_by(|one, other| one.pod.cmp(&other.pod));
        sorted.jobs.sort();
        sorted.dependents.sort();
        sorted
    }

    fn is_dependent(&self, pod: &Pod) -> bool {
        let name = pod.labels().get("name").map(String::as_str).unwrap_or_default();
        pod.namespace() == self.operands && self.dependents.contains(&name)
    }

    fn leaves(&self, pod: &Pod) -> bool {
        let holds_claim =
            || pod.claims().any(|name| self.claims.contains(&(pod.namespace().to_owned(), name.to_owned())));
        let is_drained = || {
            let drain = self.drain.as_ref().filter(|_| pod.namespace() != self.controllers);
            drain.is_some_and(|drain| drain.matches(pod.labels()))
        };
        pod.asks_for_npus() || holds_claim() || is_drained()
    }

    fn obstacle(&self, pod: &Pod) -> Option<Obstacle> {
        if !self.evict_unmanaged && !pod.fields.owners.iter().any(|owner| owner.controller) {
            return Some(Obstacle::Unmanaged);
        }
        let has_empty_dir = pod.fields.spec.volumes.iter().any(|volume| volume.empty_dir.is_some());
        (has_empty_dir && !self.evict_empty_dir).then_some(Obstacle::EmptyDir)
    }
}

impl Pod {
    /// Its namespace and name.
    #[must_use]
    pub fn full_name(&self) -> PodName {
        let name = self.fields.metadata.name.clone().unwrap_or_default();
        PodName { namespace: self.namespace().to_owned(), name }
    }

    /// Its identity.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.fields.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Names of the resource claims that it has, in its namespace.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let all = self.fields.spec.resource_claims.iter().chain(&self.fields.status.resource_claim_statuses);
        all.filter_map(|claim| claim.resource_claim_name.as_deref())
    }

    /// Whether a container of it, one that runs before the others included, asks for NPUs.
    fn asks_for_npus(&self) -> bool {
        let spec = &self.fields.spec;
        let containers = spec.init_containers.iter().chain(&spec.containers).map(|container| &container.resources);
        containers.chain([&spec.resources]).any(|resources| resources.ask_for(NPU_RESOURCE_PREFIX))
    }

    fn namespace(&self) -> &str {
        self.fields.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.fields.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    fn is_terminating(&self) -> bool {
        self.fields.metadata.deletion_timestamp.is_some()
    }

    fn is_finished(&self) -> bool {
        matches!(self.fields.status.phase.as_str(), "Succeeded" | "Failed")
    }

    fn is_mirror(&self) -> bool {
        self.fields.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
    }

    fn is_owned_by(&self, kind: &str) -> bool {
        self.fields.owners.iter().any(|owner| owner.controller && owner.kind == kind)
    }
}

#[cfg(test)]
mod tests;
