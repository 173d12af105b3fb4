use accelerator_api::{ComponentSpec, Image};
use serde_json::json;

use super::*;

const GENERIC: &str = "5.15.0-130-generic";
const OEM: &str = "6.8.0-60-oem";
const GENERIC_POOL: &str = "ubuntu22.04-5.15.0-130-generic";
const OEM_POOL: &str = "ubuntu22.04-6.8.0-60-oem";

/// What a section asks for whose image renders to this.
pub(super) fn request(template: &str, tag: &str, rendered: &str) -> Request {
    let image = Image { tag: tag.into(), ..Image::default() };
    let component = ComponentSpec { enabled: true, image: Some(image), ..ComponentSpec::default() };
    let section = DriverSpec { component, image_tag_template: template.into(), ..DriverSpec::default() };
    let daemon_set =
        json!({"spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "m", "image": rendered}]}}}});
    Request::of(&section, &serde_json::from_value(daemon_set).expect("a DaemonSet")).expect("a container")
}

/// One image per kernel and system, as it is without settings.
fn per_kernel() -> Request {
    request("", "", "r.io/d:3.0.0")
}

fn uniform() -> Request {
    request("", "mine", "r.io/d:mine")
}

pub(super) fn node(name: &str, kernel: &str, pool: Option<&str>) -> NodeView {
    NodeView {
        name: name.into(),
        deploys_driver: true,
        kernel: Some(kernel.into()).filter(|kernel: &String| !kernel.is_empty()),
        os: Some("ubuntu22.04".into()),
        arch: Some("amd64".into()),
        families: vec!["atom".into()],
        pool: pool.map(str::to_owned),
        ..NodeView::default()
    }
}

pub(super) fn install(image: &str) -> Install {
    Install { image: image.into(), ..Install::default() }
}

fn pod(node: &str, pool: Option<&str>, image: &str) -> DriverPod {
    DriverPod {
        name: format!("pod-{node}"),
        uid: format!("uid-{node}"),
        node: node.into(),
        pool: pool.map(str::to_owned),
        install: install(image).digest(),
        is_ready: true,
        has_begun: true,
        ..DriverPod::default()
    }
}

fn existing(pool: Option<&str>, image: &str) -> Existing {
    let history = History { current: install(image), ..History::default() };
    Existing { pool: pool.map(str::to_owned), history, is_ending: false }
}

fn decide(request: Option<&Request>, nodes: &[NodeView], pods: &[DriverPod], existing: &[Existing]) -> Pools {
    pools(request, &nodes.iter().collect::<Vec<_>>(), &pods.iter().collect::<Vec<_>>(), existing)
}

fn moves(pools: &Pools) -> Vec<(&str, Option<&str>)> {
    pools.moves.iter().map(|one| (one.node.as_str(), one.pool.as_deref())).collect()
}

fn removed(pools: &Pools) -> Vec<(&str, bool)> {
    pools.removals.iter().map(|one| (one.name.as_str(), one.keeps_pods)).collect()
}

/// A node that the spec's node selector leaves out has no pod to wait for, and counts in no budget.
#[test]
fn a_node_that_the_spec_leaves_out_is_like_one_without_the_deploy_label() {
    let selector = [("zone".to_owned(), "a".to_owned())];
    let request = Request {
        selection: ComponentSpec { node_selector: selector.clone().into(), ..ComponentSpec::default() },
        ..per_kernel()
    };
    let inside = NodeView { labels: (&BTreeMap::from(selector)).into(), ..node("inside", GENERIC, None) };
    let outside = node("outside", GENERIC, Some(GENERIC_POOL));
    let pools = pools(Some(&request), &[&inside, &outside], &[], &[]);
    assert_eq!(pools.wanted[0].nodes, ["inside"]);
    assert_eq!(pools.targets["outside"], Target::Nothing);
    let moves: Vec<_> = pools.moves.iter().map(|one| (one.node.as_str(), one.pool.as_deref())).collect();
    assert_eq!(moves, [("inside", Some(GENERIC_POOL)), ("outside", None)]);
}

#[test]
fn nodes_that_need_the_same_image_are_a_pool() {
    let nodes = [node("b", GENERIC, None), node("a", GENERIC, None), node("c", OEM, None)];
    let pools = decide(Some(&per_kernel()), &nodes, &[], &[]);
    let wanted: Vec<_> = pools
        .wanted
        .iter()
        .map(|pool| (pool.name.as_deref(), pool.history.current.image.as_str(), pool.nodes.len()))
        .collect();
    let expected = [
        (Some(GENERIC_POOL), "r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04", 2),
        (Some(OEM_POOL), "r.io/d:3.0.0-6.8.0-60-oem-ubuntu22.04", 1),
    ];
    assert_eq!(wanted, expected);
    let digest = install(expected[1].1).digest();
    assert_eq!(pools.targets["c"], Target::Install { pool: Some(OEM_POOL.into()), digest });
    assert_eq!(moves(&pools), [("b", Some(GENERIC_POOL)), ("a", Some(GENERIC_POOL)), ("c", Some(OEM_POOL))]);
    assert_eq!((pools.removals, pools.leftovers), (vec![], vec![]));
}

#[test]
fn an_image_of_the_admins_is_one_pool_and_writes_no_node() {
    let nodes = [node("a", GENERIC, None), node("b", "", None)];
    let pools = decide(Some(&uniform()), &nodes, &[], &[]);
    assert_eq!(pools.wanted.len(), 1);
    let digest = install("r.io/d:mine").digest();
    assert_eq!(pools.targets["b"], Target::Install { pool: None, digest });
    assert_eq!((pools.moves, pools.removals), (vec![], vec![]));
    assert_eq!(decide(Some(&uniform()), &[], &[], &[]).wanted[0].name, None, "also where it has no node yet");
}

#[test]
fn a_new_version_is_a_new_image_of_the_same_pool() {
    let nodes = [node("a", GENERIC, Some(GENERIC_POOL))];
    let live = [existing(Some(GENERIC_POOL), "r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04")];
    let newer = request("", "", "r.io/d:3.2.2");
    let pods = [pod("a", Some(GENERIC_POOL), "r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04")];
    let pools = decide(Some(&newer), &nodes, &pods, &live);
    assert_eq!(pools.wanted[0].history.current.image, "r.io/d:3.2.2-5.15.0-130-generic-ubuntu22.04");
    assert_eq!(pools.wanted[0].history.last_good.as_ref(), Some(&live[0].history.current), "it works on a node");
    assert_eq!((moves(&pools), removed(&pools)), (vec![], vec![]));
    let pools = decide(Some(&newer), &nodes, &[], &live);
    assert_eq!(pools.wanted[0].history.last_good, None, "it works nowhere");
}

#[test]
fn after_a_rollback_the_pool_installs_what_it_did_before() {
    let nodes = [node("a", GENERIC, Some(GENERIC_POOL))];
    let asked = install("r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04");
    let good = install("r.io/d:2-5.15.0-130-generic-ubuntu22.04");
    let history = History { current: good.clone(), last_good: Some(good.clone()), rolled_back: Some(asked.digest()) };
    let live = [Existing { history: history.clone(), ..existing(Some(GENERIC_POOL), "") }];
    let pools = decide(Some(&per_kernel()), &nodes, &[], &live);
    assert_eq!((&pools.wanted[0].history, &pools.wanted[0].digest), (&history, &good.digest()));
}

/// The controller was ended after it had written the first pool's DaemonSet back.
#[test]
fn a_rollback_that_was_cut_off_between_two_pools_is_completed() {
    let nodes = [node("a", GENERIC, Some(GENERIC_POOL)), node("b", OEM, Some(OEM_POOL))];
    let (asked, good) =
        (|tail: &str| install(&format!("r.io/d:3.0.0-{tail}")), |tail: &str| install(&format!("r.io/d:2-{tail}")));
    let worked = |pool: &str, tail: &str| {
        let history = History { current: asked(tail), last_good: Some(good(tail)), rolled_back: None };
        Existing { history, ..existing(Some(pool), "") }
    };
    let (generic, oem) = ("5.15.0-130-generic-ubuntu22.04", "6.8.0-60-oem-ubuntu22.04");
    let mut live = [worked(GENERIC_POOL, generic), worked(OEM_POOL, oem)];
    let images = |live: &[Existing]| {
        let pools = decide(Some(&per_kernel()), &nodes, &[], live);
        pools.wanted.into_iter().map(|pool| pool.history.current).collect::<Vec<_>>()
    };
    assert_eq!(images(&live), [asked(generic), asked(oem)], "nothing was given up");
    live[0].history = live[0].history.roll_back().expect("something to go back to");
    assert_eq!(images(&live), [good(generic), good(oem)]);
    live[1].history.last_good = None;
    assert_eq!(images(&live), [good(generic), asked(oem)], "nothing to go back to");
}

/// Kubernetes goes through all its pods before it is gone, and ends none of them meanwhile.
#[test]
fn a_daemon_set_that_is_being_deleted_ends_no_pod_and_installs_nothing() {
    let nodes = [node("n", GENERIC, None)];
    let old = DriverPod { kernel: Some(OEM.into()), ..pod("n", None, "r.io/d:mine") };
    let ending = Existing { is_ending: true, ..existing(None, "r.io/d:mine") };
    let live = [ending, existing(Some(GENERIC_POOL), "r.io/d:3.0.0")];
    let pools = decide(Some(&per_kernel()), &nodes, &[old], &live);
    assert_eq!(moves(&pools), []);
    assert_eq!(pools.leftovers.len(), 1, "nobody else ends it");
    assert_eq!(installed(&live).into_keys().collect::<Vec<_>>(), [Some(GENERIC_POOL.to_owned())]);
}

/// Two architectures with one kernel string, two families, and one image for all of them.
#[test]
fn what_the_image_asks_for_tells_pools_apart_and_nothing_else() {
    let arm = NodeView { arch: Some("arm64".into()), ..node("arm", GENERIC, None) };
    let rebel = NodeView { families: vec!["rebel100".into()], ..node("rebel", GENERIC, None) };
    let nodes = [node("a", GENERIC, None), arm, rebel];
    let names = |template: &str, rendered: &str| -> Vec<_> {
        let pools = decide(Some(&request(template, "", rendered)), &nodes, &[], &[]);
        pools.wanted.into_iter().map(|pool| pool.name.unwrap_or_default()).collect()
    };
    assert_eq!(
        names("{version}-{kernel}-{arch}", "r.io/d:3"),
        ["5.15.0-130-generic-amd64", "5.15.0-130-generic-arm64"]
    );
    assert_eq!(names("{version}-{kernel}", "r.io/d:3"), [GENERIC]);
    assert_eq!(names("{version}-{family}", "r.io/d:3"), ["atom", "rebel100"]);
    assert_eq!(names("{version}", "r.io/{family}/d:3"), ["atom", "rebel100"]);
    assert_eq!(names("{version}", "r.io/d:3"), [""]);
}

#[test]
fn a_node_of_which_too_little_is_known_is_named_and_stays_as_it_is() {
    let unknown = node("unknown", "", Some(OEM_POOL));
    let nodes = [node("a", GENERIC, Some(GENERIC_POOL)), unknown];
    let live = [existing(Some(GENERIC_POOL), "x"), existing(Some(OEM_POOL), "x")];
    let pools = decide(Some(&per_kernel()), &nodes, &[], &live);
    let why = "its kernel, which the tag of the driver's image needs, is not known from labels of Node Feature Discovery or from \
               status.nodeInfo";
    assert_eq!(pools.targets["unknown"], Target::Unknown(Reason::KernelUnknown, why.into()));
    assert_eq!((moves(&pools), removed(&pools)), (vec![], vec![]));
}

#[test]
fn a_node_with_no_family_or_two_is_named() {
    let with = |families: &[&str]| {
        let families = families.iter().map(|family| (*family).to_owned()).collect();
        let nodes = [NodeView { families, ..node("n", GENERIC, None) }];
        decide(Some(&request("{family}", "", "r.io/d:3")), &nodes, &[], &[]).targets["n"].clone()
    };
    let none = "the family of its NPUs, which the driver's image needs, is not known: neither a label rebellions.ai/npu.family nor one \
                of Node Feature Discovery with a known PCI device id is there";
    assert_eq!(with(&[]), Target::Unknown(Reason::FamilyUnknown, none.into()));
    let two = "it has NPUs of 2 families (atom, rebel100), and the driver's image is for one";
    assert_eq!(with(&["atom", "rebel100"]), Target::Unknown(Reason::FamilyUnknown, two.into()));
    assert!(matches!(with(&["atom"]), Target::Install { .. }));
}

#[test]
fn a_tag_that_cannot_be_is_named() {
    let long = "x".repeat(128);
    let pools =
        decide(Some(&request(&format!("{long}{{kernel}}"), "", "r.io/d:3")), &[node("n", GENERIC, None)], &[], &[]);
    assert!(
        matches!(&pools.targets["n"], Target::Unknown(Reason::DriverImageMissing, why) if why.ends_with("128 characters"))
    );
}

#[test]
fn a_node_moves_at_once_when_that_disturbs_nothing() {
    let image = "r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04";
    let working = pod("n", Some(GENERIC_POOL), image);
    let built_for = |kernel: &str| DriverPod { kernel: Some(kernel.into()), ..working.clone() };
    let table = [
        ("no pod", vec![], true),
        ("a driver in use", vec![working.clone()], false),
        ("a driver in use, for the kernel that runs", vec![built_for(OEM)], false),
        ("a driver for the kernel before a reboot", vec![built_for(GENERIC)], true),
        ("a pod that never began", vec![DriverPod { has_begun: false, ..working.clone() }], true),
        ("a driver that ends", vec![DriverPod { is_terminating: true, ..working.clone() }], false),
        ("one of two in use", vec![built_for(GENERIC), working.clone()], false),
    ];
    for (what, pods, expected) in table {
        let nodes = [node("n", OEM, Some(GENERIC_POOL))];
        let pools = decide(Some(&per_kernel()), &nodes, &pods, &[existing(Some(GENERIC_POOL), image)]);
        assert_eq!(!moves(&pools).is_empty(), expected, "{what}");
        assert_eq!(pools.leftovers, vec![], "{what}: its DaemonSet ends it");
    }
}

#[test]
fn the_daemon_set_of_the_release_before_goes_and_its_pods_stay() {
    let image = "r.io/d:3.0.0-5.15.0-130-generic-ubuntu22.04";
    let nodes = [node("n", GENERIC, None), node("new", GENERIC, None)];
    let pools = decide(Some(&per_kernel()), &nodes, &[pod("n", None, image)], &[existing(None, image)]);
    assert_eq!(removed(&pools), [("rebellions-driver", true)]);
    assert_eq!(moves(&pools), [("new", Some(GENERIC_POOL))], "n keeps the driver that it has");
    assert_eq!(pools.leftovers, vec![]);
    assert_eq!(
        pools.targets["n"],
        Target::Install { pool: Some(GENERIC_POOL.into()), digest: install(image).digest() }
    );
}

/// Nobody replaces a pod without a DaemonSet, and the pool's own would be a second driver on the node.
#[test]
fn a_pod_that_was_left_behind_and_never_began_goes_before_the_node_moves() {
    let waiting = DriverPod { has_begun: false, is_ready: false, ..pod("n", None, "r.io/d:3.0.0") };
    let pools = decide(Some(&per_kernel()), &[node("n", GENERIC, None)], std::slice::from_ref(&waiting), &[]);
    assert_eq!(pools.leftovers, [Leftover { name: "pod-n".into(), uid: "uid-n".into() }]);
    assert_eq!(moves(&pools), []);
    let ending = DriverPod { is_terminating: true, ..waiting };
    let pools = decide(Some(&per_kernel()), &[node("n", GENERIC, None)], &[ending], &[]);
    assert_eq!((pools.leftovers.len(), pools.moves.len()), (0, 0));
    let pools = decide(Some(&per_kernel()), &[node("n", GENERIC, None)], &[], &[]);
    assert_eq!(moves(&pools), [("n", Some(GENERIC_POOL))]);
}

/// A DaemonSet that was deleted with its pods: at five thousand nodes, to delete each of them too would double the work.
#[test]
fn a_pod_that_kubernetes_ends_is_left_to_it() {
    let owned = DriverPod { is_owned: true, ..pod("n", None, "r.io/d:3.0.0") };
    assert_eq!(decide(None, &[], std::slice::from_ref(&owned), &[]).leftovers, []);
    // It is being deleted and its pods run on: this one will be told.
    let ending = Existing { is_ending: true, ..Existing::default() };
    assert_eq!(decide(None, &[], &[owned], &[ending]).leftovers.len(), 1);
}

/// Nobody selects the node any more, and no DaemonSet is there that would notice.
#[test]
fn a_pod_that_was_left_behind_goes_where_no_driver_is_wanted() {
    let left = pod("n", None, "r.io/d:3.0.0");
    let gone = [Leftover { name: "pod-n".into(), uid: "uid-n".into() }];
    let away = NodeView { deploys_driver: false, ..node("n", GENERIC, None) };
    for nodes in [vec![away], vec![]] {
        assert_eq!(decide(Some(&per_kernel()), &nodes, std::slice::from_ref(&left), &[]).leftovers, gone);
    }
    let nodes = [node("n", GENERIC, None)];
    assert_eq!(decide(None, &nodes, std::slice::from_ref(&left), &[]).leftovers, gone);
    assert_eq!(decide(Some(&per_kernel()), &nodes, std::slice::from_ref(&left), &[]).leftovers, []);
    let unknown = [node("n", "", None)];
    assert_eq!(decide(Some(&per_kernel()), &unknown, std::slice::from_ref(&left), &[]).leftovers, []);
    assert_eq!(
        decide(Some(&uniform()), &nodes, &[left], &[]).leftovers,
        [],
        "its DaemonSet is made again and adopts it"
    );
}

#[test]
fn a_pools_daemon_set_goes_with_its_last_node_and_its_last_pod() {
    let live = [existing(Some(OEM_POOL), "x"), existing(Some(GENERIC_POOL), "y")];
    let moved = [node("n", GENERIC, Some(GENERIC_POOL))];
    let labelled = [node("n", GENERIC, Some(OEM_POOL))];
    let left = [pod("n", Some(OEM_POOL), "x")];
    assert_eq!(removed(&decide(Some(&per_kernel()), &labelled, &left, &live)), []);
    assert_eq!(removed(&decide(Some(&per_kernel()), &moved, &left, &live)), [], "its pod is still there");
    assert_eq!(removed(&decide(Some(&per_kernel()), &labelled, &[], &live)), [], "a node still has its label");
    let over = [("rebellions-driver-ubuntu22.04-6.8.0-60-oem", true)];
    assert_eq!(removed(&decide(Some(&per_kernel()), &moved, &[], &live)), over);
}

#[test]
fn from_pools_to_one_image_nodes_leave_their_pools_as_their_drivers_go() {
    let nodes = [node("busy", GENERIC, Some(GENERIC_POOL)), node("free", GENERIC, Some(GENERIC_POOL))];
    let live = [existing(Some(GENERIC_POOL), "x")];
    let pools = decide(Some(&uniform()), &nodes, &[pod("busy", Some(GENERIC_POOL), "x")], &live);
    assert_eq!((moves(&pools), removed(&pools)), (vec![("free", None)], vec![]));
    let nodes = [node("busy", GENERIC, None), node("free", GENERIC, None)];
    let pools = decide(Some(&uniform()), &nodes, &[], &live);
    assert_eq!(removed(&pools), [("rebellions-driver-ubuntu22.04-5.15.0-130-generic", true)]);
}

#[test]
fn without_a_driver_everything_goes_and_labels_last() {
    let nodes = [
        node("busy", GENERIC, Some(GENERIC_POOL)),
        node("free", GENERIC, Some(GENERIC_POOL)),
        node("other", GENERIC, None),
    ];
    let live = [existing(None, "x"), existing(Some(GENERIC_POOL), "x")];
    let pools = decide(None, &nodes, &[pod("busy", Some(GENERIC_POOL), "x")], &live);
    assert_eq!(
        removed(&pools),
        [("rebellions-driver", false), ("rebellions-driver-ubuntu22.04-5.15.0-130-generic", false)]
    );
    assert_eq!(moves(&pools), [("free", None)]);
    assert_eq!(pools.targets["busy"], Target::Nothing);
    assert_eq!(pools.wanted, vec![]);
}

#[test]
fn a_node_without_the_deploy_label_is_in_no_pool() {
    let away = NodeView { deploys_driver: false, ..node("away", GENERIC, Some(GENERIC_POOL)) };
    let deleted = NodeView { is_deleted: true, ..node("deleted", GENERIC, None) };
    let pools = decide(Some(&per_kernel()), &[away, deleted], &[], &[]);
    assert_eq!(pools.wanted, vec![]);
    assert_eq!(moves(&pools), [("away", None)]);
    assert_eq!(pools.targets["deleted"], Target::Nothing);
}

#[test]
fn a_move_is_a_patch_of_the_version_that_was_seen() {
    let to = |pool: Option<&str>| patch(&Move { node: "n".into(), pool: pool.map(str::to_owned) }, 42);
    let expected = json!({"metadata": {"resourceVersion": "42", "labels": {"rebellions.ai/npu-driver-pool": "p"}}});
    assert_eq!(to(Some("p")), expected);
    assert_eq!(to(None)["metadata"]["labels"], json!({"rebellions.ai/npu-driver-pool": null}));
}

#[test]
fn daemon_sets_are_known_by_their_names() {
    let named = |name: &str| {
        let daemon_set = json!({"metadata": {"name": name}, "spec": {"selector": {}, "template": {"spec": {"containers": [
            {"name": "m", "image": "i"}]}}}});
        Existing::of(&serde_json::from_value(daemon_set).expect("a DaemonSet"))
    };
    assert_eq!(named("rebellions-driver"), Some(existing(None, "i")));
    assert_eq!(named("rebellions-driver-p"), Some(existing(Some("p"), "i")));
    assert_eq!(named("rebellions-device-plugin"), None);
}

/// How long a look at a large cluster takes.
#[test]
#[ignore = "measures"]
fn five_thousand_nodes() {
    let kernels = [GENERIC, OEM, "6.8.0-61-oem", "5.15.0-131-generic"];
    let name = |index: usize| format!("node-{index}");
    let pool_of = |index: usize| format!("ubuntu22.04-{}", kernels[index % 4]);
    let nodes: Vec<_> = (0..5000).map(|index| node(&name(index), kernels[index % 4], Some(&pool_of(index)))).collect();
    let pods: Vec<_> = (0..5000).map(|index| pod(&name(index), Some(&pool_of(index)), "x")).collect();
    let live: Vec<_> = (0..4).map(|index| existing(Some(&pool_of(index)), "x")).collect();
    let begin = std::time::Instant::now();
    let pools = decide(Some(&per_kernel()), &nodes, &pods, &live);
    let took = begin.elapsed();
    assert_eq!((pools.wanted.len(), pools.targets.len(), pools.moves.len()), (4, 5000, 0), "{took:?}");
    assert!(took.as_secs() < 1, "{took:?}");
}
