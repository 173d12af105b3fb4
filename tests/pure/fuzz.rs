//! Nothing that an admin can write makes a controller panic, or makes it apply the same thing twice.

use accelerator_api::ObservedConfig;
use accelerator_api::contract::COMPONENTS;
use accelerator_operand::{PlanContext, Write, plan};
use serde_json::json;
use testbed::access::OPERANDS;
use testbed::generate::Generator;
use testbed::repository::operands;

#[test]
fn whatever_is_written_renders_and_is_covered_by_what_it_renders() {
    let components = COMPONENTS.map(|component| component.path.rsplit('.').next().unwrap_or_default());
    let sections: Vec<_> = components.into_iter().chain(["workload", "daemonsets"]).collect();
    let templates = operands().map(|operand| operand.template().expect("a manifest"));
    let mut applied = 0;
    for seed in 0..400 {
        let section = Generator::new(seed, &sections).object();
        let object = json!({"metadata": {"name": "x"}, "spec": {"providers": {"rebellions": section}}});
        let config: ObservedConfig = serde_json::from_value(object).expect("anything with metadata is read");
        for template in &templates {
            if let Write::Apply { wanted, .. } = plan(template, PlanContext::of(OPERANDS), &[&config], None).write {
                applied += 1;
                let again = plan(template, PlanContext::of(OPERANDS), &[&config], Some(&wanted)).write;
                assert!(matches!(again, Write::Nothing), "seed {seed}: {again:?}");
            }
        }
    }
    assert!(applied > 100, "{applied}: the generator is too wild to test anything");
}
