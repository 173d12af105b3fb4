//! What a component controller decides to write, from every AcceleratorConfig and the DaemonSet that exists.

use accelerator_api::ObservedConfig;
use accelerator_operand::{PlanContext, Write, plan};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use testbed::access::OPERANDS;

static OPERAND: &accelerator_operand::Operand = &rebellions_device_plugin_controller::OPERAND;

/// A config that was made in this second of the first minute.
fn config(name: &str, second: u32, rebellions: &Value) -> ObservedConfig {
    let metadata = json!({"name": name, "uid": format!("uid-{name}"), "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
    let object = json!({"metadata": metadata, "spec": {"providers": {"rebellions": rebellions}}});
    serde_json::from_value(object).expect("a config")
}

fn enabled() -> Value {
    json!({"devicePlugin": {"enabled": true}})
}

fn decide(configs: &[ObservedConfig], live: Option<&DaemonSet>) -> Write {
    decide_in(PlanContext::of(OPERANDS), configs, live)
}

fn decide_in(context: PlanContext<'_>, configs: &[ObservedConfig], live: Option<&DaemonSet>) -> Write {
    let configs: Vec<_> = configs.iter().collect();
    plan(&OPERAND.template().expect("a manifest"), context, &configs, live).write
}

/// What is applied for these configs, as it then lives in the cluster.
fn live(configs: &[ObservedConfig]) -> DaemonSet {
    match decide(configs, None) {
        Write::Apply { wanted, .. } => *wanted,
        other => panic!("nothing to apply: {other:?}"),
    }
}

#[test]
fn what_is_applied_is_covered_and_not_applied_again() {
    let configs = [config("a", 1, &enabled())];
    assert!(matches!(decide(&configs, Some(&live(&configs))), Write::Nothing));
}

#[test]
fn a_field_of_ours_that_somebody_changed_is_applied_again_and_one_that_they_added_is_not() {
    let configs = [config("a", 1, &enabled())];
    let mut changed = live(&configs);
    changed.spec.as_mut().expect("a spec").revision_history_limit = Some(5);
    assert!(matches!(decide(&configs, Some(&changed)), Write::Nothing));
    changed.spec.as_mut().expect("a spec").selector.match_labels = None;
    assert!(matches!(decide(&configs, Some(&changed)), Write::Apply { .. }));
}

#[test]
fn disabled_and_absent_are_the_same_empty_state() {
    let running = live(&[config("a", 1, &enabled())]);
    for rebellions in [json!({"devicePlugin": {"enabled": false}}), json!({"driver": {"enabled": true}}), json!(null)] {
        let configs = [config("a", 1, &rebellions)];
        assert!(matches!(decide(&configs, Some(&running)), Write::Delete(_)), "{rebellions}");
        assert!(matches!(decide(&configs, None), Write::Absent(_)), "{rebellions}");
    }
}

#[test]
fn the_oldest_config_counts_and_all_of_them_own() {
    let off = json!({"devicePlugin": {"enabled": false}});
    let configs = [config("newer", 2, &off), config("older", 1, &enabled())];
    let owners: Vec<_> =
        live(&configs).metadata.owner_references.expect("owners").into_iter().map(|owner| owner.name).collect();
    assert_eq!(owners, ["newer", "older"]);
    assert!(matches!(decide(&configs[..1], None), Write::Absent(_)));
}

#[test]
fn the_anchor_owns_as_well_and_is_added_to_what_lacks_it() {
    let configs = [config("a", 1, &enabled())];
    let anchor = OwnerReference { name: "anchor".into(), uid: "uid-anchor".into(), ..OwnerReference::default() };
    let context = PlanContext { anchor: Some(&anchor), ..PlanContext::of(OPERANDS) };
    let Write::Apply { wanted, .. } = decide_in(context, &configs, Some(&live(&configs))) else {
        panic!("the anchor is missing");
    };
    let owners: Vec<_> = wanted.metadata.owner_references.iter().flatten().map(|owner| owner.name.as_str()).collect();
    assert_eq!(owners, ["anchor", "a"]);
    assert!(matches!(decide_in(context, &configs, Some(&wanted)), Write::Nothing));
}

#[test]
fn not_knowing_a_config_is_no_reason_to_touch_anything_and_knowing_that_there_is_none_is() {
    let running = live(&[config("a", 1, &enabled())]);
    assert!(matches!(decide(&[], Some(&running)), Write::LeaveAlone));
    let vacant = PlanContext { vacant: true, ..PlanContext::of(OPERANDS) };
    assert!(matches!(decide_in(vacant, &[], Some(&running)), Write::Delete(_)));
    assert!(matches!(decide_in(vacant, &[], None), Write::LeaveAlone));
    let mut foreign = running;
    foreign.metadata.annotations = None;
    assert!(matches!(decide_in(vacant, &[], Some(&foreign)), Write::LeaveAlone));
}

#[test]
fn a_config_that_cannot_be_read_freezes_what_runs() {
    let newer = config("a", 1, &json!({"devicePlugin": {"enabled": {"since": "v2"}}}));
    let running = live(&[config("a", 1, &enabled())]);
    assert!(matches!(decide(&[newer], Some(&running)), Write::Unreadable(_)));
}

#[test]
fn a_daemonset_that_we_did_not_make_is_left_alone() {
    let configs = [config("a", 1, &enabled())];
    let mut foreign = live(&configs);
    foreign.metadata.annotations = None;
    assert!(matches!(decide(&configs, Some(&foreign)), Write::NameTaken(_)));
    let off = [config("a", 1, &json!({"devicePlugin": {"enabled": false}}))];
    assert!(matches!(decide(&off, Some(&foreign)), Write::Absent(_)), "not even to remove it");
}

#[test]
fn a_daemonset_under_deletion_is_waited_for() {
    let configs = [config("a", 1, &enabled())];
    let mut going = live(&configs);
    going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a point in time");
    assert!(matches!(decide(&configs, Some(&going)), Write::Nothing));
}
