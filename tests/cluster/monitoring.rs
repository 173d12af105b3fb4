//! Monitoring as it is shipped: alerts that fire and that do not, and metrics that are there. The vendor's exporter does not run
//! here, so what is asked of it is only understood, not scraped.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use accelerator_api::contract::DRIVER_UPGRADE_STATE_LABEL;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testbed::debian::Unpacked;
use testbed::monitoring::{VENDOR, expressions, groups};
use testbed::prometheus::{self, Prometheus, Target, promtool};
use testbed::promql::selectors;
use testbed::{
    Access, Cluster, Controller, Fault, Kubelets, Leased, Process, Proxy, Rule, Wait, eventually, install, programs,
    repository,
};

use crate::{CONTAINER, LABELER};

const COMPONENT: &str = "monitoring";
const AGENT: &str = "rebellions-vfio-manager";

/// Writes rules as a file of Prometheus; JSON is YAML.
fn write_rules(folder: &Path, groups: &Value) -> anyhow::Result<String> {
    let path = folder.join("rules.yaml");
    fs::write(&path, json!({"groups": groups}).to_string())?;
    Ok(path.display().to_string())
}

/// `promtool test rules` of the file of tests, with these groups of alerts.
fn try_alerts(packages: &Unpacked, mut groups: Value) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    for group in groups.as_array_mut().context("groups")? {
        for rule in group["rules"].as_array_mut().context("rules")? {
            rule["annotations"].as_object_mut().context("annotations")?.retain(|name, _| name == "summary");
        }
    }
    write_rules(folder.path(), &groups)?;
    let tests = folder.path().join("alerts.yaml");
    fs::copy(repository::root().join("tests/monitoring/alerts.yaml"), &tests)?;
    promtool(packages, &["test", "rules", &tests.display().to_string()])
}

#[test]
fn alerts_fire_where_they_should_and_nowhere_else() -> anyhow::Result<()> {
    let Some(packages) = prometheus::packages()? else { return Ok(()) };
    try_alerts(&packages, groups()?)?;
    // That each alert is tried in both ways is for the suite *pure* to see; here, that a wrong one is found.
    let mut deaf = groups()?;
    deaf[0]["rules"][0]["expr"] = "vector(1) > 2".into();
    assert!(try_alerts(&packages, deaf).is_err(), "an alert that never fires passes");
    let mut hasty = groups()?;
    hasty[0]["rules"][0]["for"] = "1m".into();
    assert!(try_alerts(&packages, hasty).is_err(), "an alert that fires too early passes");
    Ok(())
}

#[test]
fn prometheus_understands_every_expression() -> anyhow::Result<()> {
    let Some(packages) = prometheus::packages()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let check = |expressions: &[String]| {
        let rules = expressions.iter().enumerate().map(|(n, text)| json!({"record": format!("n{n}"), "expr": text}));
        let rules = write_rules(folder.path(), &json!([{"name": "all", "rules": rules.collect::<Vec<_>>()}]))?;
        promtool(&packages, &["check", "rules", &rules])
    };
    let all: Vec<_> = expressions()?.into_iter().map(|expression| expression.text).collect();
    let said = check(&all)?;
    assert!(said.contains(&format!("{} rules found", all.len())), "{said}");
    assert!(check(&["sum by (x (y)".to_owned()]).is_err());
    Ok(())
}

/// Asks the types of the Prometheus Operator about objects.
fn check_types(objects: &[Value]) -> anyhow::Result<usize> {
    let mut program = Command::new(programs::monitoring_objects_binary()?);
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(json!(objects).to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn is_monitoring(object: &Value) -> bool {
    object["apiVersion"].as_str().is_some_and(|version| version.starts_with("monitoring.coreos.com/"))
}

#[test]
fn every_object_is_one_of_the_prometheus_operator() -> anyhow::Result<()> {
    let mut objects = install::render_own(&[], &[COMPONENT], &json!({}))?;
    objects.retain(is_monitoring);
    assert_eq!(check_types(&objects)?, 4, "two PodMonitors, a ServiceMonitor, a PrometheusRule");
    for object in &objects {
        let mut misspelt = object.clone();
        misspelt["spec"]["selektor"] = json!({});
        assert!(check_types(&[misspelt]).is_err(), "a field that does not exist passes");
    }
    Ok(())
}

/// A CRD that takes anything: of the Prometheus Operator's own ones only the types are to be had, which are asked above.
fn crd(kind: &str, plural: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

#[tokio::test]
async fn the_component_is_applied_beside_the_default_overlay_and_again_without_a_change() -> anyhow::Result<()> {
    let mut cluster = Cluster::lease().await;
    cluster.spoil();
    let crds = [("PodMonitor", "podmonitors"), ("ServiceMonitor", "servicemonitors")];
    let crds: Vec<_> = crds.into_iter().chain([("PrometheusRule", "prometheusrules")]).collect();
    install::apply(&cluster.kubeconfig, &crds.iter().map(|(kind, plural)| crd(kind, plural)).collect::<Vec<_>>())?;
    for (_, plural) in crds {
        let name = format!("crd/{plural}.monitoring.coreos.com");
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &name])?;
    }
    let alone = install::render("overlays/default")?;
    let objects = install::render_own(&["overlays/default"], &[COMPONENT], &json!({}))?;
    let added: Vec<_> = objects.iter().filter(|object| !alone.contains(object)).cloned().collect();
    assert_eq!(added.len(), objects.len() - alone.len(), "what is there without the component stays as it is");
    assert_eq!(added.len(), 6, "a Service and a ConfigMap with those of the Prometheus Operator");
    install::apply(&cluster.kubeconfig, &objects)?;
    let versions = || -> anyhow::Result<String> {
        let kinds = "services,configmaps,podmonitors,servicemonitors,prometheusrules";
        let selector = "app.kubernetes.io/part-of=accelerator-operator";
        let path = "jsonpath={range .items[*]}{.kind} {.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
        cluster.kubectl(&["get", kinds, "--all-namespaces", "-l", selector, "-o", path])
    };
    let before = versions()?;
    assert_eq!(before.lines().count(), added.len(), "{before}");
    install::apply(&cluster.kubeconfig, &objects)?;
    assert_eq!(versions()?, before);
    Ok(())
}

/// Where pods are chosen by labels and ports by name, both are of the pods that are shipped.
#[test]
fn who_is_scraped_is_there() -> anyhow::Result<()> {
    let objects = install::render_own(&["overlays/default"], &[COMPONENT], &json!({}))?;
    let mut pods = vec![];
    for object in objects.iter().filter(|object| install::is_deployment(object)) {
        pods.push((object["metadata"]["namespace"].clone(), object["spec"]["template"].clone()));
    }
    let programs = pods.len();
    for operand in repository::operands() {
        let manifest: Value =
            serde_saphyr::from_str(&fs::read_to_string(repository::assets(operand).join("daemonset.yaml"))?)?;
        pods.push((manifest["metadata"]["namespace"].clone(), manifest["spec"]["template"].clone()));
    }
    let chosen = |namespace: &Value, labels: &Value, port: &Value| {
        let has_labels = |template: &Value| {
            let wanted = labels.as_object().into_iter().flatten();
            wanted.into_iter().all(|(name, value)| template["metadata"]["labels"][name] == *value)
        };
        let has_port = |template: &Value| {
            let containers = template["spec"]["containers"].as_array().into_iter().flatten();
            containers.flat_map(|one| one["ports"].as_array().into_iter().flatten()).any(|one| one["name"] == *port)
        };
        pods.iter().filter(|(of, template)| of == namespace && has_labels(template) && has_port(template)).count()
    };
    let mut counts = BTreeMap::new();
    for object in objects.iter().filter(|object| object["kind"] == "PodMonitor") {
        let (namespace, spec) = (&object["metadata"]["namespace"], &object["spec"]);
        let port = &spec["podMetricsEndpoints"][0]["port"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        counts.insert(name, chosen(namespace, &spec["selector"]["matchLabels"], port));
    }
    assert_eq!(counts, BTreeMap::from([("accelerator-operator", programs), (AGENT, 1)]));
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).context("an object of the kind");
    let (service, monitor) = (of_kind("Service")?, of_kind("ServiceMonitor")?);
    let port = &service["spec"]["ports"][0];
    assert_eq!(chosen(&service["metadata"]["namespace"], &service["spec"]["selector"], &port["targetPort"]), 1);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], port["name"]);
    assert_eq!(monitor["metadata"]["namespace"], service["metadata"]["namespace"]);
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().context("labels")? {
        assert_eq!(service["metadata"]["labels"][name], *value);
    }
    Ok(())
}

/// Programs at work, with everything behind them that makes them tell each of their metrics.
struct World {
    targets: Vec<Target>,
    _agent: Process,
    _kubelets: Kubelets,
    _controllers: Vec<Controller>,
    _proxy: Proxy,
    cluster: Leased,
}

/// As the Prometheus Operator would add them, of a program that is said to run on a node.
fn target(job: &str, address: String, namespace: &str) -> Target {
    let labels = [("namespace", namespace.to_owned()), ("pod", format!("{job}-0")), ("node", "node-0".to_owned())];
    Target { job: job.into(), address, labels: labels.into() }
}

/// One NPU on its native driver, on a host without IOMMU.
fn host(folder: &Path) -> anyhow::Result<()> {
    let device = folder.join("sys/bus/pci/devices/0000:03:00.0");
    let driver = folder.join("sys/bus/pci/drivers/rebellions");
    for path in [&device, &driver, &folder.join("dev"), &folder.join("sys/kernel/iommu_groups")] {
        fs::create_dir_all(path)?;
    }
    for (name, text) in [("vendor", "0x1eff"), ("device", "0x1250"), ("class", "0x120000"), ("driver_override", "")] {
        fs::write(device.join(name), text)?;
    }
    Ok(symlink(driver, device.join("driver"))?)
}

/// The agent on a node of its own, and where it listens.
async fn agent(folder: &Path) -> anyhow::Result<(Process, String)> {
    let folder = folder.join("node");
    host(&folder)?;
    let mut command = Command::new(programs::own_binary(AGENT)?);
    for (option, path) in [("--sysfs", "sys"), ("--dev", "dev"), ("--state-dir", "run")] {
        command.arg(option).arg(folder.join(path));
    }
    command.args(["--log-format=json", "run", "--admin-address=127.0.0.1:0"]);
    let process = Process::start(&mut command, &folder.join("log"))?;
    let address = eventually("the agent to listen", async || {
        let log = fs::read_to_string(&process.log).unwrap_or_default();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = lines.find_map(|line| Some(line["adminAddress"].as_str()?.to_owned()));
        address.map_or(Wait::NotYet(log), Wait::Done)
    })
    .await;
    Ok((process, address))
}

async fn world() -> anyhow::Result<World> {
    let cluster = Cluster::lease().await;
    let machine = cluster.machines("m").create().await?.remove(0);
    let kubelets = Kubelets::start(&cluster).await?;
    let proxy = Proxy::start(&cluster.entry, &cluster.folder, "monitoring")?;
    let through = Access { entry: proxy.entry.clone(), ..Access::clone(&cluster) };
    let (mut controllers, mut targets) = (vec![], vec![]);
    for name in repository::programs() {
        let mut controller = if name == LABELER {
            through.start_with(name, &["--resync-interval", "3s"]).await
        } else {
            cluster.start(name).await
        };
        targets.push(target(name, controller.admin_address().await?, "accelerator-system"));
        controllers.push(controller);
    }
    let (agent, address) = agent(&cluster.folder).await?;
    targets.push(target(AGENT, address, "rebellions"));

    // An upgrade of the driver, which is over.
    let configure = async |version: &str| {
        let mut section = Access::enable(&["driver", "device-plugin"]);
        section["driver"]["version"] = version.into();
        section["driver"]["upgradePolicy"] = json!({"autoUpgrade": true});
        cluster.configure("default", section).await
    };
    configure("3.0.0").await?;
    cluster.expect_ready("default").await;
    configure("3.1.0").await?;
    eventually("an upgrade to be done", async || {
        let labels = cluster.labels(&machine).await.unwrap_or_default();
        Wait::until(labels.get(DRIVER_UPGRADE_STATE_LABEL).cloned(), |state| state.as_deref() == Some("Done"))
    })
    .await;
    // An event that is swallowed, and a watch that breaks.
    proxy.set([Rule::every("event", "nodes", Fault::Drop).of("lost-0")]);
    cluster.npu_nodes("lost", 1, "container").await?;
    cluster.expect_deployed("lost-0", CONTAINER).await;
    let refuse = Rule { times: 1, ..Rule::every("watch", "nodes", Fault::Refuse(500, None)) };
    proxy.set([Rule { times: 1, ..Rule::every("watch", "nodes", Fault::Cut) }, refuse]);
    Ok(World { targets, _agent: agent, _kubelets: kubelets, _controllers: controllers, _proxy: proxy, cluster })
}

#[tokio::test]
async fn every_metric_of_ours_is_scraped_from_programs_that_run() -> anyhow::Result<()> {
    let Some(packages) = prometheus::packages()? else { return Ok(()) };
    let world = world().await?;
    let prometheus = Prometheus::start(&packages, &world.cluster.folder, &world.targets)?;
    let mut seen = 0;
    for expression in expressions()? {
        for selector in selectors(&expression.text) {
            if selector.metric.starts_with(VENDOR) {
                continue;
            }
            eventually(&format!("{} ({})", selector.metric, expression.place), async || {
                match prometheus.has(&selector.metric, &selector.labels).await {
                    Ok(()) => Wait::Done(()),
                    Err(series) => Wait::NotYet(series),
                }
            })
            .await;
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen} selections are few");
    let none = prometheus.has("accelerator_no_such_metric", &[].into()).await;
    assert!(none.is_err(), "a metric that does not exist is there");
    let wrong = prometheus.has("accelerator_leadership", &["no_such_label".to_owned()].into()).await;
    assert!(wrong.is_err(), "a label that does not exist is there");
    Ok(())
}
