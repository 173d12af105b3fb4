//! Each component's rendering, beside its manifest: `testdata/default.expected.yaml` is the DaemonSet that is applied when
//! it is switched on and nothing else is set; `testdata/CASE.config.yaml` is what an admin wrote, and
//! `testdata/CASE.expected.yaml` what is applied then.

use accelerator_api::ObservedConfig;
use accelerator_operand::{Operand, PlanContext, Write, plan};
use serde_json::json;
use testbed::Access;
use testbed::access::OPERANDS;
use testbed::repository::{assets, operands};

use crate::files::{assert_golden, names, read};

fn check(operand: &'static Operand, case: &str, config: &ObservedConfig) {
    let template = operand.template().expect("a manifest");
    let Write::Apply { wanted, .. } = plan(&template, PlanContext::of(OPERANDS), &[config], None).write else {
        panic!("{} {case}: nothing to apply", operand.component.name);
    };
    let yaml = serde_saphyr::to_string(&wanted).expect("a DaemonSet serialises");
    let folder = assets(operand).join("testdata");
    std::fs::create_dir_all(&folder).expect("a folder");
    assert_golden(&folder.join(format!("{case}.expected.yaml")), &yaml);
}

#[test]
fn the_default_renders_as_expected() {
    for operand in operands() {
        let metadata = json!({"name": "default", "uid": "00000000-0000-0000-0000-000000000001"});
        let spec = json!({"providers": {"rebellions": Access::enable(&[operand.component.name])}});
        let config = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("an AcceleratorConfig");
        check(operand, "default", &config);
    }
}

#[test]
fn every_case_renders_as_expected() {
    for operand in operands() {
        let folder = assets(operand).join("testdata");
        std::fs::create_dir_all(&folder).expect("a folder");
        for case in names(&folder).iter().filter_map(|name| name.strip_suffix(".config.yaml")) {
            let config = read(&folder.join(format!("{case}.config.yaml")));
            check(operand, case, &serde_saphyr::from_str(&config).expect("an AcceleratorConfig"));
        }
    }
}
