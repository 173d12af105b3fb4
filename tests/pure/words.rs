//! Each name of the contract is written once, in accelerator-api.

use accelerator_api::contract::COMPONENTS;
use testbed::repository::root;

use crate::files::{below, read};

/// Files of code that ships.
fn sources(tree: &str) -> impl Iterator<Item = std::path::PathBuf> {
    below(&root().join(tree), ".rs").into_iter().filter(|path| !path.ends_with("tests.rs"))
}

/// The code that ships: no comments, and nothing after the first `#[cfg(test)]`.
fn shipped(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn no_label_is_spelt_outside_the_contract() {
    for path in sources("crates").filter(|path| !path.ends_with("accelerator-api/src/contract.rs")) {
        for line in shipped(&read(&path)) {
            let spelt = line.contains("rebellions.ai/");
            assert!(!spelt, "{}: use accelerator_api::contract instead of: {}", path.display(), line.trim());
        }
    }
}

#[test]
fn no_shared_crate_names_a_component() {
    for tree in ["crates/accelerator-operand", "crates/accelerator-runtime", "crates/node-labeler"] {
        for path in sources(tree) {
            for line in shipped(&read(&path)) {
                for component in COMPONENTS {
                    let spelt = format!("\"{}\"", component.name);
                    assert!(!line.contains(&spelt), "{} knows the component {spelt}", path.display());
                }
            }
        }
    }
}
