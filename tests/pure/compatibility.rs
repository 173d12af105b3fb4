//! Nothing that the last release had is taken away: what `releases/` kept of it is compared with what the code is now, and
//! `docs/reference/compatibility.md` is written from both.

mod metrics;
mod page;
mod schema;
mod surface;

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use testbed::releases::{self, Release};
use testbed::repository::root;

use self::surface::Surface;
use crate::files::{assert_golden, read, yaml};

/// A break that is meant.
#[derive(Deserialize)]
struct Accepted {
    /// What the comparison says of it.
    change: String,
    /// Why it is meant, and what an admin does about it.
    why: String,
}

/// What is kept of a release, beside its commit.
struct Record {
    release: Release,
    crd: Value,
    surface: Surface,
    accepted: Vec<Accepted>,
}

const CRD: &str = "acceleratorconfigs.yaml";
const SURFACE: &str = "surface.json";
const ACCEPTED: &str = "accepted.json";

impl Record {
    /// That of the last release.
    fn last() -> Self {
        let release = Release::last().expect("a release");
        let json = |file: &str| read(&release.folder().join(file));
        let surface = serde_json::from_str(&json(SURFACE)).expect(SURFACE);
        let accepted = serde_json::from_str(&json(ACCEPTED)).expect(ACCEPTED);
        Self { crd: yaml(&release.folder().join(CRD)), surface, accepted, release }
    }

    /// What others relied on and can no longer, whether it is meant or not.
    fn breaks(&self, crd: &Value, surface: &Surface) -> Vec<String> {
        let narrowed = schema::narrowed_crd(&self.crd, crd).into_iter().map(|what| format!("CRD: {what}"));
        narrowed.chain(surface::changed(&self.surface, surface)).collect()
    }
}

fn crd() -> Value {
    serde_json::to_value(accelerator_api::crd()).expect("a CRD is JSON")
}

#[test]
fn nothing_that_the_last_release_had_is_taken_away() {
    let record = Record::last();
    let breaks = record.breaks(&crd(), &surface::of_the_code());
    let is_accepted = |what: &String| record.accepted.iter().any(|accepted| accepted.change == *what);
    let unmeant: Vec<_> = breaks.iter().filter(|what| !is_accepted(what)).collect();
    let file = record.release.folder().join(ACCEPTED);
    assert!(
        unmeant.is_empty(),
        "this takes away what {} had: {unmeant:#?}\nLet it stay beside what is new, or, if it has to go, write each line as \
         \"change\" into {}, with the reason and what an admin has to do as \"why\".",
        record.release.version,
        file.display()
    );
    // Those of objects are compared where `deploy/` is rendered, in `tests/cluster/skew.rs`.
    for Accepted { change, why } in record.accepted.iter().filter(|one| !one.change.starts_with("deploy: ")) {
        assert!(breaks.contains(change), "{}: nothing says any more: {change}", file.display());
        assert!(why.len() > 20, "{}: a reason that says something, for: {change}", file.display());
    }
}

#[test]
fn the_page_about_compatibility_is_current() {
    let (record, surface) = (Record::last(), surface::of_the_code());
    let deploy =
        record.accepted.iter().map(|accepted| accepted.change.clone()).filter(|what| what.starts_with("deploy: "));
    let breaks: Vec<_> = record.breaks(&crd(), &surface).into_iter().chain(deploy).collect();
    let page = page::page(&record, &breaks, &surface);
    assert_golden(&root().join("docs/reference/compatibility.md"), &page);
}

/// With `RECORD_RELEASE=VERSION`, that of the workspace, what the code is now is kept as that release; see `releases/README.md`.
#[test]
fn what_is_kept_of_the_last_release_can_be_compared_with() {
    if let Some(version) = std::env::var_os("RECORD_RELEASE") {
        keep(&version.to_string_lossy());
    }
    let record = Record::last();
    // The comparison finds all that is there, wherever it is: were it all gone, all would be told.
    let gone = surface::changed(&record.surface, &Surface::new());
    assert!(gone.len() > 100, "{}: {} entries", record.release.version, gone.len());
    assert_eq!(record.crd["spec"]["versions"][0]["name"], "v1beta1");
    let kept = crate::files::names(&root().join("releases"));
    for release in releases::all().expect("releases") {
        assert!(kept.contains(&release.version), "releases/{} is missing", release.version);
    }
}

fn keep(version: &str) {
    assert_eq!(version, env!("CARGO_PKG_VERSION"), "RECORD_RELEASE is not the version of the workspace");
    let is_named = releases::all().unwrap_or_default().iter().any(|release| release.version == version);
    assert!(!is_named, "{version} is released: what is kept of it does not change any more");
    let folder: PathBuf = root().join("releases").join(version);
    std::fs::create_dir_all(&folder).expect("a folder");
    let surface = serde_json::to_string_pretty(&surface::of_the_code()).expect("JSON");
    let files = [
        (CRD, accelerator_api::crd_yaml().expect("the CRD")),
        (SURFACE, format!("{surface}\n")),
        (ACCEPTED, "[]\n".to_owned()),
    ];
    for (file, text) in files {
        std::fs::write(folder.join(file), text).expect("a file");
    }
}

/// Whatever goes or becomes something else is told.
#[test]
fn each_entry_that_goes_or_changes_is_told() {
    let old = surface::of_the_code();
    assert_eq!(surface::changed(&old, &old), Vec::<String>::new());
    for (group, names) in &old {
        for (name, meaning) in names {
            let mut new = old.clone();
            new.get_mut(group).expect("a group").remove(name);
            assert_eq!(surface::changed(&old, &new), [format!("{group}: {name} ({meaning}) is gone")]);
            new.get_mut(group).expect("a group").insert(name.clone(), "other".into());
            assert_eq!(surface::changed(&old, &new), [format!("{group}: {name} was {meaning}, is other")]);
            // More is no break.
            assert_eq!(surface::changed(&new, &old).len(), 1);
        }
    }
}
