//! Files that are generated are what the code generates.

use testbed::repository::root;

use crate::files::assert_golden;

#[test]
fn the_crd_is_current() {
    assert_golden(&root().join("deploy/crds/acceleratorconfigs.yaml"), &accelerator_api::crd_yaml().expect("the CRD"));
}
