//! What goes into a bundle, in which order.

use std::path::Path;

use accelerator_api::contract::COMPONENTS;
use serde_json::Value;

use super::archive::Archive;
use super::logs::{self, Source};
use super::redact::{redact, redact_text};
use crate::explain::{Cluster, State, Subject, explain_in, render};
use crate::facts::Facts;
use crate::read::Reader;
use crate::status::{Filter, summarise, table};
use crate::style::Style;

/// How many nodes that are not as they should be are explained, at most.
const EXPLAINED: usize = 200;

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Files in the bundle.
    pub files: usize,
    /// What could not be had.
    pub missing: usize,
}

/// Writes a bundle. `tell` gets the name of each step as it begins.
pub async fn collect(
    reader: &Reader,
    facts: &Facts,
    path: &Path,
    max_logs: usize,
    mut tell: impl FnMut(&str),
) -> anyhow::Result<Written> {
    let mut archive = Archive::create(path, facts.at)?;
    let written = fill(reader, facts, &mut archive, max_logs, &mut tell).await;
    if let Err(error) = written {
        // Half a bundle is none.
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    let (files, missing) = archive.finish()?;
    Ok(Written { files, missing })
}

async fn fill(
    reader: &Reader,
    facts: &Facts,
    archive: &mut Archive,
    max_logs: usize,
    tell: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    tell("facts and explanations");
    let mut value = serde_json::to_value(facts)?;
    redact_facts(&mut value);
    archive.add("facts.json", &serde_json::to_vec(&value)?, false)?;
    for unread in &facts.unread {
        archive.missing(format!("{:?}", unread.kind), unread.why.clone());
    }
    explanations(facts, archive)?;
    tell("objects");
    let version = reader.text("/version").await;
    match version {
        Ok(version) => archive.add("versions/kubernetes.json", version.as_bytes(), false)?,
        Err(error) => archive.missing("versions/kubernetes.json", error.to_string()),
    }
    let operands = format!("/api/v1/namespaces/{}/pods", facts.operand_namespace);
    let controllers = format!("/api/v1/namespaces/{}/pods", facts.namespace);
    objects(reader, archive, facts).await?;
    let mut left = max_logs;
    let ours = list(
        reader,
        archive,
        "objects/controllers",
        &format!("{controllers}?labelSelector=app.kubernetes.io%2Fpart-of%3Daccelerator-operator"),
    )
    .await?;
    for source in ours.iter().filter_map(Source::of) {
        tell("logs and metrics of controllers");
        logs::add(reader, archive, &source, &mut left).await?;
        logs::add_metrics(reader, archive, &source).await?;
    }
    let chosen = logs::chosen(facts);
    for (number, pod) in chosen.iter().enumerate() {
        tell(&format!("pod {} of {}", number + 1, chosen.len()));
        match reader.get::<Value>(&operands, pod).await {
            Ok(Some(mut object)) => {
                redact(&mut object);
                archive.add(&format!("objects/pods/{pod}.json"), &serde_json::to_vec_pretty(&object)?, false)?;
                if let Some(source) = Source::of(&object) {
                    logs::add(reader, archive, &source, &mut left).await?;
                }
            }
            Ok(None) => {}
            Err(error) => archive.missing(format!("objects/pods/{pod}.json"), error.to_string()),
        }
    }
    Ok(())
}

/// Facts keep managed fields, which tell who set a label; they are read without the rest.
fn redact_facts(value: &mut Value) {
    for (kind, objects) in value.as_object_mut().into_iter().flatten() {
        for object in objects.as_array_mut().into_iter().flatten() {
            let managed = object.pointer_mut("/metadata/managedFields").map(Value::take);
            redact(object);
            if let Some(managed) = managed.filter(|_| kind == "nodes") {
                object["metadata"]["managedFields"] = managed;
            }
            if kind == "events" {
                let message = object["message"].as_str().map(redact_text);
                object["message"] = message.unwrap_or_default().into();
            }
        }
    }
}

fn explanations(facts: &Facts, archive: &mut Archive) -> anyhow::Result<()> {
    let summary = summarise(facts, Filter::default());
    archive.add("status.txt", table(&summary, true, Style::plain()).as_bytes(), false)?;
    let cluster = Cluster::new(facts);
    let bad = summary.groups.iter().filter(|group| !group.ready).flat_map(|group| &group.nodes);
    let nodes: Vec<_> = bad.take(EXPLAINED + 1).cloned().collect();
    if nodes.len() > EXPLAINED {
        archive.missing(
            "explain/node-…",
            format!("more than {EXPLAINED} nodes are not as they should be; explain --bundle explains any"),
        );
    }
    let nodes = nodes.into_iter().take(EXPLAINED).map(Subject::Node);
    let subjects = std::iter::once(Subject::Config(None)).chain(COMPONENTS.map(Subject::Component)).chain(nodes);
    for subject in subjects {
        let explanation = explain_in(&cluster, &subject);
        if explanation.state != State::AsWanted || matches!(subject, Subject::Config(_)) {
            let name = format!("explain/{}.txt", subject.to_string().replace('/', "-"));
            archive.add(&name, redact_text(&render(&explanation, facts.at, Style::plain())).as_bytes(), false)?;
        }
    }
    Ok(())
}

/// Objects that are few, as they are stored.
async fn objects(reader: &Reader, archive: &mut Archive, facts: &Facts) -> anyhow::Result<()> {
    let (operands, controllers) = (&facts.operand_namespace, &facts.namespace);
    let lists = [
        ("objects/acceleratorconfigs", "/apis/petasus.io/v1beta1/acceleratorconfigs".to_owned()),
        ("objects/daemonsets", format!("/apis/apps/v1/namespaces/{operands}/daemonsets")),
        ("objects/deployments", format!("/apis/apps/v1/namespaces/{controllers}/deployments")),
        ("objects/leases", format!("/apis/coordination.k8s.io/v1/namespaces/{controllers}/leases")),
        ("objects/events-controllers", format!("/api/v1/namespaces/{controllers}/events?limit=1000")),
        ("objects/events-cluster", "/api/v1/namespaces/default/events?limit=1000".to_owned()),
    ];
    for (name, path) in lists {
        list(reader, archive, name, &path).await?;
    }
    Ok(())
}

/// Adds a list; returns its objects.
async fn list(reader: &Reader, archive: &mut Archive, name: &str, path: &str) -> anyhow::Result<Vec<Value>> {
    let name = format!("{name}.json");
    let text = match reader.text(path).await {
        Ok(text) => text,
        Err(error) => {
            archive.missing(name, error.to_string());
            return Ok(vec![]);
        }
    };
    let mut list: Value = serde_json::from_str(&text)?;
    let is_cut = list.pointer("/metadata/continue").and_then(Value::as_str).is_some_and(|token| !token.is_empty());
    redact(&mut list);
    archive.add(&name, &serde_json::to_vec_pretty(&list)?, is_cut)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}
