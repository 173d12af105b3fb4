//! Releases: the commits that they are built from, and their programs, built once and kept.

use std::fs::{File, create_dir_all, remove_dir_all, rename};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use crate::programs::{cache, cargo};
use crate::progress::say;
use crate::repository;

/// A release: a version, and the commit that it is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version, such as `0.1.0`.
    pub version: String,
    /// The commit, as 40 hexadecimal digits.
    pub commit: String,
}

/// A release as it was: its files, and its programs.
#[derive(Clone, Debug)]
pub struct Built {
    /// The files of its commit.
    pub source: PathBuf,
    programs: PathBuf,
}

impl Built {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "the release has no program {name}: {} is not there", path.display());
        Ok(path)
    }
}

/// Every release, the last one last.
pub fn all() -> anyhow::Result<Vec<Release>> {
    let path = repository::root().join("releases/commits");
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    parse(&text).with_context(|| format!("could not read {}", path.display()))
}

/// A line a release, the version and the commit; `#` begins a comment.
fn parse(text: &str) -> anyhow::Result<Vec<Release>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let release = |line: &str| {
        let (version, commit) = line.split_once(' ').context(format!("{line:?} is not VERSION COMMIT"))?;
        let commit = commit.trim();
        let is_whole = commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit());
        ensure!(is_whole, "{commit:?} is not a whole commit of 40 hexadecimal digits");
        Ok(Release { version: version.into(), commit: commit.into() })
    };
    lines.filter(|line| !line.is_empty()).map(release).collect()
}

impl Release {
    /// The last one.
    pub fn last() -> anyhow::Result<Self> {
        all()?.pop().context("releases/commits names no release")
    }

    /// Where what is compared with is kept of it.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        repository::root().join("releases").join(&self.version)
    }

    /// Its files and programs. Builds them when this is the first time.
    pub fn build(&self) -> anyhow::Result<Built> {
        let folder = cache("releases")?.join(format!("{}-{}", self.version, &self.commit[..12]));
        create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        // Two processes at once: the second waits for the first and finds everything done.
        let lock = File::create(folder.join(".lock"))?;
        if lock.try_lock().is_err() {
            say(format!("Waiting for another process that builds {} ...", self.version));
            lock.lock()?;
        }
        let built = Built { source: folder.join("source"), programs: folder.join("programs") };
        if !built.programs.is_dir() {
            say(format!("Building release {} for tests, once: about 2 min on two cores.", self.version));
            let begun = Instant::now();
            extract(repository::root(), self, &built.source)?;
            self.compile(&folder, &built)?;
            say(format!("  built in {} s", begun.elapsed().as_secs()));
        }
        Ok(built)
    }

    fn compile(&self, folder: &Path, built: &Built) -> anyhow::Result<()> {
        let (target, unfinished) = (folder.join("target"), folder.join(".programs"));
        let mut command = cargo();
        command.current_dir(&built.source).args(["build", "--locked", "--workspace", "--target-dir"]).arg(&target);
        command.args(repository::programs().flat_map(|name| ["--bin", name]));
        // Quick to build and small to keep: nobody looks into them with a debugger.
        command.envs([
            ("CARGO_PROFILE_DEV_DEBUG", "0"),
            ("CARGO_PROFILE_DEV_STRIP", "symbols"),
            ("CARGO_INCREMENTAL", "0"),
        ]);
        let status = command.status().context("could not run cargo")?;
        ensure!(status.success(), "could not build release {}; see above", self.version);
        create_dir_all(&unfinished)?;
        for name in repository::programs() {
            std::fs::copy(target.join("debug").join(name), unfinished.join(name))?;
        }
        rename(&unfinished, &built.programs)?;
        // Nobody needs what they were made of.
        remove_dir_all(&target).with_context(|| format!("could not remove {}", target.display()))
    }
}

/// The files of a release's commit, out of a repository's history.
fn extract(repository: &Path, release: &Release, into: &Path) -> anyhow::Result<()> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(repository).args(arguments).stdin(Stdio::null());
        git
    };
    let Release { version, commit } = release;
    let why = format!("release {version} is built from the commit {commit}");
    let found = git(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).output();
    let found = found.with_context(|| format!("{why}; that needs git, which could not be run"))?;
    if !found.status.success() {
        let shallow = git(&["rev-parse", "--is-shallow-repository"]).output()?;
        let what_to_do = match String::from_utf8_lossy(&shallow.stdout).trim() {
            "true" => "this is a shallow clone without it; run `git fetch --unshallow`",
            "false" => "this clone does not have it; fetch the branch `main` of the project's repository",
            _ => "this folder is no clone with a history; clone the project's repository with git",
        };
        bail!("{why}: {what_to_do}");
    }
    let unfinished = into.with_file_name(".source");
    for folder in [&unfinished, into] {
        if folder.exists() {
            remove_dir_all(folder)?;
        }
    }
    create_dir_all(&unfinished)?;
    let mut archive = git(&["archive", "--format=tar", commit]).stdout(Stdio::piped()).spawn()?;
    let files = archive.stdout.take().context("git has no standard output")?;
    let unpacked =
        Command::new("tar").arg("-xC").arg(&unfinished).stdin(files).status().context("could not run tar")?;
    ensure!(archive.wait()?.success() && unpacked.success(), "{why}: its files could not be unpacked");
    Ok(rename(&unfinished, into)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "721fde7699748a80be9bb2b4e5a45809b0f2ee5d";

    #[test]
    fn a_release_is_a_line() {
        let parsed = parse(&format!("# which\n0.1.0 {COMMIT}\n\n0.2.0 {COMMIT} # why\n")).expect("releases");
        let versions: Vec<_> = parsed.iter().map(|release| release.version.as_str()).collect();
        assert_eq!(versions, ["0.1.0", "0.2.0"]);
        assert!(parsed.iter().all(|release| release.commit == COMMIT));
        let refused = |text: &str| parse(text).expect_err("it is refused").to_string();
        assert_eq!(refused("0.1.0"), "\"0.1.0\" is not VERSION COMMIT");
        assert_eq!(refused("0.1.0 721fde7"), "\"721fde7\" is not a whole commit of 40 hexadecimal digits");
    }

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.com", "-C"]).arg(folder).args(arguments);
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn a_commit_that_is_not_there_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let [whole, shallow, none] = ["whole", "shallow", "none"].map(|name| folder.path().join(name));
        for folder in [&whole, &none] {
            create_dir_all(folder).expect("a folder");
        }
        git(&whole, &["init", "--quiet"]);
        for text in ["first", "second"] {
            std::fs::write(whole.join("file"), text).expect("a file");
            git(&whole, &["add", "file"]);
            git(&whole, &["commit", "--quiet", "--message", text]);
        }
        let commit = git(&whole, &["rev-parse", "HEAD~1"]);
        let release = Release { version: "0.1.0".into(), commit };
        let url = format!("file://{}", whole.display());
        git(folder.path(), &["clone", "--quiet", "--depth", "1", &url, "shallow"]);

        let into = folder.path().join("source");
        extract(&whole, &release, &into).expect("it is there");
        assert_eq!(std::fs::read_to_string(into.join("file")).expect("a file"), "first");
        let told = |repository: &Path, release: &Release| {
            let error = extract(repository, release, &into).expect_err("it is not there").to_string();
            error.split_once(": ").expect("what to do").1.to_owned()
        };
        assert_eq!(told(&shallow, &release), "this is a shallow clone without it; run `git fetch --unshallow`");
        let other = Release { commit: COMMIT.into(), ..release.clone() };
        assert!(told(&whole, &other).starts_with("this clone does not have it; fetch the branch `main`"));
        assert!(told(&none, &release).starts_with("this folder is no clone with a history"));
    }
}
