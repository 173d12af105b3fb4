//! Texts for people. Each names the node, the object, the cause, and where somebody has to act, what to do.

use std::fmt::Display;

use accelerator_api::contract::{DEVICE_PLUGIN, DRIVER_UPGRADE_REQUESTED_ANNOTATION, DRIVER_UPGRADE_SKIP_LABEL};
use accelerator_api::first_of;
use k8s_openapi::jiff::SignedDuration;

use super::clearing::is_obstacle;
use super::{Member, Policy, Reason, Record, State, Target};
use crate::pods::{NodePods, Obstacle, WorkloadPod};

/// How many names a text has before it only counts.
const NAMED: usize = 3;

/// How long a text may get, in characters: it stands in an annotation of the node.
const LONGEST: usize = 500;

pub(super) fn begun(member: &Member<'_>, record: &Record) -> String {
    let again = if record.attempt > 1 { format!(" (attempt {})", record.attempt) } else { String::new() };
    let was_cordoned = member.node.is_unschedulable;
    let cordon = if was_cordoned { "the node was cordoned before and stays so" } else { "the node is cordoned" };
    format!(
        "node {}: upgrade of driver pod {} begins{again}: {cordon}, then pods that use NPUs are evicted",
        name(member),
        pod(member)
    )
}

pub(super) fn done(member: &Member<'_>) -> String {
    format!("node {}: driver pod {} is ready, {} NPUs are allocatable", name(member), pod(member), member.allocatable())
}

/// Why an upgrade ends without a result.
pub(super) fn ended(member: &Member<'_>, state: Option<State>, policy: &Policy) -> String {
    let why = match member.target {
        Target::None => "no driver is wanted on it any more".to_owned(),
        _ if !policy.auto_upgrade => "driver.upgradePolicy.autoUpgrade is off".to_owned(),
        Target::Pending => {
            "the DaemonSet of its driver could not be written; the log of the driver controller says why".to_owned()
        }
        Target::Unknown(why) if member.node.deploys_driver => why.to_owned(),
        _ if state == Some(State::Skipped) => {
            format!("its label {DRIVER_UPGRADE_SKIP_LABEL} is true")
        }
        Target::Install { .. } if member.node.deploys_driver => {
            "the wanted driver has changed; the node waits for its turn again".to_owned()
        }
        _ => "no driver is wanted on it any more".to_owned(),
    };
    format!("node {}: the driver's upgrade ends before it is done: {why}", name(member))
}

pub(super) fn record_lost(member: &Member<'_>) -> String {
    let cordon = if member.node.is_unschedulable {
        "; it is cordoned, and whether by the upgrade is not known any more: uncordon it if nobody else wants it cordoned"
    } else {
        ""
    };
    format!("node {}: somebody removed or changed the record of its driver upgrade{cordon}", name(member))
}

/// Why a node failed, and what to do.
pub(super) fn failure(reason: Reason, member: &Member<'_>, record: &Record, policy: &Policy) -> String {
    let (eviction, validation) = (short(policy.eviction_timeout), short(policy.validation_timeout));
    let text = match reason {
        Reason::DriverCrashes => format!(
            "driver pod {} was restarted {} times: {}; its log says why",
            pod(member),
            member.driver.current.map_or(0, |pod| pod.restarts),
            problem(member)
        ),
        Reason::DriverImageMissing => format!(
            "driver pod {}: {}; push the image, or change driver.version or driver.image; the node recovers by itself when the image exists",
            pod(member),
            problem(member)
        ),
        Reason::DriverNotReady => {
            format!(
                "driver pod {} was not ready within validationTimeout ({validation}): {}",
                pod(member),
                problem(member)
            )
        }
        Reason::NpusMissing if member.node.is_device_plugin_aside => format!(
            "the driver runs, and label {} did not come back within validationTimeout ({validation}), without which no device plugin advertises NPUs; \
             node-labeler sets it: see whether it runs; the node recovers by itself when its NPUs are back",
            DEVICE_PLUGIN.deploy_label
        ),
        Reason::NpusMissing => format!(
            "{} of {} NPUs were allocatable within validationTimeout ({validation}); look at the device plugin's pod on the node; \
             if it has fewer NPUs now, annotate it with {DRIVER_UPGRADE_REQUESTED_ANNOTATION}=true",
            member.allocatable(),
            member.expected(record)
        ),
        Reason::NodeLost => {
            format!(
                "its kubelet did not answer when validationTimeout ({validation}) had passed, after its driver was replaced; look at the node"
            )
        }
        Reason::NodeNotReady => "its kubelet does not answer; its driver was not touched; look at the node".to_owned(),
        Reason::DriverPodTerminating => format!(
            "driver pod {} did not end within validationTimeout ({validation}); look at the pod's finalizers and at the node's kubelet",
            pod(member)
        ),
        Reason::DriverPodMissing => {
            format!(
                "no driver pod was created within validationTimeout ({validation}); events of the driver's DaemonSet say why"
            )
        }
        Reason::DependentsStay => format!(
            "pods that use the driver did not step aside within eviction.timeout ({eviction}): {}; node-labeler takes their deploy labels away: \
             see whether it runs, and whether somebody else set those labels",
            dependents(member)
        ),
        Reason::EvictionTimedOut => {
            format!(
                "pods did not leave within eviction.timeout ({eviction}): {}; end them, or ease what holds them",
                leaving(member)
            )
        }
        Reason::PodNotEvictable => obstacle(member),
        _ => format!(
            "its pods could not be listed within eviction.timeout ({eviction}); the log of the driver controller says why"
        ),
    };
    cut(format!("node {}: {text}", name(member)))
}

/// What the API server says to a write of the node.
pub(super) fn refused(member: &Member<'_>) -> String {
    let words = member.refusal.map_or("", |refusal| &refusal.words);
    cut(format!(
        "node {}: the API server refuses to write it, and is asked again ever less often: {words}",
        name(member)
    ))
}

/// What a node under way waits for.
pub(super) fn progress(reason: Reason, member: &Member<'_>, record: &Record) -> String {
    let text = match reason {
        Reason::JobsRunning => format!("waits for jobs: {}", jobs(member)),
        Reason::EvictingPods => format!("waits for pods to leave: {}", leaving(member)),
        Reason::DependentsLeaving => {
            format!("waits for pods that use the driver to step aside: {}", dependents(member))
        }
        Reason::NpusLeaving => "waits until the kubelet reports no more NPUs".to_owned(),
        Reason::DriverPodTerminating => format!("driver pod {} is ending", pod(member)),
        Reason::DriverPodMissing => "waits for its new driver pod to be created".to_owned(),
        Reason::DriverStarting => format!("driver pod {} is starting: {}", pod(member), problem(member)),
        Reason::NpusMissing if member.node.is_device_plugin_aside => {
            format!("waits for node-labeler to bring label {} back", DEVICE_PLUGIN.deploy_label)
        }
        Reason::NpusMissing => {
            format!("{} of {} NPUs are allocatable again", member.allocatable(), member.expected(record))
        }
        Reason::NodeLost | Reason::NodeNotReady => "its kubelet does not answer".to_owned(),
        _ => "its pods are being listed".to_owned(),
    };
    cut(format!("node {}: {text}", name(member)))
}

fn obstacle(member: &Member<'_>) -> String {
    let found = member.pods.and_then(|pods| pods.to_evict.iter().find(|pod| is_obstacle(pod)));
    let (pod, obstacle) = found.map_or((String::new(), None), |found| (full_name(found), found.obstacle));
    let (what, setting) = match obstacle {
        Some(Obstacle::EmptyDir) => ("has an emptyDir volume", "eviction.deleteEmptyDirData"),
        _ => ("has no controller that would make it anew", "eviction.force"),
    };
    format!("pod {pod} {what}, and {setting} is false; end the pod, or set {setting} to true")
}

fn leaving(member: &Member<'_>) -> String {
    let describe = |pod: &WorkloadPod| match (&pod.refusal, pod.is_terminating) {
        (_, true) => format!("{} (is ending)", full_name(pod)),
        (Some(refusal), false) => format!("{} ({refusal})", full_name(pod)),
        (None, false) => full_name(pod),
    };
    // Who was refused comes first: the others only need time.
    let mut pods: Vec<&WorkloadPod> = pods_of(member, |pods| &pods.to_evict).iter().collect();
    pods.sort_by_key(|pod| (pod.refusal.is_none() || pod.is_terminating, pod.pod.clone()));
    list(pods.len(), pods.into_iter().map(describe))
}

fn jobs(member: &Member<'_>) -> String {
    let jobs = pods_of(member, |pods| &pods.jobs);
    list(jobs.len(), jobs.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)))
}

fn dependents(member: &Member<'_>) -> String {
    let pods = pods_of(member, |pods| &pods.dependents);
    list(pods.len(), pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)))
}

fn pods_of<'a, T>(member: &Member<'a>, field: impl Fn(&'a NodePods) -> &'a Vec<T>) -> &'a [T] {
    member.pods.map_or(&[], |pods| field(pods).as_slice())
}

/// The first few, and how many more there are.
pub(super) fn list<T: Display>(count: usize, names: impl Iterator<Item = T>) -> String {
    first_of(NAMED, count, names)
}

fn name<'a>(member: &Member<'a>) -> &'a str {
    &member.node.name
}

fn pod<'a>(member: &Member<'a>) -> &'a str {
    member.driver.current.map_or("(none)", |pod| &pod.name)
}

fn problem<'a>(member: &Member<'a>) -> &'a str {
    member.driver.current.and_then(|pod| pod.problem.as_deref()).unwrap_or("it is not ready yet")
}

fn full_name(pod: &WorkloadPod) -> String {
    format!("{}/{}", pod.pod.namespace, pod.pod.name)
}

fn short(duration: SignedDuration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
