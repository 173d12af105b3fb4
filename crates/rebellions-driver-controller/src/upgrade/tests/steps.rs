//! The next step of a node in each situation.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::scene::{Scene, ago, cordoned, driver_pod, now, pod, restarting, validating, workload};
use super::world::policy;
use crate::pods::{Obstacle, WorkloadPod};
use crate::upgrade::{Action, IntOrPercent, Policy, Reason, Record, State, Target, UpgradePlan};

/// What a plan does to its first node, in short.
fn told(plan: &UpgradePlan) -> Vec<String> {
    let tell = |action: &Action| match action {
        Action::Evict { pod, .. } => format!("evict {}", pod.name),
        Action::DeleteDriverPod { name, .. } => format!("delete {name}"),
        Action::Patch { patch, .. } => told_patch(patch),
    };
    plan.actions.iter().map(tell).collect()
}

fn told_patch(patch: &Value) -> String {
    let mut words = Vec::new();
    let metadata = &patch["metadata"];
    match patch.get("spec") {
        Some(spec) if spec["unschedulable"] == true => words.push("cordon".to_owned()),
        Some(_) => words.push("uncordon".to_owned()),
        None => {}
    }
    if let Some(state) = metadata["labels"].get("rebellions.ai/npu-driver-upgrade-state") {
        words.push(state.as_str().unwrap_or("no state").to_owned());
    }
    if let Some(pool) = metadata["labels"].get("rebellions.ai/npu-driver-pool") {
        words.push(format!("pool {}", pool.as_str().unwrap_or("none")));
    }
    if let Some(record) = metadata["annotations"].get("petasus.io/driver-upgrade") {
        let record = record.as_str().and_then(Record::parse);
        words.push(record.map_or("no record".to_owned(), |record| {
            if record.message.is_empty() { "record".into() } else { record.reason }
        }));
    }
    if let Some(until) = metadata["annotations"].get("petasus.io/driver-dependents-paused-until") {
        words.push(if until.is_null() { "resume".to_owned() } else { "pause".to_owned() });
    }
    if metadata["annotations"].get("rebellions.ai/npu-driver-upgrade-requested").is_some() {
        words.push("heard".to_owned());
    }
    words.join(", ")
}

fn holds(rows: &[(&str, Scene, &[&str])]) {
    for (name, scene, expected) in rows {
        assert_eq!(told(&scene.plan()), *expected, "{name}");
    }
}

fn other(target: Target<'static>, scene: Scene) -> Scene {
    Scene { target, ..scene }
}

const NEWER: Target<'static> = Target::Install { pool: Some("p"), digest: "newer" };

#[test]
fn a_node_is_begun_when_its_driver_is_another_one_and_only_then() {
    let begun: &[&str] = &["cordon, Cordoned, record"];
    let requested = |scene: Scene| scene.node(|node| node.is_requested = true);
    holds(&[
        ("an old driver", Scene::old(), begun),
        ("the wanted driver", Scene::old().upgraded(), &[]),
        ("the wanted driver, asked for", requested(Scene::old().upgraded()), &["cordon, Cordoned, record, heard"]),
        ("skipped", Scene::old().node(|node| node.is_skipped = true), &[]),
        ("skipped and asked for", requested(Scene::old().node(|node| node.is_skipped = true)), &[]),
        ("not ready", Scene::old().node(|node| node.is_ready = false), &[]),
        ("being deleted", Scene::old().node(|node| node.is_deleted = true), &[]),
        ("cordoned by an admin", Scene::old().node(|node| node.is_unschedulable = true), &["Cordoned, record"]),
        ("no driver pod yet", Scene::old().driver(&[]), &[]),
        ("no driver pod yet, asked for", requested(Scene::old().driver(&[])), &[]),
        ("its pod is being replaced already", Scene::old().new_driver(|pod| pod.is_terminating = true), &[]),
        ("not for this node", other(Target::None, Scene::old()), &[]),
        ("kernel unknown", other(Target::Unknown("no kernel"), Scene::old()), &[]),
        ("without the deploy label", Scene::old().node(|node| node.deploys_driver = false), &[]),
        ("in another pool", Scene::old().node(|node| node.pool = None), begun),
        ("in another pool, nothing has run", Scene::old().node(|node| node.pool = None).driver(&[never_ran()]), &[]),
        ("booted with another kernel", Scene::old().node(|node| node.pool = None).driver(&[other_kernel()]), &[]),
        ("nothing has run, in its pool", Scene::old().driver(&[never_ran()]), begun),
    ]);
}

fn never_ran() -> crate::pods::DriverPod {
    crate::pods::DriverPod { has_begun: false, is_ready: false, ..driver_pod("old-pod", "old") }
}

fn other_kernel() -> crate::pods::DriverPod {
    crate::pods::DriverPod { kernel: Some("5.15".into()), ..driver_pod("old-pod", "old") }
}

#[test]
fn a_cordoned_node_waits_for_jobs_and_evicts() {
    let jobs = |scene: Scene| scene.evicts(&["w1"]).pods(|pods| pods.jobs = vec![pod("j1")]);
    let refused = |scene: Scene| {
        scene.pods(|pods| pods.to_evict = vec![WorkloadPod { refusal: Some("budget".into()), ..workload("w1") }])
    };
    let ending =
        |scene: Scene| scene.pods(|pods| pods.to_evict = vec![WorkloadPod { is_terminating: true, ..workload("w1") }]);
    let forever = Scene { jobs_gone: Some(ago(1)), ..cordoned(8).evicts(&["w1"]) };
    holds(&[
        ("pods are not listed yet", Scene { pods: None, ..cordoned(0) }, &[]),
        ("pods cannot be listed", Scene { pods: None, ..cordoned(5) }, &["uncordon, Failed, PodsUnknown"]),
        ("jobs run", jobs(cordoned(9)), &[]),
        ("jobs outlast their time", jobs(cordoned(10)), &["evict w1"]),
        ("jobs outlast their time and that of evictions", jobs(cordoned(15)), &["uncordon, Failed, EvictionTimedOut"]),
        ("jobs ended a minute ago", forever, &["evict w1"]),
        ("pods are there", cordoned(1).evicts(&["w1", "w2"]), &["evict w1", "evict w2"]),
        ("a pod is ending", ending(cordoned(4)), &[]),
        ("a pod does not end", ending(cordoned(5)), &["uncordon, Failed, EvictionTimedOut"]),
        ("a budget refuses", refused(cordoned(4)), &["evict w1"]),
        ("a budget never allows", refused(cordoned(5)), &["uncordon, Failed, EvictionTimedOut"]),
        ("emptyDir", cordoned(0).obstacle(Obstacle::EmptyDir), &["uncordon, Failed, PodNotEvictable"]),
        ("unmanaged", cordoned(0).obstacle(Obstacle::Unmanaged), &["uncordon, Failed, PodNotEvictable"]),
        ("not ready", cordoned(0).node(|node| node.is_ready = false), &["uncordon, Failed, NodeNotReady"]),
        ("free", cordoned(2), &["Restarting, record, pause"]),
        ("the new driver is there already", cordoned(2).new_driver(|_| ()), &["Validating, record"]),
        ("skipped meanwhile", cordoned(2).node(|node| node.is_skipped = true), &["uncordon, Skipped, no record"]),
        ("another driver is wanted", other(NEWER, cordoned(2)), &["uncordon, no state, no record"]),
    ]);
}

#[test]
fn what_somebody_else_did_to_the_cordon_stays() {
    let lifted = |scene: Scene| scene.node(|node| node.is_unschedulable = false);
    let theirs = |scene: Scene| scene.edit(|record| record.cordoned = false);
    holds(&[
        ("lifted: the record stops claiming it", lifted(cordoned(1)).evicts(&["w1"]), &["record", "evict w1"]),
        ("lifted: not cordoned again", theirs(lifted(cordoned(1))).evicts(&["w1"]), &["evict w1"]),
        ("lifted, done", lifted(validating(1)), &["Done, no record"]),
        ("an admin's, done", theirs(validating(1)), &["Done, no record"]),
        ("an admin's, failed", theirs(cordoned(0)).obstacle(Obstacle::EmptyDir), &["Failed, PodNotEvictable"]),
    ]);
}

#[test]
fn a_restarting_node_replaces_its_driver_once_nothing_uses_it() {
    let dependents = |scene: Scene| scene.pods(|pods| pods.dependents = vec![pod("dp")]);
    let starting = |change: fn(&mut crate::pods::DriverPod)| {
        move |scene: Scene| {
            scene.new_driver(|pod| {
                pod.is_ready = false;
                change(pod);
            })
        }
    };
    let failed = |reason| ["uncordon, Failed, ", reason, ", resume"].concat();
    let lost = |scene: Scene| scene.node(|node| node.is_ready = false);
    let orphan = |scene: Scene| Scene { is_orphan: true, ..scene }.node(|node| node.pool = None);
    let in_pool = |scene: Scene, pool: &str| scene.node(|node| node.pool = Some(pool.into()));
    let rows: Vec<(&str, Scene, Vec<String>)> = vec![
        ("pods unknown", Scene { pods: None, ..restarting(0) }, vec![]),
        ("dependents stay", dependents(restarting(4)), vec![]),
        ("dependents stay for good", dependents(restarting(5)), vec![failed("DependentsStay")]),
        ("a pod came back", restarting(0).evicts(&["w1"]), vec!["evict w1".into()]),
        ("the kubelet still reports NPUs", restarting(0).npus(8), vec![]),
        ("the kubelet reports NPUs for ever", restarting(1).npus(8), vec!["delete old-pod".into()]),
        ("free", restarting(0), vec!["delete old-pod".into()]),
        ("free, and to move", restarting(0).node(|node| node.pool = None), vec!["pool ".into()]),
        ("free, and to move from a pool", in_pool(restarting(0), "other"), vec!["pool ".into()]),
        ("no DaemonSet ends it any more", in_pool(restarting(0), ""), vec!["delete old-pod".into()]),
        ("is ending, and to move on", starting(|pod| pod.is_terminating = true)(in_pool(restarting(1), "")), vec![]),
        ("is gone, and to move on", in_pool(restarting(1), "").driver(&[]), vec!["pool p".into()]),
        ("free, and to move from no DaemonSet", orphan(restarting(0)), vec!["delete old-pod".into()]),
        ("is ending, and to move", starting(|pod| pod.is_terminating = true)(orphan(restarting(1))), vec![]),
        ("is gone, and to move", orphan(restarting(1)).driver(&[]), vec!["pool p".into()]),
        (
            "left over in another pool",
            restarting(0).driver(&[driver_pod("old-pod", "old"), driver_pod("new-pod", "new")]),
            vec!["delete old-pod".into()],
        ),
        ("cannot be deleted", restarting(10), vec![failed("DriverPodTerminating")]),
        ("is ending", starting(|pod| pod.is_terminating = true)(restarting(9)), vec![]),
        (
            "does not end",
            starting(|pod| pod.is_terminating = true)(restarting(10)),
            vec![failed("DriverPodTerminating")],
        ),
        ("no pod yet", restarting(9).driver(&[]), vec![]),
        ("no pod", restarting(10).driver(&[]), vec![failed("DriverPodMissing")]),
        ("no pod, and to move", restarting(1).driver(&[]).node(|node| node.pool = None), vec!["pool p".into()]),
        ("starting", starting(|_| ())(restarting(9)), vec![]),
        ("never ready", starting(|_| ())(restarting(10)), vec![failed("DriverNotReady")]),
        (
            "image missing",
            starting(|pod| pod.is_image_missing = true)(restarting(1)),
            vec![failed("DriverImageMissing")],
        ),
        ("crashed a few times", starting(|pod| pod.restarts = 4)(restarting(1)), vec![]),
        ("crashes", starting(|pod| pod.restarts = 5)(restarting(1)), vec![failed("DriverCrashes")]),
        ("node lost", lost(starting(|_| ())(restarting(9))), vec![]),
        ("node lost for good", lost(starting(|_| ())(restarting(10))), vec![failed("NodeLost")]),
        ("node lost before its driver was touched", lost(restarting(10)), vec![failed("NodeNotReady")]),
        ("ready", restarting(1).new_driver(|_| ()), vec!["Validating, resume".into()]),
        ("ready at the last moment", restarting(10).new_driver(|_| ()), vec!["Validating, resume".into()]),
        (
            "skipped, not touched yet",
            restarting(1).node(|node| node.is_skipped = true),
            vec!["uncordon, Skipped, no record, resume".into()],
        ),
        ("skipped too late", starting(|_| ())(restarting(1)).node(|node| node.is_skipped = true), vec![]),
        (
            "another is wanted, not touched yet",
            other(NEWER, restarting(1)),
            vec!["uncordon, no state, no record, resume".into()],
        ),
        (
            "another is wanted, this one works",
            other(NEWER, restarting(1).new_driver(|_| ())),
            vec!["uncordon, no state, no record, resume".into()],
        ),
        ("another is wanted, none works", other(NEWER, starting(|_| ())(restarting(9))), vec!["record, pause".into()]),
        ("another is wanted, no pod", other(NEWER, restarting(9).driver(&[])), vec!["record, pause".into()]),
    ];
    for (name, scene, expected) in rows {
        assert_eq!(told(&scene.plan()), expected, "{name}");
    }
}

#[test]
fn a_validating_node_is_done_when_its_npus_are_back() {
    let lost = |scene: Scene| scene.node(|node| node.is_ready = false);
    let unready = |scene: Scene| scene.new_driver(|pod| pod.is_ready = false);
    let no_plugin = |scene: Scene| scene.node(|node| node.deploys_device_plugin = false);
    let none_before = |scene: Scene| scene.edit(|record| record.npus.clear());
    let renamed = |scene: Scene| scene.node(|node| node.npus = [("rebellions.ai/ATOM2".to_owned(), 8)].into());
    holds(&[
        ("all are back", validating(1), &["uncordon, Done, no record"]),
        ("all are back, under another name", renamed(validating(1)), &["uncordon, Done, no record"]),
        ("one is missing", validating(9).npus(7), &[]),
        ("one stays missing", validating(10).npus(7), &["uncordon, Failed, NpusMissing"]),
        ("none before, a device plugin", none_before(validating(1).npus(0)), &[]),
        ("none before, a device plugin, one now", none_before(validating(1).npus(1)), &["uncordon, Done, no record"]),
        (
            "none before, no device plugin",
            no_plugin(none_before(validating(1).npus(0))),
            &["uncordon, Done, no record"],
        ),
        ("some before, no device plugin", no_plugin(validating(1).npus(0)), &[]),
        ("not ready any more", unready(validating(9)), &[]),
        ("not ready any more for good", unready(validating(10)), &["uncordon, Failed, DriverNotReady"]),
        ("node lost", lost(validating(9)), &[]),
        ("node lost for good", lost(validating(10)), &["uncordon, Failed, NodeLost"]),
        ("the old driver is back", validating(1).driver(&[driver_pod("x", "old")]), &["Restarting, pause"]),
        ("another is wanted", other(NEWER, validating(1)), &["uncordon, no state, no record"]),
        ("skipped too late", validating(1).node(|node| node.is_skipped = true), &["uncordon, Done, no record"]),
    ]);
}

#[test]
fn a_failed_node_recovers_or_is_tried_again() {
    let timed_out = |minutes| Scene::old().failed(Reason::EvictionTimedOut, minutes);
    let crashed = |minutes| {
        Scene::old().failed(Reason::DriverCrashes, minutes).new_driver(|pod| (pod.is_ready, pod.restarts) = (false, 9))
    };
    let image = |minutes| {
        let scene = Scene::old().failed(Reason::DriverImageMissing, minutes);
        scene.new_driver(|pod| (pod.is_ready, pod.is_image_missing) = (false, true))
    };
    let again: &[&str] = &["cordon, Cordoned, record"];
    holds(&[
        ("too early", timed_out(4), &[]),
        ("after its time", timed_out(5), again),
        ("asked for", timed_out(1).node(|node| node.is_requested = true), &["cordon, Cordoned, record, heard"]),
        ("skipped", timed_out(5).node(|node| node.is_skipped = true), &[]),
        ("not ready", timed_out(5).node(|node| node.is_ready = false), &[]),
        ("the second time, too early", timed_out(9).edit(|record| record.attempt = 2), &[]),
        ("another driver is wanted", other(NEWER, timed_out(1)), again),
        ("somebody replaced the pod", timed_out(1).new_driver(|_| ()), &["Done, no record"]),
        ("the driver still crashes", crashed(4), &[]),
        ("the driver works after all", crashed(4).new_driver(|_| ()), &["Done, no record"]),
        ("the driver works, NPUs are missing", crashed(4).new_driver(|_| ()).npus(7), &[]),
        ("the image is still missing", image(600), &[]),
        ("the image exists", image(600).new_driver(|_| ()), &["Done, no record"]),
        ("the old driver was wanted again", other(OLD, timed_out(1)), &["Done, no record"]),
        ("the replaced pod is no recovery", asked_for().failed(Reason::EvictionTimedOut, 1), &[]),
        ("the label is gone", timed_out(4).node(|node| node.state = None), &[]),
    ]);
}

const OLD: Target<'static> = Target::Install { pool: Some("p"), digest: "old" };

fn asked_for() -> Scene {
    Scene::old().driver(&[driver_pod("old-pod", "new")])
}

#[test]
fn what_was_known_of_a_failure_is_kept_while_it_is_tried_again() {
    let plan = Scene::old().failed(Reason::DriverCrashes, 5).npus(0).plan_by(&tolerant());
    let [Action::Patch { patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    let record =
        Record::parse(patch["metadata"]["annotations"]["petasus.io/driver-upgrade"].as_str().expect("a record"));
    let record = record.expect("one of ours");
    assert_eq!((record.attempt, record.reason.as_str(), record.message.as_str()), (2, "DriverCrashes", ""));
    assert_eq!(record.npus.values().sum::<u64>(), 8, "as many as before the first attempt");
    assert_eq!(record.replaces, "old-pod");
    assert_eq!(record.since, Some(now()));
}

fn tolerant() -> Policy {
    Policy { failure_threshold: IntOrPercent::Percent(100), ..policy() }
}

/// In a large cluster every node is Done when the next driver is wanted.
#[test]
fn while_the_daemon_set_is_being_written_everything_stays() {
    let pending = |scene: Scene| other(Target::Pending, scene);
    let rows: &[(&str, Scene, &[&str])] = &[
        ("done", Scene::old().upgraded(), &[]),
        ("asked for", Scene::old().upgraded().node(|node| node.is_requested = true), &[]),
        ("failed", Scene::old().failed(Reason::DriverCrashes, 90), &[]),
        ("cordoned", cordoned(1).evicts(&["w1"]), &[]),
        ("restarting", restarting(9), &[]),
        ("validating", validating(9), &[]),
        ("for too long", restarting(10), &["uncordon, no state, no record, resume"]),
    ];
    for (case, scene, expected) in rows {
        assert_eq!(told(&pending(scene.clone()).plan()), *expected, "{case}");
    }
    let off = Policy { auto_upgrade: false, ..policy() };
    assert_eq!(told(&pending(cordoned(1)).plan_by(&off)), ["uncordon, no state, no record"]);
    assert_eq!(pending(cordoned(1)).plan().follow, ["n1"], "its pods are not listed again");
}

#[test]
fn where_no_upgrade_is_wanted_everything_of_ours_is_undone() {
    let off = Policy { auto_upgrade: false, ..policy() };
    let nowhere = |scene: Scene| other(Target::None, scene);
    let unknown = |scene: Scene| other(Target::Unknown("no kernel"), scene);
    let unlabelled = |scene: Scene| scene.node(|node| node.deploys_driver = false);
    let admins = |scene: Scene| scene.edit(|record| record.cordoned = false);
    let undone: &[&str] = &["uncordon, no state, no record"];
    let resumed: &[&str] = &["uncordon, no state, no record, resume"];
    let rows: &[(&str, Scene, &[&str])] = &[
        ("cordoned", cordoned(1), undone),
        ("restarting", restarting(1), resumed),
        ("validating", validating(1), undone),
        ("an admin's cordon", admins(cordoned(1)), &["no state, no record"]),
        ("failed", Scene::old().failed(Reason::DriverCrashes, 1), &["no state, no record"]),
        ("done", Scene::old().upgraded(), &["no state"]),
    ];
    for (name, scene, expected) in rows {
        assert_eq!(told(&scene.plan_by(&off)), *expected, "{name}, switched off");
        for scene in [nowhere(scene.clone()), unknown(scene.clone()), unlabelled(scene.clone())] {
            assert_eq!(told(&scene.plan()), *expected, "{name}, {:?}", scene.target);
        }
    }
    assert!(Scene::old().plan_by(&off).actions.is_empty());
}

#[test]
fn a_lost_record_is_said_and_the_cordon_stays() {
    for state in [State::Cordoned, State::Restarting, State::Validating, State::Failed] {
        let scene = Scene::old().under_way(state, 1).node(|node| node.record = None);
        let plan = scene.plan();
        let [Action::Patch { patch, tell: Some(tell), .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
        assert!(patch.get("spec").is_none() && tell.warning, "{patch}");
        assert_eq!(tell.reason, "DriverUpgradeRecordLost");
    }
}

#[test]
fn patches_are_guarded_and_say_since_when_and_how_long() {
    let plan = cordoned(1).plan();
    let [Action::Patch { node, patch, tell }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((node.as_str(), tell), ("n1", &None));
    let until = now() + SignedDuration::from_mins(12);
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    assert_eq!(patch["metadata"]["annotations"]["petasus.io/driver-dependents-paused-until"], json!(until));
    let record = patch["metadata"]["annotations"]["petasus.io/driver-upgrade"].as_str().and_then(Record::parse);
    assert_eq!(record.and_then(|record| record.since), Some(now()));
}

#[test]
fn pods_are_followed_only_while_they_matter() {
    for (name, scene, follows) in [
        ("old", Scene::old(), false),
        ("cordoned", Scene { pods: None, ..cordoned(1) }, true),
        ("cordoned, nothing in the way", cordoned(1), true),
        ("restarting, old driver", restarting(0).npus(8), true),
        ("restarting, new driver", restarting(0).driver(&[]), false),
        ("validating", validating(1).npus(0), false),
        ("failed", Scene::old().failed(Reason::DriverCrashes, 1), false),
    ] {
        assert_eq!(!scene.plan().follow.is_empty(), follows, "{name}");
    }
}

#[test]
fn a_plan_is_due_when_time_alone_changes_something() {
    let in_seconds = |seconds| Some(now() + SignedDuration::from_secs(seconds));
    let refused = |scene: Scene| {
        scene.pods(|pods| pods.to_evict = vec![WorkloadPod { refusal: Some("budget".into()), ..workload("w1") }])
    };
    for (name, scene, due) in [
        ("nothing to do", Scene::old().upgraded(), None),
        ("evictions have their time", cordoned(1).evicts(&["w1"]), in_seconds(240)),
        ("a refused eviction", refused(cordoned(1)), in_seconds(10)),
        ("jobs", cordoned(1).pods(|pods| pods.jobs = vec![pod("j")]), in_seconds(540)),
        ("no pod yet", restarting(1).driver(&[]), in_seconds(540)),
        ("npus", validating(1).npus(0), in_seconds(540)),
        ("a failure", Scene::old().failed(Reason::EvictionTimedOut, 1), in_seconds(240)),
    ] {
        assert_eq!(scene.plan().due, due, "{name}");
    }
}
