use super::*;
use crate::view::WorkloadLabel;

const HOLD_DOWN: Duration = Duration::from_mins(10);
const MODES: Policy = Policy::Modes { default: None };
const DEFAULT: Policy = Policy::Modes { default: Some(Workload::Container) };

fn view(version: u64, workload: WorkloadLabel) -> NodeView {
    NodeView { version, workload, ..NodeView::default() }
}

fn container(version: u64) -> NodeView {
    view(version, WorkloadLabel::Mode(Workload::Container))
}

/// The node as the API server answers after our patch.
fn labelled(version: u64, node: &NodeView) -> NodeView {
    let decision = decide(node, MODES, None, HOLD_DOWN);
    NodeView { version, deploy: decision.deploy, ..node.clone() }
}

fn index(policy: Policy, nodes: &[(&str, NodeView)], now: Instant) -> Index {
    let mut index = Index::new(HOLD_DOWN);
    index.begin_list();
    for (name, view) in nodes {
        index.apply(name, view.clone(), now);
    }
    index.end_list(now);
    index.set_policy(policy, now);
    index
}

fn work(index: &mut Index, now: Instant) -> Vec<String> {
    index.advance(now);
    std::iter::from_fn(|| index.next_work()).map(|work| work.node).collect()
}

#[test]
fn each_node_is_written_once_and_then_never_again() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1)), ("b", container(2))], now);
    assert_eq!(work(&mut index, now), ["a", "b"]);
    assert_eq!(work(&mut index, now), Vec::<String>::new(), "in flight");
    for (name, version) in [("a", 3), ("b", 4)] {
        index.finish(name, WorkResult::Done(labelled(version, &container(1))), now);
        index.apply(name, labelled(version, &container(1)), now);
    }
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    assert_eq!(index.assignments().pending, 0);
    assert_eq!(index.counts().container, 2);
    assert_eq!(index.assignments().assigned, [2, 2, 2, 0, 2]);
}

#[test]
fn an_event_older_than_our_own_write_is_ignored() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.finish("a", WorkResult::Done(labelled(5, &container(1))), now);
    index.apply("a", container(3), now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
}

#[test]
fn a_conflict_waits_for_the_event_that_explains_it() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.finish("a", WorkResult::Conflict, now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    index.apply("a", container(2), now);
    assert_eq!(work(&mut index, now), ["a"]);
}

#[test]
fn a_conflict_whose_event_was_here_first_is_tried_again_at_once() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.apply("a", container(2), now);
    index.finish("a", WorkResult::Conflict, now);
    assert_eq!(work(&mut index, now), ["a"]);
}

#[test]
fn failures_are_tried_again_later_and_later_and_are_told() {
    let mut now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    for wait in [2, 4, 8] {
        assert_eq!(work(&mut index, now), ["a"]);
        index.finish("a", WorkResult::Failed("no".into()), now);
        assert_eq!(work(&mut index, now), Vec::<String>::new());
        let due = index.due_at().expect("a retry");
        assert!(due <= now + Duration::from_secs(wait));
        now += Duration::from_secs(wait);
    }
    let assignments = index.assignments();
    assert_eq!((assignments.pending, assignments.trouble.as_deref()), (1, Some("node a: no")));
}

#[test]
fn a_node_that_vanished_under_a_write_is_forgotten() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.finish("a", WorkResult::Gone, now);
    assert_eq!(index.counts(), NodeCounts::default());
    assert_eq!(index.assignments().pending, 0);
    index.finish("a", WorkResult::Failed("late".into()), now);
    assert_eq!(index.counts(), NodeCounts::default());
}

#[test]
fn a_new_list_forgets_nodes_that_are_gone() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1)), ("b", container(1))], now);
    index.begin_list();
    index.apply("b", container(1), now);
    index.end_list(now);
    assert_eq!(index.counts().container, 1);
    assert_eq!(work(&mut index, now), ["b"]);
}

#[test]
fn lost_discovery_is_acted_on_when_its_time_has_come() {
    let now = Instant::now();
    let npu = NodeView { has_npu: true, ..view(1, WorkloadLabel::Absent) };
    let mut index = index(DEFAULT, &[("a", npu.clone())], now);
    assert_eq!(work(&mut index, now), ["a"]);
    let assigned = NodeView { deploy: decide(&npu, DEFAULT, None, HOLD_DOWN).deploy, ..npu };
    index.finish("a", WorkResult::Done(NodeView { version: 2, ..assigned.clone() }), now);
    let lost = NodeView { has_npu: false, ..assigned.clone() };

    index.apply("a", NodeView { version: 3, ..lost.clone() }, now);
    assert_eq!(work(&mut index, now + HOLD_DOWN / 2), Vec::<String>::new());
    // Back in time: the clock starts anew with the next loss.
    index.apply("a", NodeView { version: 4, ..assigned }, now + HOLD_DOWN / 2);
    index.apply("a", NodeView { version: 5, ..lost }, now + HOLD_DOWN / 2);
    assert_eq!(work(&mut index, now + HOLD_DOWN), Vec::<String>::new());
    assert_eq!(work(&mut index, now + HOLD_DOWN * 2), ["a"]);
}

#[test]
fn changes_are_fresh_for_a_while_but_not_what_was_there_before_us() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut index = index(MODES, &[("a", settled.clone())], now);
    assert!(!index.assignments().fresh, "a restart finds a settled cluster settled");
    index.apply("b", settled, now);
    assert!(index.assignments().fresh);
    index.advance(now + FRESH);
    assert!(!index.assignments().fresh);
    assert_eq!(index.due_at(), None, "nothing that has passed is waited for");
    index.remove("b", now + FRESH);
    assert!(index.assignments().fresh, "pods of a node that left must leave, too");
}

#[test]
fn an_invalid_mode_is_announced_once_per_value() {
    let now = Instant::now();
    let unknown = |version, value: &str| view(version, WorkloadLabel::Unknown(value.into()));
    let mut index = index(MODES, &[("a", unknown(1, "contianer"))], now);
    let announced =
        |index: &mut Index| -> Vec<_> { index.take_announcements().into_iter().map(|one| one.value).collect() };
    assert_eq!(announced(&mut index), ["contianer"]);
    index.apply("a", unknown(2, "contianer"), now);
    assert_eq!(announced(&mut index), Vec::<String>::new());
    index.apply("a", unknown(3, "vm"), now);
    assert_eq!(announced(&mut index), ["vm"]);
    assert_eq!(index.counts().invalid_mode, 1);
    assert!(index.assignments().invalid.expect("told").contains("such as a"));
}

#[test]
fn no_config_withdraws_only_after_it_is_known_that_there_is_none() {
    let now = Instant::now();
    let mut index = index(Policy::Frozen, &[("a", labelled(1, &container(1)))], now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    index.set_policy(Policy::Nothing, now);
    assert_eq!(work(&mut index, now), ["a"]);
}

#[test]
fn pods_follow_a_write_however_long_it_took() {
    let begun = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], begun);
    work(&mut index, begun);
    let written = begun + FRESH * 2;
    index.finish("a", WorkResult::Done(labelled(2, &container(1))), written);
    index.advance(written);
    assert!(index.assignments().fresh);
    index.advance(written + FRESH);
    assert!(!index.assignments().fresh);
}

#[test]
fn who_leads_no_longer_writes_and_tells_nothing_and_grows_no_queue() {
    let now = Instant::now();
    let typo = view(1, WorkloadLabel::Unknown("vm".into()));
    let mut index = index(MODES, &[("a", container(1)), ("b", typo.clone())], now);
    index.stand_down(now);
    index.apply("c", container(1), now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    assert_eq!(index.take_announcements(), []);
    assert!(index.queue.is_empty());
    index.set_policy(MODES, now);
    assert_eq!(work(&mut index, now), ["a", "c"]);
    assert_eq!(index.take_announcements().len(), 1);
}
