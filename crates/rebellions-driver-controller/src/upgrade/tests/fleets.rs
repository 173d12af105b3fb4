//! Several nodes: order, limits, and why nothing goes on.

use super::scene::{Scene, driver_pod, fleet};
use super::world::policy;
use crate::upgrade::{Blocked, Fleet, IntOrPercent, Policy, Reason, State, Target, UpgradePlan, plan};

fn planned(policy: &Policy, scenes: &[Scene]) -> UpgradePlan {
    let members: Vec<_> = scenes.iter().map(Scene::member).collect();
    plan(&Fleet { own_node: Some("own"), ..fleet(policy, &members) })
}

fn begun(policy: &Policy, scenes: &[Scene]) -> Vec<String> {
    planned(policy, scenes).actions.iter().map(|action| action.node().to_owned()).collect()
}

fn parallel(number: usize) -> Policy {
    Policy { max_parallel: IntOrPercent::Int(number), max_unavailable: IntOrPercent::Percent(100), ..policy() }
}

fn proven() -> Scene {
    Scene::named("z-done").upgraded()
}

fn crashed(name: &str) -> Scene {
    let scene = Scene::named(name).failed(Reason::DriverCrashes, 1);
    scene.new_driver(|pod| (pod.is_ready, pod.restarts) = (false, 9))
}

fn in_pool(name: &str, pool: &'static str) -> Scene {
    let scene = Scene::named(name).node(|node| node.pool = Some(pool.into()));
    Scene { target: Target::Install { pool: Some(pool), digest: pool }, ..scene }
}

#[test]
fn nodes_are_begun_in_an_order_that_does_not_depend_on_luck() {
    let scenes = [
        Scene::named("own"),
        Scene::named("a-cordoned").node(|node| node.is_unschedulable = true),
        Scene::named("d-failed").failed(Reason::EvictionTimedOut, 5),
        Scene::named("c"),
        Scene::named("b"),
        Scene::named("x-asked").node(|node| node.is_requested = true),
        proven(),
    ];
    let order = ["x-asked", "b", "c", "a-cordoned", "own", "d-failed"];
    for number in 1..=6 {
        assert_eq!(begun(&parallel(number), &scenes), order[..number]);
    }
}

#[test]
fn a_first_node_per_pool_proves_the_driver() {
    let pools = || vec![in_pool("a1", "p1"), in_pool("a2", "p1"), in_pool("b1", "p2"), in_pool("b2", "p2")];
    assert_eq!(begun(&parallel(9), &pools()), ["a1", "b1"]);
    let mut first = pools();
    first[0] = in_pool("a1", "p1").driver(&[driver_pod("new", "p1")]).node(|node| node.state = Some(State::Done));
    assert_eq!(begun(&parallel(9), &first), ["a2", "b1"], "the second of p1 after its first");
    let validating = in_pool("a1", "p1").under_way(State::Validating, 1).edit(|record| record.install = "p1".into());
    first[0] = validating.driver(&[driver_pod("new", "p1")]).npus(0);
    assert_eq!(begun(&parallel(9), &first), ["b1"], "a first node that is not done proves nothing");
}

#[test]
fn nodes_that_are_unavailable_anyway_use_up_the_budget_and_may_be_upgraded() {
    let policy = Policy { max_parallel: IntOrPercent::Int(9), max_unavailable: IntOrPercent::Int(2), ..policy() };
    let dead = |name: &str| Scene::named(name).node(|node| node.is_ready = false);
    let cordoned = |name: &str| Scene::named(name).node(|node| node.is_unschedulable = true);
    assert_eq!(begun(&policy, &[Scene::named("a"), Scene::named("b"), Scene::named("c"), proven()]), ["a", "b"]);
    assert_eq!(begun(&policy, &[Scene::named("a"), Scene::named("b"), dead("x"), proven()]), ["a"]);
    let blocked = planned(&policy, &[Scene::named("a"), dead("x"), dead("y"), proven()]);
    assert!(blocked.actions.is_empty());
    let (reason, message) = blocked.summary.blocked.expect("blocked");
    assert_eq!(reason, Blocked::BudgetUsedUp);
    assert_eq!(
        message,
        "2 of 4 nodes are unavailable (x, y), and driver.upgradePolicy.maxUnavailable allows no more than 2"
    );
    assert_eq!(begun(&policy, &[Scene::named("a"), cordoned("b"), dead("x"), proven()]), ["b"]);
}

#[test]
fn too_many_failures_pause_the_rollout() {
    let by = |rollback| Policy { rollback, ..parallel(9) };
    let one = [crashed("a"), Scene::named("b"), proven()];
    assert_eq!(begun(&by(true), &one), ["b"], "one of two is within 30 %, rounded up");
    let two = [crashed("a"), crashed("b"), Scene::named("c"), proven()];
    let plan = planned(&by(false), &two);
    assert!(plan.actions.is_empty() && !plan.roll_back);
    let (reason, message) = plan.summary.blocked.expect("blocked");
    assert_eq!(reason, Blocked::FailureThresholdExceeded);
    assert!(message.starts_with("the driver failed on 2 of 3 nodes"), "{message}");
    assert!(planned(&by(true), &two).roll_back);
    let again = [crashed("a"), crashed("b").node(|node| node.is_requested = true), Scene::named("c"), proven()];
    assert_eq!(begun(&by(false), &again), ["b"], "who is asked for is tried");
    let tried = crashed("b").node(|node| node.state = Some(State::Cordoned)).edit(|record| record.message.clear());
    let plan = planned(&by(false), &[crashed("a"), tried, Scene::named("c"), proven()]);
    assert_eq!(
        plan.summary.blocked.map(|(reason, _)| reason),
        Some(Blocked::FailureThresholdExceeded),
        "failed until it is done"
    );
    let skipped = [crashed("a"), crashed("b").node(|node| node.is_skipped = true), Scene::named("c"), proven()];
    assert_eq!(begun(&by(false), &skipped), ["c"], "an admin deals with it");
}

#[test]
fn what_says_nothing_about_the_driver_does_not_pause_the_rollout() {
    let refused = |name: &str| Scene::named(name).failed(Reason::EvictionTimedOut, 1);
    let scenes = [refused("a"), refused("b"), refused("c"), Scene::named("d"), proven()];
    assert_eq!(begun(&parallel(9), &scenes), ["d"]);
}

#[test]
fn nothing_is_rolled_back_twice() {
    let scenes = [crashed("a"), crashed("b"), proven()];
    let members: Vec<_> = scenes.iter().map(Scene::member).collect();
    let policy = Policy { rollback: true, ..parallel(9) };
    assert!(!plan(&Fleet { is_rolled_back: true, ..fleet(&policy, &members) }).roll_back);
}

#[test]
fn a_missing_image_holds_up_its_pool_and_no_other() {
    let missing =
        in_pool("a1", "p1").failed(Reason::DriverImageMissing, 600).edit(|record| record.install = "p1".into());
    let pod = crate::pods::DriverPod {
        is_ready: false,
        is_image_missing: true,
        problem: Some("ErrImagePull: r/d:1 not found".into()),
        ..driver_pod("new", "p1")
    };
    let missing = missing.driver(&[pod]);
    let scenes = [missing.clone(), in_pool("a2", "p1"), in_pool("b1", "p2"), in_pool("b2", "p2")];
    assert_eq!(begun(&parallel(9), &scenes), ["b1"]);
    let plan = planned(&parallel(9), &scenes[..2]);
    let (reason, message) = plan.summary.blocked.expect("blocked");
    assert_eq!(reason, Blocked::DriverImageMissing);
    assert_eq!(message, "node a2 waits: driver pod new on node a1: ErrImagePull: r/d:1 not found");
    let elsewhere = in_pool("a3", "p1").driver(&[driver_pod("new", "p1")]);
    assert_eq!(
        begun(&parallel(9), &[missing, in_pool("a2", "p1"), elsewhere]),
        ["a2"],
        "one registry mirror is to blame"
    );
}

#[test]
fn why_nothing_goes_on_is_said() {
    let dead = Scene::named("x").node(|node| node.is_ready = false);
    let failed = Scene::named("a").failed(Reason::EvictionTimedOut, 1);
    let paused = Policy { paused: true, ..parallel(9) };
    let off = Policy { auto_upgrade: false, ..parallel(9) };
    for (policy, scenes, expected) in [
        (&parallel(9), vec![proven()], None),
        (&parallel(9), vec![Scene::named("a"), proven()], None),
        (&parallel(9), vec![dead.clone(), proven()], Some(Blocked::NodesNotReady)),
        (&parallel(9), vec![failed.clone(), proven()], Some(Blocked::NodesFailed)),
        (&paused, vec![Scene::named("a"), proven()], Some(Blocked::Paused)),
        (&paused, vec![proven()], None),
        (&off, vec![Scene::named("a"), dead], None),
    ] {
        let summary = planned(policy, &scenes).summary;
        assert_eq!(summary.blocked.map(|(reason, _)| reason), expected);
    }
    let message = planned(&parallel(9), &[failed]).summary.blocked.expect("blocked").1;
    assert_eq!(message, "every node that is left has failed: a (EvictionTimedOut)");
}

#[test]
fn states_are_counted_and_ten_nodes_told_worst_first() {
    let mut scenes: Vec<Scene> = (0..20).map(|index| Scene::named(&format!("w{index:02}"))).collect();
    scenes.push(proven());
    scenes.push(crashed("z-crashed"));
    scenes.push(Scene::named("z-skipped").node(|node| node.is_skipped = true));
    scenes.push(Scene::named("z-evicted").under_way(State::Restarting, 0));
    scenes.push(Scene::named("z-restarting").under_way(State::Restarting, 0).driver(&[]));
    let summary = planned(&parallel(2), &scenes).summary;
    let counts = summary.counts;
    assert_eq!((counts.waiting, counts.done, counts.failed, counts.skipped), (20, 1, 1, 1));
    assert_eq!((counts.cordoned, counts.evicted, counts.restarting, counts.validating), (0, 1, 1, 0));
    let told: Vec<_> =
        summary.nodes.iter().map(|node| (node.name.as_str(), node.state, node.reason.as_str())).collect();
    assert_eq!(told.len(), 10);
    assert_eq!(
        told[..5],
        [
            ("z-crashed", "Failed", "DriverCrashes"),
            ("z-restarting", "Restarting", "DriverPodMissing"),
            ("z-evicted", "Evicted", "NpusLeaving"),
            ("z-skipped", "Skipped", "Skipped"),
            ("w00", "Waiting", "WaitingForTurn"),
        ]
    );
    assert_eq!(
        summary.progressing.as_deref(),
        Some("2 of 25 nodes are under way, 1 are done, 21 are left, 1 of these have failed")
    );
}

#[test]
fn a_node_that_the_api_server_refuses_to_write_holds_up_no_other() {
    let refused = |minutes| Scene::named("a").refused(minutes);
    assert_eq!(begun(&parallel(1), &[refused(0), Scene::named("b"), proven()]), ["b"], "it comes last");
    let plan = planned(&parallel(1), &[refused(1), Scene::named("b"), proven()]);
    assert_eq!((plan.held_back.as_slice(), plan.summary.blocked), (["a".to_owned()].as_slice(), None), "b goes on");
    let told = plan.summary.nodes.iter().find(|node| node.name == "a").expect("it is told");
    assert_eq!((told.state, told.reason.as_str()), ("Waiting", "WriteRefused"));
    let words = "node a: the API server refuses to write it, and is asked again ever less often: a policy says no";
    assert_eq!(told.message, words);

    let plan = planned(&parallel(1), &[refused(1), proven()]);
    assert!(plan.actions.is_empty() && plan.due.is_some(), "not before its time");
    let why = "the API server refuses to write a: a policy says no".to_owned();
    assert_eq!(plan.summary.blocked, Some((Blocked::WriteRefused, why.clone())));
    let plan = planned(&parallel(1), &[refused(0), refused(0), proven()]);
    assert_eq!(plan.actions.len(), 1, "limits hold when it is allowed again");
    assert_eq!(plan.summary.progressing, None, "it is not under way by being tried");
    assert_eq!(plan.due, None, "time alone changes nothing");
    let failed = refused(1).failed(Reason::EvictionTimedOut, 600);
    assert_eq!(planned(&parallel(1), &[failed, proven()]).summary.nodes[0].reason, "WriteRefused");
}

#[test]
fn a_node_that_can_be_written_no_more_in_the_middle_is_passed_by_when_its_time_is_over() {
    let stuck = |minutes| Scene::named("a").under_way(State::Cordoned, minutes).refused(1);
    let none = [""; 0];
    assert_eq!(begun(&parallel(1), &[stuck(9), Scene::named("b"), proven()])[1..], none, "it may be written yet");
    assert_eq!(begun(&parallel(1), &[stuck(10), Scene::named("b"), proven()])[1..], ["b"]);
    let all_but_one = Policy { max_unavailable: IntOrPercent::Int(1), ..parallel(1) };
    assert_eq!(begun(&all_but_one, &[stuck(10), Scene::named("b"), proven()])[1..], none, "it is unavailable still");
    let summary = planned(&all_but_one, &[stuck(10), Scene::named("b"), proven()]).summary;
    assert_eq!(summary.blocked.map(|(reason, _)| reason), Some(Blocked::WriteRefused));
    assert_eq!((summary.progressing, summary.counts.cordoned), (None, 1));
}

/// Its cordon cannot be lifted, its pool's label not be set: nothing goes on there until somebody acts.
#[test]
fn what_cannot_be_written_is_told_also_where_nothing_is_upgraded() {
    let off = Policy { auto_upgrade: false, ..parallel(1) };
    let cordoned = Scene::named("a").under_way(State::Cordoned, 1).refused(1);
    let to_move = Scene::named("b").driver(&[]).node(|node| node.pool = None).refused(1);
    for (policy, scene) in [(&off, &cordoned), (&off, &to_move), (&parallel(1), &to_move)] {
        let summary = planned(policy, &[scene.clone(), proven()]).summary;
        assert_eq!(summary.blocked.map(|(reason, _)| reason), Some(Blocked::WriteRefused));
        assert_eq!(summary.nodes.iter().map(|node| node.reason.as_str()).collect::<Vec<_>>(), ["WriteRefused"]);
    }
}
