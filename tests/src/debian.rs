//! Programs from Debian's packages, unpacked into a folder of ours and run from there; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};

use crate::programs::cache;
use crate::say;

/// What signs Debian's packages, where Debian keeps it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages move on; after so long they are fetched anew.
const STALE: Duration = Duration::from_hours(24 * 14);

/// Packages that are unpacked together with all that they depend on.
#[derive(Clone, Copy, Debug)]
pub struct Packages {
    /// Name of their folder in the cache.
    pub name: &'static str,
    /// What they are, for people.
    pub what: &'static str,
    /// Releases of Debian that are looked at, the oldest first.
    pub suites: &'static [&'static str],
    /// Suite and name of each.
    pub packages: &'static [(&'static str, &'static str)],
}

/// A root folder made of packages.
#[derive(Clone, Debug)]
pub struct Unpacked {
    root: PathBuf,
    versions: Vec<String>,
}

/// Fetches and unpacks what is not there yet. The inner error is a reason to skip: this machine cannot get them.
pub fn unpack(packages: &Packages, fresh: bool) -> anyhow::Result<Result<Unpacked, String>> {
    let folder = cache(packages.name)?;
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join(".lock"))?;
    lock.lock()?;
    let (root, done) = (folder.join("root"), folder.join("done"));
    // What is asked for is part of it: another list of packages is another root.
    let key = format!("{packages:?}\n");
    if fresh || is_stale(&done) || !fs::read_to_string(&done).is_ok_and(|text| text.starts_with(&key)) {
        let _ = fs::remove_file(&done);
        let _ = fs::remove_dir_all(&root);
        say(format!("Fetching {} from Debian's packages, once in a while: 20 s or so ...", packages.what));
        if let Err(reason) = download(&folder, packages) {
            return Ok(Err(format!("{reason:#}")));
        }
        let archives = folder.join("cache/archives");
        let names = unpack_all(&archives, &root)?;
        fs::remove_dir_all(folder.join("cache"))?;
        // Such as `qemu-system-x86_1%3a11.1.3…_amd64.deb`.
        let versions = names.iter().map(|name| name.trim_end_matches(".deb").replace("%3a", ":"));
        fs::write(&done, key + &versions.collect::<Vec<_>>().join("\n"))?;
    }
    let versions = fs::read_to_string(&done)?.lines().skip(1).map(str::to_owned).collect();
    Ok(Ok(Unpacked { root, versions }))
}

#[expect(clippy::disallowed_methods, reason = "the age of a file is a matter of the wall clock")]
fn is_stale(file: &Path) -> bool {
    let age = fs::metadata(file).and_then(|meta| meta.modified()).map(|then| SystemTime::now().duration_since(then));
    !matches!(age, Ok(Ok(age)) if age < STALE)
}

/// Any failure here is a registry or a tool that this machine does not have.
fn download(folder: &Path, packages: &Packages) -> anyhow::Result<()> {
    let mirror = mirror()?;
    ensure!(Path::new(KEYRING).exists(), "there is no {KEYRING}: install debian-archive-keyring");
    for sub in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    let source = |suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    let sources: String = packages.suites.iter().map(|suite| source(suite)).collect();
    fs::write(folder.join("sources.list"), sources)?;
    // As if nothing were installed, so that all that they need comes along.
    fs::write(folder.join("status"), "")?;
    apt(folder, &["update", "-qq"])?;
    for (suite, package) in packages.packages {
        apt(folder, &["install", "-qq", "--download-only", "--assume-yes", "--target-release", suite, package])?;
    }
    Ok(())
}

fn apt(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut apt = Command::new("apt-get");
    let at = |name: &str| folder.join(name).display().to_string();
    for option in [
        format!("Dir::Etc::sourcelist={}", at("sources.list")),
        "Dir::Etc::sourceparts=/dev/null".into(),
        format!("Dir::State::lists={}", at("lists")),
        format!("Dir::State::status={}", at("status")),
        format!("Dir::Cache={}", at("cache")),
        "APT::Architecture=amd64".into(),
        "APT::Architectures=amd64".into(),
        "APT::Install-Recommends=false".into(),
        "APT::Sandbox::User=root".into(),
        "Acquire::Retries=2".into(),
    ] {
        apt.arg("-o").arg(option);
    }
    let output = apt.args(arguments).output().context("there is no apt-get")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "apt-get {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// Where this machine gets its Debian packages from.
fn mirror() -> anyhow::Result<String> {
    let ask = ["indextargets", "--format", "$(REPO_URI) $(SUITE)", "Created-By: Packages", "Origin: Debian"];
    let output = Command::new("apt-get").args(ask).output().context("there is no apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let main = text.lines().filter_map(|line| line.split_once(' ')).find(|(_, suite)| !suite.contains('-'));
    let (mirror, _) = main.context("apt knows no mirror of Debian on this machine")?;
    Ok(mirror.trim_end_matches('/').to_owned())
}

/// Unpacks every package in a folder; returns their names.
fn unpack_all(archives: &Path, root: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(root)?;
    let mut names = names(archives)?;
    names.retain(|name| Path::new(name).extension().is_some_and(|ending| ending == "deb"));
    for name in &names {
        let status = Command::new("dpkg-deb").arg("-x").arg(archives.join(name)).arg(root).status()?;
        ensure!(status.success(), "could not unpack {name}");
    }
    Ok(names)
}

/// Names of what is in a folder, in order.
pub fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

impl Unpacked {
    /// Name, version and architecture of a package, such as `runc_1.1.15+ds1-2+b4_amd64`; empty when it is not among them.
    #[must_use]
    pub fn version(&self, package: &str) -> &str {
        let prefix = format!("{package}_");
        self.versions.iter().find(|name| name.starts_with(&prefix)).map_or("", String::as_str)
    }

    /// A command that runs a program of the unpacked packages with the libraries that it was built for.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(self.root.join(program));
        command
    }

    /// Runs a program of the unpacked packages; returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A file or folder of the unpacked packages.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}
