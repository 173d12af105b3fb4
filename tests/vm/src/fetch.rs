//! A machine emulator and a kernel, from the packages of Debian. They are unpacked into a folder of ours and run from
//! there; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use testbed::programs::cache;
use testbed::say;

/// The release whose emulator has `vfio-user-pci` and whose kernel is long supported.
const SUITE: &str = "trixie";
const BACKPORTS: &str = "trixie-backports";
/// The emulator of the backports: the one before loses flags of an instruction that this kernel uses, and machines panic.
const EMULATOR: &str = "qemu-system-x86";
const KERNEL: &str = "linux-image-cloud-amd64";
/// What signs Debian's packages, where Debian keeps it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Packages move on; after so long they are fetched anew.
const STALE: Duration = Duration::from_hours(24 * 14);

/// What was fetched.
pub struct Fetched {
    root: PathBuf,
    /// `qemu-system-x86 1:11.1.3…`
    pub emulator: String,
    /// Release of the kernel.
    pub release: String,
}

/// Fetches what is not there yet. The inner error is a reason to skip: this machine cannot get them.
pub fn fetch(fresh: bool) -> anyhow::Result<Result<Fetched, String>> {
    let folder = cache("virtual-machines")?;
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join(".lock"))?;
    lock.lock()?;
    let (root, done) = (folder.join("root"), folder.join("done"));
    if fresh || is_stale(&done) {
        let _ = fs::remove_file(&done);
        let _ = fs::remove_dir_all(&root);
        say("Fetching a machine emulator and a kernel from Debian's packages, once in a while: 20 s or so ...");
        if let Err(reason) = download(&folder) {
            return Ok(Err(format!("{reason:#}")));
        }
        let archives = folder.join("cache/archives");
        unpack(&archives, &root)?;
        // Such as `qemu-system-x86_1%3a11.1.3…_amd64.deb`.
        let emulator = names(&archives)?.into_iter().find(|name| name.starts_with(&format!("{EMULATOR}_")));
        fs::remove_dir_all(folder.join("cache"))?;
        fs::write(&done, emulator.unwrap_or_default().trim_end_matches("_amd64.deb").replace("%3a", ":"))?;
    }
    let release = names(&root.join("usr/lib/modules"))?.pop().context("no kernel was unpacked")?;
    let fetched = Fetched { emulator: fs::read_to_string(&done)?, release, root };
    if !fetched.modules_folder().join("modules.dep").exists() {
        fetched.run("usr/sbin/depmod", &["-b", &fetched.root.join("usr").display().to_string(), &fetched.release])?;
    }
    Ok(Ok(fetched))
}

#[expect(clippy::disallowed_methods, reason = "the age of a file is a matter of the wall clock")]
fn is_stale(file: &Path) -> bool {
    let age = fs::metadata(file).and_then(|meta| meta.modified()).map(|then| SystemTime::now().duration_since(then));
    !matches!(age, Ok(Ok(age)) if age < STALE)
}

/// Any failure here is a registry or a tool that this machine does not have.
fn download(folder: &Path) -> anyhow::Result<()> {
    let mirror = mirror()?;
    ensure!(Path::new(KEYRING).exists(), "there is no {KEYRING}: install debian-archive-keyring");
    for sub in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(sub))?;
    }
    let source = |suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    fs::write(folder.join("sources.list"), source(SUITE) + &source(BACKPORTS))?;
    // As if nothing were installed, so that all that they need comes along.
    fs::write(folder.join("status"), "")?;
    apt(folder, &["update", "-qq"])?;
    for (suite, package) in [(BACKPORTS, EMULATOR), (SUITE, KERNEL)] {
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

fn unpack(archives: &Path, root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root)?;
    for name in
        names(archives)?.into_iter().filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "deb"))
    {
        let status = Command::new("dpkg-deb").arg("-x").arg(archives.join(&name)).arg(root).status()?;
        ensure!(status.success(), "could not unpack {name}");
    }
    Ok(())
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
    let mut names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

impl Fetched {
    /// The kernel itself.
    pub fn kernel(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// A command that runs a program of the unpacked packages with the libraries that it was built for.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        command.env("QEMU_MODULE_DIR", libraries.join("qemu")).arg("--library-path").arg(&libraries);
        command.arg(self.root.join(program));
        command
    }

    /// A folder of the unpacked packages.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.command(program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {said}");
        Ok(())
    }

    fn modules_folder(&self) -> PathBuf {
        self.root.join("usr/lib/modules").join(&self.release)
    }

    /// Files of kernel modules and of all that they need, with the indexes, by name in the guest.
    pub fn modules(&self, wanted: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
        let folder = self.modules_folder();
        let index = fs::read_to_string(folder.join("modules.dep"))?;
        let mut files = vec!["modules.dep".to_owned(), "modules.builtin".into()];
        let stem = |path: &str| {
            path.rsplit('/').next().unwrap_or_default().split(".ko").next().unwrap_or_default().replace('-', "_")
        };
        let builtin = fs::read_to_string(folder.join("modules.builtin"))?;
        let find = |index: &str, name: &str| {
            index
                .lines()
                .find(|line| stem(line.split(':').next().unwrap_or_default()) == name.replace('-', "_"))
                .map(str::to_owned)
        };
        for name in wanted.iter().filter(|name| find(&builtin, name).is_none()) {
            let Some(line) = find(&index, name) else { bail!("the kernel {} has no module {name}", self.release) };
            files.extend(line.replace(':', " ").split_whitespace().map(str::to_owned));
        }
        files.sort();
        files.dedup();
        let in_guest = |file: &String| format!("lib/modules/{}/{file}", self.release);
        Ok(files.iter().map(|file| (in_guest(file), folder.join(file))).collect())
    }
}
