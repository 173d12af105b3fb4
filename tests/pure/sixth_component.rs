//! The recipe of CONTRIBUTING.md for a further component, carried out in a copy of the repository.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::repository::root;

use crate::files::{below, read};

/// A copy of what git knows of, and what was done to it.
struct Checkout {
    folder: PathBuf,
    files: usize,
    lines: usize,
}

impl Checkout {
    fn new(folder: &Path) -> Self {
        let mut git = Command::new("git");
        let out = git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root()).output();
        for path in String::from_utf8_lossy(&out.expect("git runs").stdout).lines() {
            // What was deleted and not committed yet is still listed.
            if root().join(path).is_file() {
                let target = folder.join(path);
                std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
                std::fs::copy(root().join(path), target).expect("a copy");
            }
        }
        Self { folder: folder.into(), files: 0, lines: 0 }
    }

    fn write(&mut self, path: &str, text: &str) {
        let target = self.folder.join(path);
        let before = std::fs::read_to_string(&target).unwrap_or_default();
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::write(target, text).expect("a file");
        self.files += 1;
        self.lines += text.lines().count().saturating_sub(before.lines().count());
    }

    /// Writes files anew, each with `words` in place of others.
    fn copy(&mut self, from: &str, to: &str, words: &[(&str, &str)]) {
        let from = self.folder.join(from);
        let paths = if from.is_dir() { below(&from, "") } else { vec![from.clone()] };
        for path in paths {
            let text = words.iter().fold(read(&path), |text, (old, new)| text.replace(old, new));
            let name = path.strip_prefix(&from).expect("below it").to_string_lossy().into_owned();
            let target = if name.is_empty() { to.to_owned() } else { format!("{to}/{name}") };
            self.write(&target, &text);
        }
    }

    /// Puts `new` in front of the one place where `at` is.
    fn insert(&mut self, path: &str, at: &str, new: &str) {
        let text = read(&self.folder.join(path));
        assert_eq!(text.matches(at).count(), 1, "{path}: {at}");
        self.write(path, &text.replacen(at, &format!("{new}{at}"), 1));
    }

    fn cargo(&self, target: &Path, arguments: &[&str]) {
        let mut cargo = Command::new(env!("CARGO"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO")) {
            cargo.env_remove(name);
        }
        cargo.args(arguments).current_dir(&self.folder).env("CARGO_TARGET_DIR", target).env("UPDATE_GOLDEN", "1");
        let out = cargo.output().expect("cargo runs");
        let mut said = String::from_utf8_lossy(&out.stdout).into_owned();
        let _ = write!(said, "{}", String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "cargo {}:\n{said}", arguments.join(" "));
    }
}

const WORDS: &[(&str, &str)] = &[
    ("npu-feature-discovery", "validator"),
    ("npu_feature_discovery", "validator"),
    ("NPU_FEATURE_DISCOVERY", "VALIDATOR"),
];

#[test]
#[ignore = "builds a copy of the workspace, which takes minutes; run by `just sixth-component`"]
fn the_recipe_for_a_sixth_component_is_complete() {
    let scratch = root().join("target/sixth-component");
    let copy = scratch.join("copy");
    if copy.exists() {
        std::fs::remove_dir_all(&copy).expect("it is removed");
    }
    let mut copy = Checkout::new(&copy);
    // 1. The contract.
    let contract = "crates/accelerator-api/src/contract.rs";
    copy.insert(
        contract,
        "/// Every component, in the order",
        "/// Validates.\npub static VALIDATOR: Component =\n    component!(\"validator\", \"Validator\", validator, \"validator\", [Container], []);\n\n",
    );
    copy.insert(contract, "];\n\n/// Name of the node-labeler", ", &VALIDATOR");
    let text = read(&copy.folder.join(contract)).replacen("[&Component; 5]", "[&Component; 6]", 1);
    std::fs::write(copy.folder.join(contract), text).expect("a file");
    copy.insert(
        "crates/accelerator-api/src/config.rs",
        "    /// Binds NPUs to the driver vfio-pci",
        "    /// Validates.\n    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n    pub validator: Option<ComponentSpec>,\n",
    );
    copy.insert(
        "docs/concepts.md",
        "| any `rebellions.ai/npu.deploy.*` |",
        "| `rebellions.ai/npu.deploy.validator` | `true` | assigned, in mode `container` |\n",
    );
    // 2. The manifest.
    for name in ["daemonset.yaml", "README.md"] {
        let neighbour = format!("assets/rebellions/npu-feature-discovery/{name}");
        copy.copy(&neighbour, &format!("assets/rebellions/validator/{name}"), WORDS);
    }
    copy.insert(
        "deploy/components/guard-rails/policies/operand_daemonsets.yaml",
        "      'vfio-manager': [",
        "      'validator': ['/etc/kubernetes/node-feature-discovery/features.d', '/sys'],\n",
    );
    copy.insert(
        "docs/security.md",
        "| vfio-manager | `vfio-manager` |",
        "| validator | `validator` | yes | validates |\n",
    );
    // 3. The controller.
    let (neighbour, package) = ("rebellions-npu-feature-discovery-controller", "rebellions-validator-controller");
    copy.copy(&format!("crates/{neighbour}"), &format!("crates/{package}"), WORDS);
    copy.insert(
        "Cargo.toml",
        "rebellions-vfio-manager = {",
        &format!("{package} = {{ path = \"crates/{package}\" }}\n"),
    );
    copy.insert("tests/Cargo.toml", "rebellions-vfio-manager-controller", &format!("{package}.workspace = true\n"));
    copy.insert(
        "tests/src/repository.rs",
        "    ]\n}\n\n/// The folder of",
        "        &rebellions_validator_controller::OPERAND,\n",
    );
    let stage = format!(
        "FROM image AS {package}\nLABEL org.opencontainers.image.title=\"{package}\"\n\
         LABEL org.opencontainers.image.description=\"Validates\"\nCOPY --from=build /images/{package}/ /\n\n"
    );
    copy.insert("Containerfile", "FROM image AS rebellions-vfio-manager-controller\n", &stage);
    // 4. The base.
    copy.copy(&format!("deploy/base/{neighbour}"), &format!("deploy/base/{package}"), WORDS);
    copy.insert(
        "deploy/overlays/default/kustomization.yaml",
        "- ../../base/rebellions-vfio-manager-controller",
        &format!("- ../../base/{package}\n"),
    );
    // 5. Generated files, and all tests that need no cluster.
    let target = scratch.join("target");
    copy.cargo(&target, &["build", "--offline", "--bin", package]);
    copy.cargo(
        &target,
        &["test", "--offline", "--package", "testbed", "--package", "demo", "--test", "pure", "--bin", "demo"],
    );
    copy.cargo(&target, &["test", "--offline", "--package", "images", "--lib"]);
    let expected = read(&copy.folder.join("assets/rebellions/validator/testdata/default.expected.yaml"));
    assert!(expected.contains("name: rebellions-validator"), "{expected}");
    assert!(read(&copy.folder.join("deploy/crds/acceleratorconfigs.yaml")).contains("validator:"));
    testbed::say(format!("a further component: {} edits, {} lines", copy.files, copy.lines));
}
