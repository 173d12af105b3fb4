//! Each component's rendering, as pairs of files beside its manifest: `testdata/CASE.config.yaml`, what the admin wrote,
//! and `testdata/CASE.expected.yaml`, the DaemonSet that is applied.

use accelerator_api::ObservedConfig;
use accelerator_operand::{Surroundings, Write, plan};
use testbed::access::OPERANDS;
use testbed::repository::{assets, operands};

use crate::files::{assert_golden, names, read};

#[test]
fn every_case_renders_as_expected() {
    for operand in operands() {
        let folder = assets(operand).join("testdata");
        let cases: Vec<_> =
            names(&folder).iter().filter_map(|name| name.strip_suffix(".config.yaml").map(str::to_owned)).collect();
        assert!(cases.contains(&"default".to_owned()), "{}: no case named default", operand.component.name);
        for case in cases {
            let config = folder.join(format!("{case}.config.yaml"));
            let config: ObservedConfig = serde_saphyr::from_str(&read(&config)).expect("an AcceleratorConfig");
            let template = operand.template().expect("a manifest");
            let Write::Apply { wanted, .. } = plan(&template, Surroundings::of(OPERANDS), &[&config], None).write
            else {
                panic!("{} {case}: nothing to apply", operand.component.name);
            };
            let yaml = serde_saphyr::to_string(&wanted).expect("a DaemonSet serialises");
            assert_golden(&folder.join(format!("{case}.expected.yaml")), &yaml);
        }
    }
}
