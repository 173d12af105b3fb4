mod pauses;

use super::*;
use crate::exclusion::Exclusion;
use crate::rules::decide;
use crate::view::WorkloadLabel;
use accelerator_api::contract::Workload;
use k8s_openapi::jiff::Timestamp;

const HOLD_DOWN: Duration = Duration::from_mins(10);
const HOLD_DOWNS: HoldDowns = HoldDowns { discovery: HOLD_DOWN, paused_labels: Duration::from_mins(30) };
const WALL: Timestamp = Timestamp::constant(1_800_000_000, 0);
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
    NodeView { version, deploy: decision.deploy, recorded: decision.deploy.map(DeployLabel::is_owned), ..node.clone() }
}

fn index(policy: Policy, nodes: &[(&str, NodeView)], now: Instant) -> Index {
    let mut index = Index::new(HOLD_DOWNS, Clock { instant: now, wall: WALL });
    list(&mut index, 1, nodes, now);
    index.set_policy(policy, now);
    index
}

fn list(index: &mut Index, version: u64, nodes: &[(&str, NodeView)], now: Instant) {
    index.take(Event::ListBegun(version), now);
    for (name, view) in nodes {
        index.take(Event::Listed((*name).into(), view.clone()), now);
    }
    index.take(Event::ListEnded, now);
}

impl Index {
    fn apply(&mut self, name: &str, view: NodeView, now: Instant) {
        self.take(Event::Applied(name.into(), view), now);
    }

    fn answer(&mut self, name: &str, answer: Answer, now: Instant) {
        self.finish(name, answer, 1.0, now);
    }
}

fn work(index: &mut Index, now: Instant) -> Vec<String> {
    index.advance(now);
    std::iter::from_fn(|| index.next_work(now)).map(|work| work.node).collect()
}

/// What a setting keeps pods off is known of every node at once, whatever taints were found; a component that is not assigned is not
/// kept off.
#[test]
fn nodes_that_settings_leave_out_are_known_with_those_that_have_taints() {
    let now = Instant::now();
    let zone = |node: NodeView, zone: &str| NodeView {
        labels: (&BTreeMap::from([("zone".to_owned(), zone.to_owned())])).into(),
        tainted_at: Some(WALL),
        ..node
    };
    let vm = view(4, WorkloadLabel::Mode(Workload::VmPassthrough));
    let nodes = [
        ("in", zone(container(1), "a")),
        ("out", zone(container(2), "b")),
        ("bare", container(3)),
        ("vm", zone(vm, "b")),
    ];
    let index = index(MODES, &nodes, now);
    let section = serde_json::json!({
        "driver": {"enabled": false, "nodeSelector": {"zone": "c"}},
        "devicePlugin": {"enabled": true, "nodeSelector": {"zone": "a"}},
    });
    let section = serde_json::from_value(section).expect("a section");
    let taint = || Some(Exclusion::Taint("x=y:NoExecute".into()));
    let found = ["in", "out"].map(|name| ((name.to_owned(), WALL), std::array::from_fn(|_| taint())));
    let setting = || Some(Exclusion::Setting("devicePlugin.nodeSelector: zone=a".into()));
    let told = |node: &str, why| Excluded { node: node.into(), why };
    assert_eq!(
        index.excluded(found.to_vec(), Some(&section)),
        [
            told("bare", [None, setting(), None, None, None]),
            told("in", [taint(), taint(), taint(), None, taint()]),
            told("out", [taint(), setting(), taint(), None, taint()]),
        ]
    );
    assert_eq!(index.excluded(vec![], None), []);
}

#[test]
fn each_node_is_written_once_and_then_never_again() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1)), ("b", container(2))], now);
    assert_eq!(work(&mut index, now), ["a", "b"]);
    assert_eq!(work(&mut index, now), Vec::<String>::new(), "in flight");
    for (name, version) in [("a", 3), ("b", 4)] {
        index.answer(name, Answer::Done(vec![], labelled(version, &container(1))), now);
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
    index.answer("a", Answer::Done(vec![], labelled(5, &container(1))), now);
    index.apply("a", container(3), now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
}

#[test]
fn a_conflict_waits_for_the_event_that_explains_it() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.answer("a", Answer::Conflict, now);
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
    index.answer("a", Answer::Conflict, now);
    assert_eq!(work(&mut index, now), ["a"]);
}

#[test]
fn failures_are_tried_again_later_and_later_and_are_told() {
    let mut now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    for wait in [2, 4, 8] {
        assert_eq!(work(&mut index, now), ["a"]);
        index.answer("a", Answer::Failed("no".into()), now);
        assert_eq!(work(&mut index, now), Vec::<String>::new());
        let due = index.due_at().expect("a retry");
        assert!(due <= now + Duration::from_secs(wait));
        now += Duration::from_secs(wait);
    }
    let assignments = index.assignments();
    assert_eq!((assignments.pending, assignments.trouble.as_deref()), (1, Some("node a: no")));
}

#[test]
fn a_node_that_a_write_did_not_find_is_not_forgotten_before_the_watch_says_so() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    work(&mut index, now);
    index.answer("a", Answer::Conflict, now);
    assert_eq!((index.counts().container, index.assignments().trouble), (1, None));
    assert_eq!(work(&mut index, now + Duration::from_secs(2)), ["a"], "it is still there");
    index.take(Event::Deleted("a".into(), 2), now);
    assert_eq!((index.counts(), index.pending()), (NodeCounts::default(), 0));
    index.answer("a", Answer::Failed("late".into()), now);
    assert_eq!((index.counts(), index.failing()), (NodeCounts::default(), 0));
}

#[test]
fn a_new_list_forgets_nodes_that_are_gone() {
    let now = Instant::now();
    let mut index = index(MODES, &[("a", container(1)), ("b", container(1))], now);
    list(&mut index, 2, &[("b", container(1))], now);
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
    index.answer("a", Answer::Done(vec![], NodeView { version: 2, ..assigned.clone() }), now);
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
fn a_withdrawal_that_fails_or_meets_a_heartbeat_does_not_start_the_hold_down_anew() {
    let now = Instant::now();
    let npu = NodeView { has_npu: true, ..view(1, WorkloadLabel::Absent) };
    let assigned = NodeView { deploy: decide(&npu, DEFAULT, None, HOLD_DOWN).deploy, ..npu };
    let mut index = index(DEFAULT, &[("a", assigned.clone())], now);
    let lost = |version| NodeView { version, has_npu: false, ..assigned.clone() };
    index.apply("a", lost(2), now);
    let over = now + HOLD_DOWN;
    for (version, answer) in [(3, Answer::Failed("429".into())), (4, Answer::Conflict)] {
        assert_eq!(work(&mut index, over), ["a"]);
        let is_failure = answer != Answer::Conflict;
        index.answer("a", answer, over);
        assert_eq!(index.take_trouble().is_some(), is_failure);
        index.apply("a", lost(version), over);
        assert_eq!(index.pending(), 1, "it is still to be written");
        assert_eq!(index.take_trouble(), None, "nothing is well");
        if is_failure {
            assert_eq!(work(&mut index, over), Vec::<String>::new(), "a heartbeat does not make it try sooner");
            index.advance(over + Duration::from_secs(2));
        }
    }
    assert_eq!(work(&mut index, over), ["a"]);
    index.answer("a", Answer::Done(vec![], NodeView { deploy: PerComponent::default(), ..lost(5) }), over);
    assert_eq!((index.pending(), index.take_trouble()), (0, Some(Trouble::Ended)));
}

#[test]
fn changes_are_fresh_for_a_while_but_not_what_was_there_before_us() {
    let now = Instant::now();
    let settled = labelled(1, &container(1));
    let mut index = index(MODES, &[("a", settled.clone())], now);
    assert!(!index.assignments().fresh, "a restart finds a settled cluster settled");
    index.apply("b", NodeView { version: 2, ..settled }, now);
    assert!(index.assignments().fresh);
    index.advance(now + FRESH);
    assert!(!index.assignments().fresh);
    assert_eq!(index.due_at(), None, "nothing that has passed is waited for");
    index.take(Event::Deleted("b".into(), 3), now + FRESH);
    assert!(index.assignments().fresh, "pods of a node that left must leave, too");
}

#[test]
fn an_invalid_mode_is_told_once_per_value() {
    let now = Instant::now();
    let unknown = |version, value: &str| view(version, WorkloadLabel::Unknown(value.into()));
    let mut index = index(MODES, &[("a", unknown(1, "contianer"))], now);
    let told = |index: &mut Index| -> Vec<_> { index.take_invalid_modes().into_iter().map(|one| one.value).collect() };
    assert_eq!(told(&mut index), ["contianer"]);
    index.apply("a", unknown(2, "contianer"), now);
    assert_eq!(told(&mut index), Vec::<String>::new());
    index.apply("a", unknown(3, "vm"), now);
    assert_eq!(told(&mut index), ["vm"]);
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
    index.answer("a", Answer::Done(vec![], labelled(2, &container(1))), written);
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
    index.on_leadership_lost(now);
    index.apply("c", container(2), now);
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    assert_eq!(index.take_invalid_modes(), []);
    assert_eq!(index.queue.pop(), None);
    index.set_policy(MODES, now);
    assert_eq!(work(&mut index, now), ["a", "c"]);
    assert_eq!(index.take_invalid_modes().len(), 1);
}

/// Somebody removes one label of one node whenever it is set.
#[test]
fn a_fight_about_one_label_is_told_once_holds_up_nobody_and_ends_by_itself() {
    let mut now = Instant::now();
    let mut index = index(MODES, &[("a", container(1))], now);
    let lacking = |version| {
        let mut node = labelled(version, &container(1));
        node.deploy[0] = DeployLabel::Absent;
        NodeView { other_writer: Some("label-syncer".into()), ..node }
    };
    let mut version = 1;
    for pause in [0, 0, 5] {
        assert_eq!(index.take_contest(), None, "not yet certain");
        now += Duration::from_secs(pause);
        index.advance(now);
        let work = index.next_work(now).expect("the first repair is made at once, the next after a pause");
        version += 2;
        index.answer("a", Answer::Done(work.changes, labelled(version - 1, &container(1))), now);
        index.apply("a", lacking(version), now);
    }
    assert_eq!(work(&mut index, now), Vec::<String>::new());
    let told = index.take_contest().expect("it is told");
    assert!(told.contains("node a") && told.contains("label-syncer") && told.contains("deploy.driver"), "{told}");
    assert_eq!(index.assignments().contested, Some(told));
    assert_eq!((index.pending(), index.failing()), (1, 0));

    index.apply("b", container(version + 1), now);
    assert_eq!(work(&mut index, now), ["b"], "other nodes go on");
    let mode = NodeView { workload: WorkloadLabel::Mode(Workload::VmPassthrough), ..lacking(version + 2) };
    index.apply("a", mode, now);
    assert_eq!(work(&mut index, now), ["a"], "other labels as well");
    index.answer("a", Answer::Conflict, now);
    index.apply("a", lacking(version + 3), now);

    now += Duration::from_secs(10);
    index.advance(now);
    let work = index.next_work(now).expect("a repair");
    assert_eq!(work.changes, [Change::Label(0, true)]);
    index.answer("a", Answer::Done(work.changes, labelled(version + 4, &container(1))), now);
    assert!(index.assignments().contested.is_some(), "it may be undone in the next moment");
    index.advance(now + Duration::from_secs(3));
    assert_eq!((index.assignments().contested, index.take_contest()), (None, None));
    assert_eq!(index.nodes["a"].timer, None);
}

#[test]
fn many_fights_at_once_are_one_event_and_one_message() {
    let mut now = Instant::now();
    let mut index = index(MODES, &[("a", container(1)), ("b", container(1)), ("c", container(1))], now);
    // An admission policy takes all labels out.
    for (version, pause) in [(2, 0), (3, 0), (4, 5)] {
        now += Duration::from_secs(pause);
        index.advance(now);
        while let Some(work) = index.next_work(now) {
            index.answer(&work.node, Answer::Done(work.changes, container(version)), now);
        }
    }
    let told = index.take_contest().expect("it is told");
    assert!(told.starts_with("node a") && told.contains("admission policy"), "{told}");
    assert_eq!(index.take_contest(), None);
    let contested = index.assignments().contested.expect("it is said");
    assert!(contested.ends_with("; and the same or alike on 2 more nodes"), "{contested}");
}
