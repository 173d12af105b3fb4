//! Components that step aside for a while: by our own driver controller, and by the vendor's driver manager.

use super::*;

/// The node with this annotation, as the API server sends it.
fn annotated(version: u64, node: &NodeView, paused_until: Option<Timestamp>) -> NodeView {
    let paused_until = paused_until.map(|until| until.to_string().into());
    NodeView { version, paused_until, ..node.clone() }
}

/// Carries out what is to be written, as the API server does. Returns the node's labels that are set afterwards.
fn carry_out(index: &mut Index, name: &str, version: u64, now: Instant) -> Vec<&'static str> {
    index.advance(now);
    let work = index.next_work(now).expect("something to write");
    let mut view = index.store.get(name).expect("a node").clone();
    for change in &work.changes {
        match change {
            Change::Label(place, set) => {
                view.deploy[*place] = if *set { DeployLabel::Ours } else { DeployLabel::Absent };
            }
            Change::Record(owned) => view.recorded = *owned,
        }
    }
    let set = view.deploy.map(DeployLabel::is_set);
    index.answer(name, Answer::Done(work.changes, NodeView { version, ..view }), now);
    let components = accelerator_api::contract::COMPONENTS.iter().zip(set);
    components.filter(|(_, is_set)| *is_set).map(|(component, _)| component.name).collect()
}

const ALL: [&str; 4] = ["driver", "device-plugin", "metric-exporter", "npu-feature-discovery"];

#[test]
fn dependents_step_aside_with_one_patch_and_come_back_with_one_when_the_annotation_goes_or_its_time_comes() {
    for is_removed in [true, false] {
        let now = Instant::now();
        let settled = labelled(1, &container(1));
        let mut index = index(MODES, &[("a", settled.clone())], now);
        let until = WALL + Duration::from_mins(12);
        index.apply("a", annotated(2, &settled, Some(until)), now);
        assert_eq!(carry_out(&mut index, "a", 3, now), ["driver"]);
        index.advance(now + FRESH);
        assert_eq!(work(&mut index, now + FRESH), Vec::<String>::new());
        let assignments = index.assignments();
        assert_eq!((assignments.assigned, assignments.pending, assignments.fresh), ([1, 0, 0, 0, 0], 0, false));
        assert!(assignments.stepped_aside.expect("told").ends_with("step aside on node a"));
        let (almost, over) = (now + Duration::from_secs(719), now + Duration::from_mins(12));
        assert_eq!(index.due_at(), Some(over));
        let back_at = if is_removed {
            let aside = NodeView { paused_until: None, ..index.store.get("a").expect("a node").clone() };
            index.apply("a", NodeView { version: 4, ..aside }, now + FRESH);
            now + FRESH
        } else {
            assert_eq!(work(&mut index, almost), Vec::<String>::new());
            over
        };
        assert_eq!(carry_out(&mut index, "a", 5, back_at), ALL);
        index.advance(back_at + FRESH);
        let assignments = index.assignments();
        assert_eq!((assignments.stepped_aside, assignments.contested, index.due_at()), (None, None, None));
        assert_eq!(index.take_notices(), []);
    }
}

#[test]
fn a_wall_clock_that_is_set_is_noticed() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut index = index(MODES, &[("a", settled.clone())], now);
    index.apply("a", annotated(2, &settled, Some(WALL + Duration::from_mins(12))), now);
    assert_eq!(carry_out(&mut index, "a", 3, now), ["driver"]);
    let later = now + Duration::from_mins(12);
    index.set_clock(Clock { instant: later, wall: WALL + Duration::from_mins(2) });
    assert_eq!(work(&mut index, later), Vec::<String>::new(), "ten minutes are left");
    assert_eq!(index.due_at(), Some(later + Duration::from_mins(10)));
}

#[test]
fn a_restart_finds_dependents_aside_and_a_pause_that_counts_as_nothing_is_told_once() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut aside = annotated(2, &settled, Some(WALL + Duration::from_mins(1)));
    for place in [1, 2, 4] {
        aside.deploy[place] = DeployLabel::Absent;
    }
    let mut index = index(MODES, &[("a", aside)], now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    assert!(!index.assignments().fresh && index.assignments().stepped_aside.is_some());
    assert_eq!(carry_out(&mut index, "a", 3, now + Duration::from_mins(1)), ALL);

    index.apply("b", annotated(4, &settled, Some(WALL + Duration::from_hours(9))), now);
    for version in 5..8 {
        index.apply("b", annotated(version, &settled, Some(WALL + Duration::from_hours(9))), now);
    }
    assert_eq!(work(&mut index, now + Duration::from_hours(8)), Vec::<String>::new());
    let notices = index.take_notices();
    assert!(
        matches!(&notices[..], [Notice::PauseRefused { node, why }] if node == "b" && why.contains("2 hours")),
        "{notices:?}"
    );
}

#[test]
fn labels_that_a_dead_driver_manager_left_paused_are_set_again_and_told_once() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut index = index(MODES, &[("a", settled.clone())], now);
    let mut paused = NodeView { version: 2, ..settled };
    for place in [1, 2] {
        (paused.deploy[place], paused.paused[place]) = (DeployLabel::Paused, true);
    }
    index.apply("a", paused.clone(), now);
    let over = now + HOLD_DOWNS.paused_labels;
    assert_eq!(work(&mut index, now + Duration::from_mins(29)), Vec::<String>::new());
    assert_eq!(index.due_at(), Some(over));
    index.advance(over);
    let refused = index.next_work(over).expect("something to write");
    index.answer(&refused.node, Answer::Failed("no".into()), over);
    let retry = over + Duration::from_secs(2);
    assert_eq!(carry_out(&mut index, "a", 3, retry), ALL);
    let labels = vec!["rebellions.ai/npu.deploy.device-plugin", "rebellions.ai/npu.deploy.metric-exporter"];
    assert_eq!(index.take_notices(), [Notice::LabelsRestored { node: "a".into(), labels }]);
    // While the driver controller is at work it knows better.
    index.apply("a", annotated(4, &paused, Some(WALL + Duration::from_hours(2))), now);
    index.advance(now + Duration::from_hours(1));
    assert!(index.store.get("a").expect("a node").deploy[1] == DeployLabel::Paused);
    assert_eq!(index.take_notices(), []);
}

#[test]
fn who_leads_no_longer_neither_pauses_nor_tells() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut index = index(MODES, &[("a", settled.clone())], now);
    index.on_leadership_lost(now);
    index.apply("a", annotated(2, &settled, Some(WALL + Duration::from_mins(1))), now);
    index.apply("b", annotated(3, &settled, Some(WALL + Duration::from_hours(9))), now);
    assert_eq!(work(&mut index, now + Duration::from_mins(2)), Vec::<String>::new());
    assert_eq!(index.take_notices(), []);
    index.set_policy(MODES, now);
    assert_eq!((work(&mut index, now), index.take_notices().len()), (vec!["a".to_owned()], 1));
}

/// Somebody sets the label again whenever it is withdrawn.
#[test]
fn a_fight_during_the_pause_is_told_and_over_when_the_pause_is() {
    let mut now = Instant::now();
    let settled = labelled(1, &container(1));
    let until = WALL + Duration::from_mins(12);
    let mut index = index(MODES, &[("a", annotated(1, &settled, Some(until)))], now);
    for (version, pause) in [(2, 0), (4, 0), (6, 5)] {
        now += Duration::from_secs(pause);
        assert_eq!(carry_out(&mut index, "a", version, now), ["driver"]);
        let mut fought = index.store.get("a").expect("a node").clone();
        fought.deploy[1] = DeployLabel::Ours;
        index.apply("a", NodeView { version: version + 1, ..fought }, now);
    }
    let told = index.take_contest().expect("it is told");
    assert!(told.contains("sets the label rebellions.ai/npu.deploy.device-plugin each time"), "{told}");
    assert_eq!(carry_out(&mut index, "a", 8, now + Duration::from_mins(12)), ALL);
    index.advance(now + Duration::from_mins(13));
    let assignments = index.assignments();
    assert_eq!((assignments.contested, assignments.pending, index.due_at()), (None, 0, None));
}
