//! Each name of the contract is written once, in accelerator-api.

use accelerator_api::Reason;
use accelerator_api::contract::{COMPONENTS, SKIP_LABEL, WORKLOAD_CONFIG_LABEL};
use testbed::repository::root;

use crate::files::{below, read};

/// Files of code that ships: no `tests.rs`, and nothing in a folder `tests`.
fn sources(tree: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let is_test = |path: &std::path::Path| {
        let inside = path.strip_prefix(root()).unwrap_or(path);
        path.ends_with("tests.rs") || inside.iter().any(|folder| folder == "tests")
    };
    below(&root().join(tree), ".rs").into_iter().filter(move |path| !is_test(path))
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

/// An admin looks up what a condition says, and the label that a message names.
#[test]
fn concepts_name_every_reason_and_every_label() {
    let text = read(&root().join("docs/concepts.md"));
    for reason in Reason::ALL {
        assert!(text.contains(&format!("| `{}` |", reason.as_str())), "docs/concepts.md: {}", reason.as_str());
    }
    let labels = COMPONENTS.map(|component| component.deploy_label).into_iter();
    for label in labels.chain([WORKLOAD_CONFIG_LABEL, SKIP_LABEL]) {
        assert!(text.contains(&format!("`{label}`")), "docs/concepts.md: {label}");
    }
}

/// Every link of the documentation that stays in the repository leads somewhere.
#[test]
fn links_lead_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    pages.extend(["docs", "assets"].iter().flat_map(|tree| below(&root().join(tree), ".md")));
    for page in pages {
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let target = page.parent().expect("a folder").join(link);
            assert!(link.starts_with("https://") || target.exists(), "{}: {link}", page.display());
        }
    }
}

/// Names of a private language that the field's terms have replaced, each with its term.
const RETIRED: &[(&str, &str)] = &[
    ("AT_LEAST", "a name that says of what it is the least"),
    ("Allowance", "TokenBucket"),
    ("Anchor", "InstallOwner"),
    ("Announcement", "EventRequest"),
    ("Bereft", "CrdGone"),
    ("Budget", "TokenBucket"),
    ("Doing", "in flight"),
    ("Doubt", "AbsenceState"),
    ("FAREWELL", "GRACE"),
    ("Former", "PreviousDriver"),
    ("Glance", "look"),
    ("Mirror", "Store"),
    ("NoAddress", "ParseAddressError"),
    ("NoSelector", "ParseSelectorError"),
    ("PACE", "MIN_INTERVAL"),
    ("PodTrouble", "PodProblem"),
    ("Pulse", "HealthHandle"),
    ("SILENCE", "DEAD_AFTER"),
    ("Severity", "ProblemKind"),
    ("Standing", "NodeState"),
    ("Surroundings", "PlanContext"),
    ("TOGETHER", "COALESCE_WINDOW"),
    ("TakesBack", "Retract"),
    ("Turns", "GroupLocks"),
    ("Vacancy", "AbsenceCheck"),
    ("foresee", "predict"),
    ("stand_down", "on_leadership_lost"),
];

#[test]
fn no_private_word_comes_back() {
    let this = root().join("tests/pure/words.rs");
    let files = ["crates", "tests"].into_iter().flat_map(|tree| below(&root().join(tree), ".rs"));
    for path in files.filter(|path| *path != this) {
        let text = read(&path);
        for word in text.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')) {
            if let Some((_, term)) = RETIRED.iter().find(|(retired, _)| *retired == word) {
                panic!("{}: {word} is called {term}", path.display());
            }
        }
    }
}
