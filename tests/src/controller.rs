//! One of our programs as a real process, with the token of its own service account.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use serde_json::Value;

use crate::kubeconfig::{self, User};
use crate::process::Process;
use crate::programs::{own_binary, shipped_binary};
use crate::{Access, admin, repository};

/// The namespace of the controllers' service accounts.
pub const NAMESPACE: &str = "accelerator-system";

/// How long a program may take to stop when asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Controller {
    /// Its name.
    pub name: &'static str,
    process: Process,
}

impl Controller {
    /// Starts a program with the rights of its own service account and no others.
    pub async fn start(access: &Access, name: &'static str, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_in(access, name, arguments, &[]).await
    }

    /// Starts a program as above, with this beside its own environment.
    pub async fn start_in(
        access: &Access,
        name: &'static str,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        Self::start_binary(access, name, &own_binary(name)?, arguments, environment).await
    }

    /// Starts a program as it is shipped.
    pub async fn start_shipped(access: &Access, name: &'static str) -> anyhow::Result<Self> {
        Self::start_binary(access, name, &shipped_binary(name)?, &[], &[]).await
    }

    /// Starts what a Deployment of `deploy/` runs, as a pod of it would run: as its service account in its namespace, with
    /// the environment that is written down in it.
    pub async fn start_installed(access: &Access, deployment: &Value, arguments: &[&str]) -> anyhow::Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pod = &deployment["spec"]["template"]["spec"];
        let (namespace, account) = (text(&deployment["metadata"]["namespace"]), text(&pod["serviceAccountName"]));
        let image = text(&pod["containers"][0]["image"]);
        let runs = |program: &str| image.split(['/', ':', '@']).any(|part| part == program);
        let name =
            repository::programs().find(|program| runs(program)).with_context(|| format!("{image} is not ours"))?;
        let written = pod["containers"][0]["env"].as_array().into_iter().flatten();
        let written = written.filter_map(|one| Some((one["name"].as_str()?, one["value"].as_str()?.to_owned())));
        let environment: Vec<_> = written.chain([("NAMESPACE", namespace.clone())]).collect();
        let kubeconfig = identity_in(access, &namespace, &account).await?;
        Self::start_as(access, name, &kubeconfig, &own_binary(name)?, arguments, &environment)
    }

    /// Starts a program of this name that is somewhere else, such as that of a release.
    pub async fn start_binary(
        access: &Access,
        name: &'static str,
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let kubeconfig = identity(access, name).await?;
        Self::start_as(access, name, &kubeconfig, binary, arguments, environment)
    }

    fn start_as(
        access: &Access,
        name: &'static str,
        kubeconfig: &Path,
        binary: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command.env_clear().env("KUBECONFIG", kubeconfig).env("RUST_BACKTRACE", "1");
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.args(["--admin-address", "127.0.0.1:0", "--log-format", "json"]).args(arguments);
        let log = access.folder.join(format!("{name}.{}.log", next_number()));
        Ok(Self { name, process: Process::start(&mut command, &log)? })
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.process.stop(PATIENCE)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// The process itself.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its log so far, a value a line.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.process.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The address of `/livez`, `/readyz` and `/metrics`, which it logs.
    pub async fn admin_address(&mut self) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let address = self.log().iter().find_map(|line| Some(line.get("adminAddress")?.as_str()?.to_owned()));
            if let Some(address) = address {
                return Ok(address);
            }
            if self.ended().is_some() || begun.elapsed() > PATIENCE {
                bail!("{} did not start:\n{}", self.name, self.process.tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The sum of a metric over all label sets that contain this text.
    pub async fn metric(&mut self, name: &str, label: &str) -> anyhow::Result<f64> {
        let address = self.admin_address().await?;
        Ok(admin::sum(&admin::get(&address, "/metrics").await.1, name, label))
    }
}

/// A kubeconfig with a fresh token of the program's service account.
pub async fn identity(access: &Access, name: &str) -> anyhow::Result<PathBuf> {
    identity_in(access, NAMESPACE, name).await
}

async fn identity_in(access: &Access, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
    let accounts = access.namespaced::<ServiceAccount>(namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
    let answer = answer.with_context(|| format!("no token for {name}; is deploy/base/{name} installed?"))?;
    let token = access.folder.join(format!("{namespace}.{name}.token"));
    std::fs::write(&token, answer.status.context("a token request without a token")?.token)?;
    kubeconfig::write(
        &access.folder.join(format!("{namespace}.{name}.kubeconfig")),
        &access.entry,
        &User::TokenFile(&token),
    )
}

/// A program may be started several times; each has a log of its own.
fn next_number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
