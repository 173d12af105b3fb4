//! The overlay in `docs/security.md` that changes a setting of the guard rails.

use serde_json::Value;
use testbed::install;
use testbed::repository::root;

fn variables(objects: &[Value]) -> Vec<Value> {
    let of = |object: &&Value| {
        object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == "accelerator-operand-daemonsets"
    };
    let policy = objects.iter().find(of).expect("the policy");
    policy["spec"]["variables"].as_array().expect("variables").clone()
}

#[test]
fn the_documented_overlay_changes_one_setting_and_nothing_else() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(root().join("docs/security.md"))?;
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an overlay");
    // Two folders below the root, as the overlay says.
    let folder = tempfile::tempdir_in(root().join("target"))?;
    std::fs::write(folder.path().join("kustomization.yaml"), block)?;
    let objects = install::render(&folder.path().display().to_string())?;
    let (settings, defaults) = (variables(&objects), variables(&install::render(testbed::guard_rails::POLICIES)?));
    assert_eq!(settings[0]["expression"], "['registry.example.com']");
    assert_eq!(settings[1..], defaults[1..]);
    let places: Vec<_> = defaults.iter().take(3).map(|one| one["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(places, ["registries", "kubeletRootDir", "hostNetwork"], "their places are in the documentation");
    assert!(objects.iter().any(install::is_deployment), "the rest of the overlay is there, too");
    Ok(())
}
