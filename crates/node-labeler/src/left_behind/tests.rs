use super::*;
use accelerator_api::contract::Workload;

const HOLD_DOWN: Duration = Duration::from_mins(30);
const NONE: PerComponent<bool> = [false; COMPONENTS.len()];
const ONE: PerComponent<bool> = [false, true, false, false, false];
const TWO: PerComponent<bool> = [false, true, true, false, false];

/// What is seen at which minute, paused labels and whether components step aside; then whether it is over.
#[test]
fn the_table() {
    type Seen = (u64, PerComponent<bool>, bool);
    let cases: &[(&[Seen], u64, bool, &str)] = &[
        (&[], 60, false, "nothing was ever paused"),
        (&[(0, ONE, false)], 29, false, "its time has not come"),
        (&[(0, ONE, false)], 30, true, "its time has come"),
        (&[(0, ONE, false), (10, ONE, false), (29, ONE, false)], 30, true, "an event of the node changes nothing"),
        (&[(0, ONE, false), (29, TWO, false)], 30, false, "somebody still pauses"),
        (&[(0, TWO, false), (29, ONE, false)], 58, false, "somebody still resumes"),
        (&[(0, TWO, false), (29, ONE, false)], 59, true, "and then no longer"),
        (&[(0, ONE, false), (20, NONE, false), (21, ONE, false)], 50, false, "another pause"),
        (&[(0, ONE, true)], 60, false, "the driver controller knows what goes on"),
        (&[(0, ONE, false), (29, ONE, true), (40, ONE, false)], 60, false, "it has its time again afterwards"),
        (&[(0, ONE, false), (29, ONE, true), (40, ONE, false)], 70, true, "and no more"),
    ];
    let begun = Instant::now();
    let at = |minute: u64| begun + Duration::from_mins(minute);
    for (seen, minute, expected, why) in cases {
        let mut left_behind = LeftBehind::default();
        for (minute, labels, is_stepping_aside) in *seen {
            left_behind.observe(*labels, *is_stepping_aside, at(*minute));
        }
        assert_eq!(left_behind.is_over(HOLD_DOWN, at(*minute)), *expected, "{why}");
        let ends_at = left_behind.ends_at(HOLD_DOWN, at(*minute));
        assert!(ends_at.is_none_or(|end| end > at(*minute)), "{why}: nothing that has passed is waited for");
        assert!(!*expected || ends_at.is_none(), "{why}");
    }
}

#[test]
fn it_is_told_once_for_the_same_labels() {
    let (mut left_behind, now) = (LeftBehind::default(), Instant::now());
    assert!(!left_behind.take_news());
    left_behind.observe(ONE, false, now);
    assert!(left_behind.take_news() && !left_behind.take_news());
    left_behind.observe(NONE, false, now);
    left_behind.observe(ONE, false, now);
    assert!(left_behind.take_news(), "another pause");
}

#[test]
fn only_paused_labels_of_ours_that_the_mode_wants_are_set_again() {
    let restored = |deploy: DeployLabel, is_paused: bool, state: NodeState, is_hands_off: bool| {
        let mut node = NodeView::default();
        (node.deploy[1], node.paused[1]) = (deploy, is_paused);
        let mut decision = Decision { state, deploy: node.deploy, is_hands_off, is_npu_missing: false };
        let restored = restore(&mut decision, &node);
        assert_eq!(restored[1], decision.deploy[1] != node.deploy[1]);
        restored[1]
    };
    let container = NodeState::InMode(Workload::Container);
    assert!(restored(DeployLabel::Paused, true, container, false));
    assert!(!restored(DeployLabel::Paused, false, container, false), "an admin's `false`");
    assert!(!restored(DeployLabel::Foreign, true, container, false), "it never was ours");
    assert!(!restored(DeployLabel::Paused, true, NodeState::InMode(Workload::VmPassthrough), false), "not wanted");
    assert!(!restored(DeployLabel::Paused, true, NodeState::Unrelated, false), "no mode, or no config");
    assert!(!restored(DeployLabel::Paused, true, container, true), "left as it is");
}
