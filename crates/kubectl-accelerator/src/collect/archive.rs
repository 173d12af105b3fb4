//! The file itself: a tar.gz with a manifest of what is inside and what could not be had.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::facts::Facts;

/// Where in a bundle the facts are.
const FACTS: &str = "facts.json";

/// The most of facts that is read: far more than those of 15,000 nodes, and less than a machine's memory.
const MOST: u64 = 1 << 30;

/// A bundle that is being written.
pub struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    at: Timestamp,
    manifest: Manifest,
}

/// What is inside.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    version: &'static str,
    at: Option<Timestamp>,
    redaction: Vec<&'static str>,
    files: Vec<Entry>,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    path: String,
    bytes: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    why: String,
}

impl Archive {
    /// Begins a file that did not exist, for its owner alone.
    pub fn create(path: &Path, at: Timestamp) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("could not create {}", path.display()))?;
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION"),
            at: Some(at),
            redaction: vec![
                "Secrets and ConfigMaps were not read",
                "values of environment variables, also those in an AcceleratorConfig, are <redacted>",
                "annotations of others are <redacted>; managed fields are left out of objects",
                "credentials in arguments, logs and metrics are <redacted>, as far as they look like some",
            ],
            ..Manifest::default()
        };
        Ok(Self { tar: tar::Builder::new(GzEncoder::new(file, Compression::default())), at, manifest })
    }

    /// Adds a file.
    pub fn add(&mut self, path: &str, content: &[u8], truncated: bool) -> anyhow::Result<()> {
        self.write(path, content)?;
        self.manifest.files.push(Entry { path: path.into(), bytes: content.len(), truncated });
        Ok(())
    }

    /// Notes what could not be had.
    pub fn missing(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.manifest.missing.push(Missing { what: what.into(), why: why.into() });
    }

    fn write(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(self.at.as_second()).unwrap_or(0));
        self.tar.append_data(&mut header, format!("accelerator/{path}"), content).context("could not write the bundle")
    }

    /// Ends the file with its manifest. Returns how many files are inside, and how many things are missing.
    pub fn finish(mut self) -> anyhow::Result<(usize, usize)> {
        let counts = (self.manifest.files.len(), self.manifest.missing.len());
        let manifest = serde_json::to_vec_pretty(&self.manifest)?;
        self.write("manifest.json", &manifest)?;
        let mut file = self.tar.into_inner()?.finish().context("could not write the bundle")?;
        file.flush()?;
        Ok(counts)
    }
}

/// The facts of a bundle.
pub fn read_facts(path: &Path) -> anyhow::Result<Facts> {
    let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let not_one = || format!("{} is no bundle of kubectl accelerator collect", path.display());
    for entry in tar.entries().with_context(not_one)? {
        let entry = entry.with_context(not_one)?;
        if !entry.path().with_context(not_one)?.ends_with(FACTS) {
            continue;
        }
        if entry.size() > MOST {
            bail!("the facts in {} are too large", path.display());
        }
        return serde_json::from_reader(entry.take(MOST))
            .with_context(|| format!("{}: a bundle of another version?", not_one()));
    }
    bail!(not_one())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_reads_what_it_writes_and_no_other_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("b.tar.gz");
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let facts = Facts::new(at, "rebellions", "accelerator-system");
        let mut archive = Archive::create(&path, at).expect("a file");
        archive.add(FACTS, &serde_json::to_vec(&facts).expect("JSON"), false).expect("an entry");
        archive.missing("logs of x", "forbidden");
        assert_eq!(archive.finish().expect("an end"), (1, 1));
        assert_eq!(read_facts(&path).expect("facts"), facts);
        assert!(Archive::create(&path, at).is_err(), "nothing is overwritten");
        let other = folder.path().join("other");
        std::fs::write(&other, "x").expect("a file");
        assert!(read_facts(&other).is_err_and(|error| format!("{error:#}").contains("is no bundle")));
    }
}
