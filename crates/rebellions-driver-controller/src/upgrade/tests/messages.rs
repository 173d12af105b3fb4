//! What people read, word by word.

use super::scene::{Scene, cordoned, driver_pod, pod, restarting, validating, workload};
use super::world::policy;
use crate::pods::{DriverPod, Obstacle, WorkloadPod};
use crate::upgrade::{Action, Policy, Reason, Tell, UpgradePlan};

fn tell(plan: &UpgradePlan) -> &Tell {
    let told = plan.actions.iter().find_map(|action| match action {
        Action::Patch { tell, .. } => tell.as_ref(),
        _ => None,
    });
    told.expect("an event")
}

fn broken(scene: Scene, restarts: u32, is_image_missing: bool, problem: &str) -> Scene {
    let problem = Some(problem.to_owned());
    let pod = DriverPod { is_ready: false, restarts, is_image_missing, problem, ..driver_pod("driver-x", "new") };
    scene.driver(&[pod])
}

/// node-labeler has not brought the device plugin back.
fn aside(scene: Scene) -> Scene {
    scene.node(|node| node.is_device_plugin_aside = true)
}

/// One for each reason of a failure.
#[test]
fn a_failure_names_node_object_cause_and_what_to_do() {
    let refused = WorkloadPod { refusal: Some("a disruption budget allows none".into()), ..workload("w9") };
    let ending = WorkloadPod { is_terminating: true, ..workload("w1") };
    let lost = |scene: Scene| scene.node(|node| node.is_ready = false);
    let rows = [
        (
            broken(restarting(1), 5, false, "CrashLoopBackOff: exit code 1"),
            "DriverCrashes",
            "node n1: driver pod driver-x was restarted 5 times: CrashLoopBackOff: exit code 1; its log says why",
        ),
        (
            broken(restarting(1), 0, true, "ImagePullBackOff: r/d:3.0 not found"),
            "DriverImageMissing",
            "node n1: driver pod driver-x: ImagePullBackOff: r/d:3.0 not found; push the image, or change driver.version or \
             driver.image; the node recovers by itself when the image exists",
        ),
        (
            broken(restarting(10), 1, false, "the probe fails"),
            "DriverNotReady",
            "node n1: driver pod driver-x was not ready within validationTimeout (10m): the probe fails",
        ),
        (
            validating(10).npus(7),
            "NpusMissing",
            "node n1: 7 of 8 NPUs were allocatable within validationTimeout (10m); look at the device plugin's pod on the node; if it \
             has fewer NPUs now, annotate it with rebellions.ai/npu-driver-upgrade-requested=true",
        ),
        (
            aside(validating(10).npus(0)),
            "NpusMissing",
            "node n1: the driver runs, and label rebellions.ai/npu.deploy.device-plugin did not come back within validationTimeout \
             (10m), without which no device plugin advertises NPUs; node-labeler sets it: see whether it runs; the node recovers by \
             itself when its NPUs are back",
        ),
        (
            lost(validating(10)),
            "NodeLost",
            "node n1: its kubelet did not answer when validationTimeout (10m) had passed, after its driver was replaced; look at the node",
        ),
        (
            lost(cordoned(1)),
            "NodeNotReady",
            "node n1: its kubelet does not answer; its driver was not touched; look at the node",
        ),
        (
            restarting(10).new_driver(|pod| pod.is_terminating = true),
            "DriverPodTerminating",
            "node n1: driver pod new-pod did not end within validationTimeout (10m); look at the pod's finalizers and at the node's kubelet",
        ),
        (
            restarting(10).driver(&[]),
            "DriverPodMissing",
            "node n1: no driver pod was created within validationTimeout (10m); events of the driver's DaemonSet say why",
        ),
        (
            restarting(5).pods(|pods| pods.dependents = ["a", "b", "c", "d", "e"].map(pod).to_vec()),
            "DependentsStay",
            "node n1: pods that use the driver did not step aside within eviction.timeout (5m): team/a, team/b, team/c and 2 more; \
             node-labeler takes their deploy labels away: see whether it runs, and whether somebody else set those labels",
        ),
        (
            cordoned(5).pods(|pods| pods.to_evict = vec![ending, refused]),
            "EvictionTimedOut",
            "node n1: pods did not leave within eviction.timeout (5m): team/w9 (a disruption budget allows none), team/w1 (is ending); \
             end them, or ease what holds them",
        ),
        (
            cordoned(0).obstacle(Obstacle::EmptyDir),
            "PodNotEvictable",
            "node n1: pod team/w2 has an emptyDir volume, and eviction.deleteEmptyDirData is false; end the pod, or set \
             eviction.deleteEmptyDirData to true",
        ),
        (
            cordoned(0).obstacle(Obstacle::Unmanaged),
            "PodNotEvictable",
            "node n1: pod team/w2 has no controller that would make it anew, and eviction.force is false; end the pod, or set \
             eviction.force to true",
        ),
        (
            Scene { pods: None, ..cordoned(5) },
            "PodsUnknown",
            "node n1: its pods could not be listed within eviction.timeout (5m); the log of the driver controller says why",
        ),
    ];
    for (scene, reason, message) in rows {
        let plan = scene.plan();
        let tell = tell(&plan);
        assert_eq!((tell.warning, tell.reason, tell.note.as_str()), (true, "DriverUpgradeFailed", message), "{reason}");
        let Some(Action::Patch { patch, .. }) = plan.actions.first() else { panic!("{plan:?}") };
        let record = patch["metadata"]["annotations"]["petasus.io/driver-upgrade"].as_str().expect("a record");
        let record = crate::upgrade::Record::parse(record).expect("one of ours");
        assert_eq!((record.reason.as_str(), record.message.as_str()), (reason, message));
    }
}

#[test]
fn a_long_refusal_is_cut_off() {
    let refusal = Some("é".repeat(3000));
    let plan = cordoned(5).pods(|pods| pods.to_evict = vec![WorkloadPod { refusal, ..workload("w1") }]).plan();
    assert_eq!(tell(&plan).note.chars().count(), 501);
}

fn row(scene: &Scene, policy: &Policy) -> (&'static str, String, String) {
    let summary = scene.plan_by(policy).summary;
    let [row] = summary.nodes.as_slice() else { panic!("{summary:?}") };
    assert_eq!(row.name, "n1");
    (row.state, row.reason.clone(), row.message.clone())
}

#[test]
fn a_node_under_way_says_what_it_waits_for() {
    let lost = |scene: Scene| scene.node(|node| node.is_ready = false);
    for (scene, state, reason, message) in [
        (Scene { pods: None, ..cordoned(0) }, "Cordoned", "PodsUnknown", "node n1: its pods are being listed"),
        (
            cordoned(0).pods(|pods| pods.jobs = vec![pod("j")]),
            "Cordoned",
            "JobsRunning",
            "node n1: waits for jobs: team/j",
        ),
        (cordoned(0).evicts(&["w1"]), "Cordoned", "EvictingPods", "node n1: waits for pods to leave: team/w1"),
        (
            restarting(0).pods(|pods| pods.dependents = vec![pod("dp")]),
            "Evicted",
            "DependentsLeaving",
            "node n1: waits for pods that use the driver to step aside: team/dp",
        ),
        (restarting(0).npus(8), "Evicted", "NpusLeaving", "node n1: waits until the kubelet reports no more NPUs"),
        (restarting(0), "Evicted", "DriverPodTerminating", "node n1: driver pod old-pod is ending"),
        (
            restarting(0).driver(&[]),
            "Restarting",
            "DriverPodMissing",
            "node n1: waits for its new driver pod to be created",
        ),
        (
            broken(restarting(0), 0, false, "ContainerCreating"),
            "Restarting",
            "DriverStarting",
            "node n1: driver pod driver-x is starting: ContainerCreating",
        ),
        (validating(0).npus(2), "Validating", "NpusMissing", "node n1: 2 of 8 NPUs are allocatable again"),
        (
            aside(validating(0).npus(0)),
            "Validating",
            "NpusMissing",
            "node n1: waits for node-labeler to bring label rebellions.ai/npu.deploy.device-plugin back",
        ),
        (lost(validating(0)), "Validating", "NodeLost", "node n1: its kubelet does not answer"),
    ] {
        assert_eq!(row(&scene, &policy()), (state, reason.into(), message.into()));
    }
}

#[test]
fn a_node_that_is_not_begun_says_why() {
    let paused = Policy { paused: true, ..policy() };
    let off = Policy { auto_upgrade: false, ..policy() };
    let unknown = Scene { target: crate::upgrade::Target::Unknown("its kernel is not known"), ..Scene::old() };
    for (policy, scene, state, reason, message) in [
        (&paused, Scene::old(), "Waiting", "Paused", "node n1 waits: driver.upgradePolicy.paused is true"),
        (
            &policy(),
            Scene::old().node(|node| node.is_skipped = true),
            "Skipped",
            "Skipped",
            "node n1 is not upgraded: its label rebellions.ai/npu-driver-upgrade.skip is true",
        ),
        (
            &policy(),
            Scene::old().node(|node| node.is_ready = false),
            "Waiting",
            "NodeNotReady",
            "node n1 waits until its kubelet answers",
        ),
        (&policy(), unknown, "Waiting", "KernelUnknown", "node n1 gets no driver: its kernel is not known"),
        (
            &off,
            Scene::old().node(|node| node.is_requested = true),
            "Waiting",
            "AutoUpgradeOff",
            "node n1 was asked to be upgraded, but driver.upgradePolicy.autoUpgrade is off",
        ),
        (
            &policy(),
            Scene::old().failed(Reason::EvictionTimedOut, 1),
            "Failed",
            "EvictionTimedOut",
            "node n1: it failed; it is not tried again by itself before 2027-01-15T08:04:00Z",
        ),
    ] {
        assert_eq!(row(&scene, policy), (state, reason.into(), message.into()));
    }
}

#[test]
fn begin_and_end_are_told() {
    let skipped = cordoned(1).node(|node| node.is_skipped = true);
    let unwanted = Scene { target: crate::upgrade::Target::None, ..cordoned(1) };
    let unknown = Scene { target: crate::upgrade::Target::Unknown("its kernel is not known"), ..cordoned(1) };
    let pending = Scene { target: crate::upgrade::Target::Pending, ..restarting(10) };
    let newer = Scene { target: crate::upgrade::Target::Install { pool: None, digest: "newer" }, ..cordoned(1) };
    let off = Policy { auto_upgrade: false, ..policy() };
    let again = Scene::old().failed(Reason::EvictionTimedOut, 5).node(|node| node.is_unschedulable = true);
    for (plan, reason, note) in [
        (
            Scene::old().plan(),
            "DriverUpgradeStarted",
            "node n1: upgrade of driver pod old-pod begins: the node is cordoned, then pods that use NPUs are evicted",
        ),
        (
            again.plan(),
            "DriverUpgradeStarted",
            "node n1: upgrade of driver pod old-pod begins (attempt 2): the node was cordoned before and stays so, then pods that use \
             NPUs are evicted",
        ),
        (validating(1).plan(), "DriverUpgradeDone", "node n1: driver pod new-pod is ready, 8 NPUs are allocatable"),
        (
            skipped.plan(),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: its label rebellions.ai/npu-driver-upgrade.skip is true",
        ),
        (
            unwanted.plan(),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: no driver is wanted on it any more",
        ),
        (
            unknown.plan(),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: its kernel is not known",
        ),
        (
            newer.plan(),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: the wanted driver has changed; the node waits for its turn again",
        ),
        (
            pending.plan(),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: the DaemonSet of its driver could not be written; the log of the \
             driver controller says why",
        ),
        (
            unwanted.plan_by(&off),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: no driver is wanted on it any more",
        ),
        (
            cordoned(1).plan_by(&off),
            "DriverUpgradeEnded",
            "node n1: the driver's upgrade ends before it is done: driver.upgradePolicy.autoUpgrade is off",
        ),
        (
            cordoned(1).node(|node| node.record = None).plan(),
            "DriverUpgradeRecordLost",
            "node n1: somebody removed or changed the record of its driver upgrade; it is cordoned, and whether by the upgrade is not \
             known any more: uncordon it if nobody else wants it cordoned",
        ),
    ] {
        let tell = tell(&plan);
        assert_eq!((tell.reason, tell.note.as_str()), (reason, note));
    }
}
