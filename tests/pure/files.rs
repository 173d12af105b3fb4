//! Reading the repository, and comparing with what is kept in it.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The text of a file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

/// A YAML file as plain data.
pub fn yaml(path: &Path) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the folders and files in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Every file below a folder whose name ends like this.
pub fn below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let paths = names(folder).into_iter().map(|name| folder.join(name));
    paths
        .flat_map(|path| match path.is_dir() {
            true => below(&path, ending),
            false if path.to_string_lossy().ends_with(ending) => vec![path],
            false => vec![],
        })
        .collect()
}

/// Compares with a kept file, or rewrites that when `UPDATE_GOLDEN=1`.
pub fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, actual).unwrap_or_else(|error| panic!("could not write {}: {error}", path.display()));
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == actual,
        "{} is not what the code makes of it; look at `git diff` after UPDATE_GOLDEN=1 cargo test --package testbed --test \
         pure.\n--- kept\n{kept}\n--- made\n{actual}",
        path.display()
    );
}
