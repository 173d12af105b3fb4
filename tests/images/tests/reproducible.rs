//! The same sources are the same images, wherever they are built.

#![allow(clippy::expect_used, reason = "this is how a test fails")]

use std::path::Path;
use std::process::Command;

use images::oci::{self, Written};
use images::{Architecture, LARGEST, Ours, root};

/// Names, digests and sizes of all images of a repository.
fn build(repository: &Path, target: &Path) -> Vec<Written> {
    let ours =
        Ours::build(repository, target, Architecture::here().expect("a known one"), Some("commit")).expect("a build");
    let image = |program: &str| ours.image(program, &format!("registry/{program}:v1")).expect("files").expect("ours");
    let images: Vec<_> = ours.programs().map(image).collect();
    oci::write(&target.join("images.tar"), &images).expect("an archive")
}

/// A copy of what git knows of.
fn copy(folder: &Path) {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let out = git.output().expect("git runs").stdout;
    for path in String::from_utf8(out).expect("names").lines().filter(|path| root().join(path).is_file()) {
        let to = folder.join(path);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(root().join(path), to).expect("a copy");
    }
}

#[test]
#[ignore = "builds every program as it is shipped, and again in a copy of the repository: half an hour; see docs/guides/images.md"]
fn another_folder_makes_the_same_images() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let copied = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-folder-of-another-name");
    if copied.exists() {
        std::fs::remove_dir_all(&copied).expect("it is removed");
    }
    copy(&copied.join("repository"));
    let here = build(root(), target);
    let there = build(&copied.join("repository"), &copied.join("target"));
    assert_eq!(here, there);
    let largest = here.iter().map(|image| image.compressed).max();
    assert!(largest.is_some_and(|bytes| bytes <= LARGEST), "{here:?}");
    std::fs::remove_dir_all(&copied).expect("it is removed");
}
