//! Prometheus and promtool, from Debian's packages: what scrapes our programs, and tests our alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::control_plane::free_ports;
use crate::debian::{self, Packages, Unpacked};
use crate::process::Process;
use crate::{admin, say};

const PACKAGES: Packages =
    Packages { name: "prometheus", what: "Prometheus", suites: &["trixie"], packages: &[("trixie", "prometheus")] };

/// Fetches them when they are not there yet. Nothing, and the reason on the terminal, where this machine cannot get them.
pub fn packages() -> anyhow::Result<Option<Unpacked>> {
    Ok(match debian::unpack(&PACKAGES, false)? {
        Ok(packages) => Some(packages),
        Err(reason) => {
            say(format!("SKIPPED what needs Prometheus: {reason}"));
            None
        }
    })
}

/// Runs promtool; returns what it printed, both in good and in bad news.
pub fn promtool(packages: &Unpacked, arguments: &[&str]) -> anyhow::Result<String> {
    let output = packages.command("usr/bin/promtool").args(arguments).output()?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "promtool {}:\n{said}", arguments.join(" "));
    Ok(said)
}

/// Somebody who is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the job.
    pub job: String,
    /// Host and port.
    pub address: String,
    /// What the Prometheus Operator would add.
    pub labels: BTreeMap<&'static str, String>,
}

/// A running Prometheus that scrapes once a second. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    process: Process,
}

/// The labels of a series, its name among them.
type Series = BTreeMap<String, String>;

impl Prometheus {
    /// Starts one that keeps its things in a folder of its own below `folder`.
    pub fn start(packages: &Unpacked, folder: &Path, targets: &[Target]) -> anyhow::Result<Self> {
        let folder = folder.join("prometheus");
        std::fs::create_dir_all(&folder)?;
        let jobs = targets.iter().map(|Target { job, address, labels }| {
            json!({"job_name": job, "static_configs": [{"targets": [address], "labels": labels}]})
        });
        let config = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs.collect::<Vec<_>>()});
        // JSON is YAML.
        std::fs::write(folder.join("prometheus.yaml"), config.to_string())?;
        let [port] = free_ports()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = packages.command("usr/bin/prometheus");
        command.current_dir(&folder).args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}"));
        Ok(Self { address, process: Process::start(&mut command, &folder.join("log"))? })
    }

    /// Series that it has of a metric. An error while it starts.
    pub async fn series(&self, metric: &str) -> anyhow::Result<Vec<Series>> {
        let (status, body) = admin::get(&self.address, &format!("/api/v1/series?match%5B%5D={metric}")).await;
        let body = body.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        ensure!(status == 200, "Prometheus answers {status}: {body}\n{}", self.process.tail());
        let mut answer: Value = serde_json::from_str(body).context("an answer of Prometheus")?;
        Ok(serde_json::from_value(answer["data"].take())?)
    }

    /// Whether one of a metric's series has all these labels. Otherwise which series there are.
    pub async fn has(&self, metric: &str, labels: &BTreeSet<String>) -> Result<(), String> {
        let series = self.series(metric).await.map_err(|error| error.to_string())?;
        let has_all = |one: &Series| labels.iter().all(|label| one.contains_key(label));
        if series.iter().any(has_all) { Ok(()) } else { Err(format!("{metric} with {labels:?}, and not {series:?}")) }
    }
}
