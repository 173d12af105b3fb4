//! What GitOps tools make of an object, asked of what they are made of: the library kstatus, a Lua machine with the health
//! check for Argo CD that the guide gives, and Flux's evaluator with the guide's expressions.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::programs::gitops_health_binary;
use crate::repository;

/// The guide, and the key of the health check in the `ConfigMap` that it shows.
const GUIDE: &str = "docs/guides/gitops.md";
const KEY: &str = "resource.customizations.health.petasus.io_AcceleratorConfig";

/// What a tool says of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Verdict {
    /// Such as `InProgress` or `Healthy`.
    pub status: String,
    /// For people.
    pub message: String,
}

/// What the tools say of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Verdicts {
    /// The library that Flux uses.
    pub kstatus: Verdict,
    /// Argo CD with the health check of the guide.
    pub argocd: Verdict,
    /// Flux with the expressions of the guide.
    pub flux: String,
}

/// Asks all of them about an object.
pub fn verdicts(object: &Value) -> anyhow::Result<Verdicts> {
    let request = json!({"object": object, "lua": health_check()?, "flux": expressions()?});
    let mut program = Command::new(gitops_health_binary()?);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(request.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "gitops-health: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The health check for Argo CD as it stands in the guide.
fn health_check() -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct ConfigMap {
        data: BTreeMap<String, String>,
    }
    let mut config_map: ConfigMap = serde_saphyr::from_str(&block(KEY)?)?;
    config_map.data.remove(KEY).with_context(|| format!("{KEY} of {GUIDE} is not where Argo CD looks for it"))
}

/// The expressions for Flux as they stand in the guide.
fn expressions() -> anyhow::Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        health_check_exprs: Vec<BTreeMap<String, String>>,
    }
    #[derive(Deserialize)]
    struct Kustomization {
        spec: Spec,
    }
    let kustomization: Kustomization = serde_saphyr::from_str(&block("healthCheckExprs")?)?;
    kustomization.spec.health_check_exprs.into_iter().next().context("no expressions")
}

/// The guide's first block of YAML that has these words.
fn block(words: &str) -> anyhow::Result<String> {
    let guide = std::fs::read_to_string(repository::root().join(GUIDE))?;
    let mut blocks = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(words)).map(str::to_owned).with_context(|| format!("no {words} in {GUIDE}"))
}
