//! Logs and metrics, bounded: of controllers all, of operands those that are not ready and two that are.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::archive::Archive;
use super::redact::redact_text;
use crate::facts::{Facts, PodFact};
use crate::read::Reader;

/// The most of one log, in bytes, and in lines.
const LOG_BYTES: usize = 512 * 1024;
const LOG_LINES: usize = 3000;

/// The most of one program's metrics, in bytes.
const METRICS_BYTES: usize = 1024 * 1024;

/// How many pods of an operand that are ready have their logs taken, to compare with, and how many that are not.
const READY: usize = 2;
const NOT_READY: usize = 20;

/// A pod, as far as its containers have logs.
#[derive(Clone, Debug)]
pub(super) struct Source {
    namespace: String,
    pod: String,
    containers: Vec<(String, bool)>,
}

impl Source {
    /// Of a pod as it is read here, in full.
    pub(super) fn of(pod: &Value) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Container {
            name: String,
            #[serde(default)]
            restart_count: i64,
        }
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"].into_iter();
        let statuses = statuses.filter_map(|pointer| pod.pointer(pointer)?.as_array().cloned()).flatten();
        let containers = statuses.filter_map(|status| serde_json::from_value::<Container>(status).ok());
        let containers = containers.map(|container| (container.name, container.restart_count > 0)).collect();
        Some(Self { namespace: text("/metadata/namespace")?, pod: text("/metadata/name")?, containers })
    }
}

/// Pods of operands whose logs are worth having: names by namespace.
pub(super) fn chosen(facts: &Facts) -> Vec<String> {
    let mut taken: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut pods: Vec<&PodFact> =
        facts.pods.iter().filter(|pod| pod.metadata.namespace == facts.operand_namespace).collect();
    pods.sort_by_key(|pod| pod.is_ready());
    let is_wanted = |pod: &&PodFact| {
        let count = taken.entry((pod.operand().to_owned(), pod.is_ready())).or_default();
        *count += 1;
        *count <= if pod.is_ready() { READY } else { NOT_READY }
    };
    pods.into_iter().filter(is_wanted).map(|pod| pod.metadata.name.clone()).collect()
}

/// Adds the logs of a pod, also of containers that have ended. `left` is how much room there is for all logs.
pub(super) async fn add(
    reader: &Reader,
    archive: &mut Archive,
    source: &Source,
    left: &mut usize,
) -> anyhow::Result<()> {
    let Source { namespace, pod, containers } = source;
    for (container, has_ended) in containers {
        for previous in [false, true].into_iter().take(1 + usize::from(*has_ended)) {
            let suffix = if previous { ".previous" } else { "" };
            let name = format!("logs/{namespace}/{pod}/{container}{suffix}.log");
            if *left == 0 {
                archive.missing(name, "there was no more room for logs; --max-logs gives more");
                continue;
            }
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&previous={previous}&timestamps=true&tailLines={LOG_LINES}&limitBytes={LOG_BYTES}"
            );
            match reader.text(&path).await {
                Ok(log) => {
                    let redacted = redact_text(&log);
                    let kept = &redacted[..redacted.floor_char_boundary(*left)];
                    *left -= kept.len();
                    let is_cut =
                        kept.len() < redacted.len() || log.len() >= LOG_BYTES || log.lines().count() >= LOG_LINES;
                    archive.add(&name, kept.as_bytes(), is_cut)?;
                }
                Err(error) => archive.missing(name, error.to_string()),
            }
        }
    }
    Ok(())
}

/// Adds what a controller's pod tells of itself, by way of the API server.
pub(super) async fn add_metrics(reader: &Reader, archive: &mut Archive, source: &Source) -> anyhow::Result<()> {
    let Source { namespace, pod, .. } = source;
    let name = format!("metrics/{pod}.txt");
    match reader.text(&format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/metrics")).await {
        Ok(metrics) => {
            let kept = &metrics[..metrics.floor_char_boundary(METRICS_BYTES)];
            archive.add(&name, redact_text(kept).as_bytes(), kept.len() < metrics.len())
        }
        Err(error) => {
            archive.missing(name, error.to_string());
            Ok(())
        }
    }
}
