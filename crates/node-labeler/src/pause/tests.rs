use std::time::Duration;

use accelerator_api::contract::Workload;

use super::*;
use crate::effect::Change;
use crate::rules::{Policy, decide, patch};
use crate::view::WorkloadLabel;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const MODES: Policy = Policy::Modes { default: None };
const DEFAULT: Policy = Policy::Modes { default: Some(Workload::Container) };
const DEPENDENTS: &str = "device-plugin metric-exporter npu-feature-discovery";

fn at(seconds: i64) -> String {
    (NOW + SignedDuration::from_secs(seconds)).to_string()
}

#[test]
fn a_pause_is_a_time_ahead_and_not_too_far() {
    let until = |value: Option<&str>| Pause::default().look(value, NOW);
    assert_eq!(until(None), Ok(None));
    assert_eq!(until(Some(&at(-1))), Ok(None), "over");
    assert_eq!(until(Some(&at(0))), Ok(None), "over");
    assert_eq!(until(Some(&at(1))), Ok(Some(NOW + SignedDuration::from_secs(1))));
    assert_eq!(until(Some(&at(7200))), Ok(Some(NOW + LIMIT)));
    assert_eq!(until(Some("2027-01-15T09:00:00+01:00")), Ok(Some(NOW)).map(|_: Option<Timestamp>| None), "over");
    for (value, words) in
        [(at(7201), "more than 2 hours ahead"), ("soon".into(), "RFC 3339"), (String::new(), "RFC 3339")]
    {
        let why = until(Some(&value)).expect_err(&value);
        assert!(why.contains(words) && why.contains(&format!("petasus.io/driver-dependents-paused-until={value} ")));
    }
}

#[test]
fn what_was_refused_counts_as_nothing_for_good_and_is_told_once() {
    let mut pause = Pause::default();
    let far = at(3 * 3600);
    assert!(pause.look(Some(&far), NOW).is_err());
    for later in [0, 3600 + 1, 3 * 3600] {
        assert_eq!(pause.look(Some(&far), NOW + SignedDuration::from_secs(later)), Ok(None), "{later}");
    }
    assert!(pause.look(Some("soon"), NOW).is_err(), "another value");
    assert!(pause.look(Some(&at(60)), NOW).is_ok_and(|until| until.is_some()), "a good one");
    assert!(pause.look(Some("soon"), NOW).is_err());
}

/// A node with a workload label (`typo` is no mode), labels from words (`x` is ours, `x!` somebody's, `x=` emptied, `x=y` with
/// another value on one of ours), and a record of the components named in it besides.
fn node(workload: &str, labels: &str, recorded: &str) -> NodeView {
    let workload = match workload {
        "" => WorkloadLabel::Absent,
        "typo" => WorkloadLabel::Unknown("typo".into()),
        mode => WorkloadLabel::Mode(Workload::parse(mode).expect("a mode")),
    };
    let mut node = NodeView { workload, version: 7, ..NodeView::default() };
    for (index, component) in COMPONENTS.iter().enumerate() {
        for word in labels
            .split_whitespace()
            .filter(|word| word.trim_end_matches('!').split('=').next() == Some(component.name))
        {
            node.deploy[index] = match word.split_once('=') {
                None if word.ends_with('!') => DeployLabel::Theirs,
                None => DeployLabel::Ours,
                Some((_, "")) => DeployLabel::Emptied,
                Some(_) => DeployLabel::Paused,
            };
        }
        node.recorded[index] =
            node.deploy[index].is_owned() || recorded.split_whitespace().any(|name| name == component.name);
    }
    node
}

/// What is written: `-x` for a label that is removed, `+x` for one that is set, `record` and its names.
fn written(node: &NodeView, policy: Policy, is_paused: bool) -> Vec<String> {
    let decision = decide(node, policy, None, Duration::from_mins(10));
    let changes = step_aside(decision, node, is_paused).changes(node);
    let words = changes.iter().map(|change| match change {
        Change::Label(index, set) => format!("{}{}", if *set { '+' } else { '-' }, COMPONENTS[*index].name),
        Change::Record(owned) => format!("record {}", crate::view::record(*owned)),
    });
    words.collect()
}

const ALL: &str = "driver device-plugin metric-exporter npu-feature-discovery";
const AWAY: &str = "-device-plugin -metric-exporter -npu-feature-discovery";
const BACK: &str = "+device-plugin +metric-exporter +npu-feature-discovery";

/// Workload label, labels, record besides, whether there is a pause, what is written, and why.
type Case<'a> = (&'a str, &'a str, &'a str, bool, &'a str, &'a str);

fn check(policy: Policy, cases: &[Case]) {
    for (workload, labels, recorded, is_paused, expected, why) in cases {
        let written = written(&node(workload, labels, recorded), policy, *is_paused).join(" ");
        assert_eq!(written, *expected, "{why}: {workload} {labels:?} under {policy:?}");
    }
}

#[test]
fn who_uses_the_driver_steps_aside_and_comes_back() {
    let pre_installed = &format!("driver=pre-installed {DEPENDENTS}");
    let overruled = "driver device-plugin=paused-x metric-exporter=false npu-feature-discovery";
    let joined = &format!("+driver record {}", ALL.replace(' ', ","));
    check(
        MODES,
        &[
            ("container", ALL, "", false, "", "all is well"),
            ("container", ALL, "", true, AWAY, "they step aside, and stay recorded"),
            ("container", "driver", DEPENDENTS, true, "", "they have, also for the next process"),
            ("container", "driver", DEPENDENTS, false, BACK, "they come back"),
            ("container", "driver", "", true, "", "they never were there"),
            ("container", "", "", true, joined, "a node that joins"),
            ("container", "driver device-plugin!", "", true, "", "somebody's stays"),
            ("container", overruled, "", true, "-npu-feature-discovery", "other values stay"),
            ("container", "driver device-plugin=", DEPENDENTS, true, "", "emptied by a driver manager meanwhile"),
            ("container", "driver device-plugin=", DEPENDENTS, false, BACK, "which takes nothing away for good"),
            ("container", pre_installed, "", true, "", "no driver of ours, nothing to wait for"),
            ("vm-passthrough", "vfio-manager npu-feature-discovery", "", true, "", "no driver, nothing to wait for"),
        ],
    );
}

#[test]
fn what_happens_meanwhile() {
    let switched = "-driver +vfio-manager +npu-feature-discovery record vfio-manager,npu-feature-discovery";
    check(
        MODES,
        &[
            ("vm-passthrough", "driver", DEPENDENTS, true, switched, "the mode changes"),
            ("", "driver", DEPENDENTS, true, "-driver record ", "the mode goes"),
            ("typo", ALL, "", true, AWAY, "a typo keeps the node as it is, but its driver is upgraded"),
            ("typo", "driver", DEPENDENTS, false, BACK, "and they come back"),
            ("typo", "driver", "", false, "", "what never was ours does not"),
        ],
    );
    check(
        DEFAULT,
        &[
            ("", "driver", DEPENDENTS, true, "", "discovery is lost"),
            ("", "driver", DEPENDENTS, false, BACK, "and still is when they come back"),
        ],
    );
    check(Policy::Nothing, &[("container", "driver", DEPENDENTS, true, "-driver record ", "the config goes")]);
    check(
        Policy::Frozen,
        &[
            ("container", ALL, "", true, AWAY, "the config cannot be read"),
            ("container", "driver", DEPENDENTS, false, BACK, "nor can it afterwards"),
        ],
    );
    for (labels, recorded, is_paused) in [(ALL, "", true), ("driver", DEPENDENTS, false)] {
        let skipped = NodeView { skip: true, ..node("container", labels, recorded) };
        assert!(written(&skipped, MODES, is_paused).is_empty(), "a skipped node stays as it is: {labels}");
    }
}

#[test]
fn a_label_that_a_driver_manager_emptied_is_removed_when_it_is_not_wanted() {
    let node = node("vm-passthrough", "driver device-plugin=", "");
    let decision = decide(&node, MODES, None, Duration::from_mins(10));
    let patch = patch(&node, &step_aside(decision, &node, false).changes(&node));
    assert_eq!(patch["metadata"]["labels"]["rebellions.ai/npu.deploy.device-plugin"], serde_json::Value::Null);
}
