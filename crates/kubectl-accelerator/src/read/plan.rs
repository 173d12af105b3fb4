//! What is read for which question.

use accelerator_api::contract::{COMPONENTS, Component, DEPLOY};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use serde_json::Value;

use super::reader::{Reader, take};
use crate::args::Access;
use crate::explain::Subject;
use crate::facts::{CrdFact, Facts, Kind, PodFact, Unread};
use crate::status::{Filter, summarise};

/// Of how many nodes a bundle has the pods of others.
const NODES_WITH_USERS: usize = 50;

const NODES: &str = "/api/v1/nodes";
const CONFIGS: &str = "/apis/petasus.io/v1beta1/acceleratorconfigs";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What `status` shows: in a healthy cluster five lists, of which only that of nodes has pages. Pods are read of components
/// that are not ready, and events and quotas only then.
pub async fn for_status(
    reader: &Reader,
    access: &Access,
    selector: Option<&str>,
    at: Timestamp,
) -> anyhow::Result<Facts> {
    let mut facts = base(reader, access, at).await?;
    nodes(reader, &mut facts, selector).await?;
    let unsettled = unsettled(&facts, selector.is_some());
    pods_of(reader, &mut facts, &unsettled).await?;
    if !unsettled.is_empty() {
        events(reader, &mut facts).await?;
        quotas(reader, &mut facts).await?;
    }
    Ok(facts)
}

/// What explains a subject.
pub async fn for_subject(reader: &Reader, access: &Access, subject: &Subject, at: Timestamp) -> anyhow::Result<Facts> {
    let mut facts = base(reader, access, at).await?;
    match subject {
        Subject::Node(name) => node(reader, &mut facts, name).await?,
        Subject::Component(component) => {
            nodes(reader, &mut facts, None).await?;
            pods_of(reader, &mut facts, &[component]).await?;
        }
        Subject::Config(_) => {
            nodes(reader, &mut facts, None).await?;
            let unsettled = unsettled(&facts, false);
            pods_of(reader, &mut facts, &unsettled).await?;
        }
    }
    surroundings(reader, &mut facts).await?;
    Ok(facts)
}

/// Everything, for somebody who cannot ask again.
pub async fn for_bundle(reader: &Reader, access: &Access, at: Timestamp) -> anyhow::Result<Facts> {
    let mut facts = base(reader, access, at).await?;
    nodes(reader, &mut facts, None).await?;
    pods_of(reader, &mut facts, &COMPONENTS).await?;
    surroundings(reader, &mut facts).await?;
    budgets(reader, &mut facts).await?;
    users(reader, &mut facts).await?;
    Ok(facts)
}

/// Pods of others on nodes that are not as they should be, of which a bundle is asked first: those who hold NPUs, and whom a
/// disruption budget holds. Never those of the whole cluster.
async fn users(reader: &Reader, facts: &mut Facts) -> anyhow::Result<()> {
    let summary = summarise(facts, Filter { not_ready: true, ..Filter::default() });
    let nodes: Vec<_> = summary.groups.iter().flat_map(|group| &group.nodes).take(NODES_WITH_USERS).cloned().collect();
    for name in nodes {
        let on = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let answer = reader.list::<PodFact>("/api/v1/pods", on).await;
        if matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403) {
            facts.unread.push(Unread { kind: Kind::Pods, why: "those of other namespaces may not be read".into() });
            return Ok(());
        }
        let pods = take(facts, Kind::Pods, answer)?.into_iter();
        let others: Vec<_> = pods.filter(|pod| pod.metadata.namespace != facts.operand_namespace).collect();
        facts.pods.extend(others.into_iter().map(PodFact::slim));
    }
    Ok(())
}

/// What is small and always needed.
async fn base(reader: &Reader, access: &Access, at: Timestamp) -> anyhow::Result<Facts> {
    let mut facts = Facts::new(at, &access.operand_namespace, &access.namespace);
    let answer = reader.list(CONFIGS, ListParams::default()).await;
    if matches!(&answer, Err(kube::Error::Api(status)) if status.code == 404) {
        // No definition, and so no objects.
        facts.read.insert(Kind::CustomResourceDefinition);
    }
    facts.configs = take(&mut facts, Kind::AcceleratorConfigs, answer)?;
    let path = format!("/apis/apps/v1/namespaces/{}/daemonsets", access.operand_namespace);
    let answer = reader.list(&path, ListParams::default()).await;
    facts.daemon_sets = take(&mut facts, Kind::DaemonSets, answer)?;
    let ours = ListParams::default().labels("app.kubernetes.io/part-of=accelerator-operator");
    let answer = reader.list("/apis/apps/v1/deployments", ours.clone()).await;
    facts.deployments = match answer {
        // Whoever may read one namespace only sees one installation only.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let path = format!("/apis/apps/v1/namespaces/{}/deployments", access.namespace);
            take(&mut facts, Kind::Deployments, reader.list(&path, ours).await)?
        }
        answer => take(&mut facts, Kind::Deployments, answer)?,
    };
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", access.namespace);
    let answer = reader.list(&path, ListParams::default()).await;
    facts.leases = take(&mut facts, Kind::Leases, answer)?;
    Ok(facts)
}

async fn nodes(reader: &Reader, facts: &mut Facts, selector: Option<&str>) -> anyhow::Result<()> {
    let params = selector.map_or_else(ListParams::default, |selector| ListParams::default().labels(selector));
    let answer = reader.list(NODES, params).await;
    facts.nodes = take(facts, Kind::Nodes, answer)?;
    Ok(())
}

/// One node with all pods on it: those who use its NPUs, and those who hold them without having asked.
async fn node(reader: &Reader, facts: &mut Facts, name: &str) -> anyhow::Result<()> {
    let answer = reader.get(NODES, name).await;
    facts.nodes = take(facts, Kind::Nodes, answer)?.into_iter().collect();
    let on = ListParams::default().fields(&format!("spec.nodeName={name}"));
    let answer = reader.list("/api/v1/pods", on).await;
    facts.pods = take(facts, Kind::Pods, answer)?;
    if !facts.knows(Kind::Pods) {
        // Whoever may not read all pods may still read those of the operands.
        facts.unread.retain(|one| one.kind != Kind::Pods);
        let on = ListParams::default().fields(&format!("spec.nodeName={name}"));
        let answer = reader.list(&pods_path(facts), on).await;
        facts.pods = take(facts, Kind::Pods, answer)?;
    }
    // Pods that the scheduler has no place for are on no node yet.
    let unbound = ListParams::default().fields("spec.nodeName=");
    let unbound: Vec<PodFact> = reader.list(&pods_path(facts), unbound).await.unwrap_or_default();
    facts.pods.extend(unbound.into_iter().filter(|pod| pod.node() == name));
    let about = ListParams::default().fields(&format!("involvedObject.kind=Node,involvedObject.name={name}"));
    let answer = reader.some("/api/v1/namespaces/default/events", about).await;
    facts.events = take(facts, Kind::Events, answer)?;
    budgets(reader, facts).await
}

fn pods_path(facts: &Facts) -> String {
    format!("/api/v1/namespaces/{}/pods", facts.operand_namespace)
}

/// Components that may not be ready everywhere. With a part of the nodes only, numbers of nodes tell nothing.
fn unsettled(facts: &Facts, is_part: bool) -> Vec<&'static Component> {
    let assigned = |component: &Component| {
        let nodes = facts.nodes.iter().filter(|node| node.metadata.label(component.deploy_label) == Some(DEPLOY));
        i64::try_from(nodes.count()).unwrap_or(i64::MAX)
    };
    let is_settled = |component: &&'static Component| {
        let all = || facts.daemon_sets_of(component.operand);
        let desired: i64 = all().map(|one| one.status.desired_number_scheduled).sum();
        all().all(crate::facts::DaemonSetFact::is_settled) && (is_part || desired == assigned(component))
    };
    COMPONENTS.into_iter().filter(|component| !is_settled(component)).collect()
}

/// Pods of these components; of the others it is noted that nobody has asked.
async fn pods_of(reader: &Reader, facts: &mut Facts, components: &[&'static Component]) -> anyhow::Result<()> {
    let names = |asked: bool| {
        COMPONENTS.into_iter().filter(move |one| components.iter().any(|other| other.name == one.name) == asked)
    };
    facts.pods_not_read = names(false).map(|component| component.operand.to_owned()).collect();
    facts.read.insert(Kind::Pods);
    for component in names(true) {
        let params = ListParams::default().labels(&format!("app.kubernetes.io/name={}", component.operand));
        let answer = reader.list::<PodFact>(&pods_path(facts), params).await;
        let pods = take(facts, Kind::Pods, answer)?;
        facts.pods.extend(pods.into_iter().map(PodFact::slim));
    }
    Ok(())
}

async fn events(reader: &Reader, facts: &mut Facts) -> anyhow::Result<()> {
    let warnings = ListParams::default().fields("type=Warning");
    let path = format!("/api/v1/namespaces/{}/events", facts.operand_namespace);
    let answer = reader.some(&path, warnings).await;
    let events: Vec<_> = take(facts, Kind::Events, answer)?;
    facts.events.extend(events);
    Ok(())
}

async fn quotas(reader: &Reader, facts: &mut Facts) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/resourcequotas", facts.operand_namespace);
    let answer = reader.some(&path, ListParams::default()).await;
    facts.quotas = take(facts, Kind::ResourceQuotas, answer)?;
    Ok(())
}

async fn budgets(reader: &Reader, facts: &mut Facts) -> anyhow::Result<()> {
    let answer = reader.some("/apis/policy/v1/poddisruptionbudgets", ListParams::default()).await;
    facts.budgets = take(facts, Kind::PodDisruptionBudgets, answer)?;
    Ok(())
}

/// What may keep pods away, and the definition of AcceleratorConfigs.
async fn surroundings(reader: &Reader, facts: &mut Facts) -> anyhow::Result<()> {
    events(reader, facts).await?;
    quotas(reader, facts).await?;
    let answer = reader.get("/api/v1/namespaces", &facts.operand_namespace.clone()).await;
    facts.namespaces = take(facts, Kind::Namespaces, answer)?.into_iter().collect();
    let answer = reader.get::<Value>(CRDS, "acceleratorconfigs.petasus.io").await;
    facts.crd = take(facts, Kind::CustomResourceDefinition, answer)?.as_ref().map(CrdFact::of);
    Ok(())
}
