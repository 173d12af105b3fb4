//! The installation, the way that the README tells an admin to do it.

mod apart;
mod components;
mod names;
mod overlays;
mod quota;
mod rendered;

use serde_json::{Value, json};
use testbed::{Access, Cluster, ControlPlane, Profile, Wait, eventually, install};

/// The overlays, and the programs of those that have not all of them.
const OVERLAYS: [(&str, &[&str]); 7] = [
    ("air-gapped", &[]),
    (
        "container-only",
        &[
            "node-labeler",
            "rebellions-device-plugin-controller",
            "rebellions-driver-controller",
            "rebellions-metric-exporter-controller",
            "rebellions-npu-feature-discovery-controller",
        ],
    ),
    ("default", &[]),
    ("example-cluster", &[]),
    ("high-availability", &[]),
    ("single-controller", &["rebellions-device-plugin-controller"]),
    (
        "vm-passthrough-only",
        &["node-labeler", "rebellions-npu-feature-discovery-controller", "rebellions-vfio-manager-controller"],
    ),
];

/// The components that an overlay may list.
const COMPONENTS: [&str; 10] = [
    "high-availability",
    "network-policy",
    "priority-quota",
    "private-registry",
    "openshift",
    "viewer",
    "operand-namespace",
    "controller-namespace",
    "crd-only",
    "controllers-only",
];

/// An overlay.
fn overlay(name: &str) -> anyhow::Result<Vec<Value>> {
    install::render(&format!("overlays/{name}"))
}

/// Somebody's own overlay: one of ours, with these components, and their settings where they have any.
fn own(overlay: &str, components: &[&str], more: &Value) -> anyhow::Result<Vec<Value>> {
    let setting = |name: &str, literals: &[&str]| {
        json!({"name": name, "literals": literals,
            "options": {"annotations": {"config.kubernetes.io/local-config": "true"}}})
    };
    let settings = [
        setting("private-registry", &["registry=registry.example.com/npu", "pullSecret=mirror"]),
        setting("operand-namespace", &["name=npu"]),
        setting("controller-namespace", &["name=npu-system"]),
    ];
    let used = settings.into_iter().filter(|one| components.iter().any(|name| one["name"] == **name));
    let mut more = more.clone();
    more["configMapGenerator"] = used.collect();
    install::render_own(&[&format!("overlays/{overlay}")], components, &more)
}

/// A control plane on which nothing of ours is installed but the CRD and the namespaces.
async fn with_prerequisites(profile: Profile) -> anyhow::Result<Cluster> {
    let cluster = Cluster::connect(tokio::task::spawn_blocking(move || ControlPlane::start(profile)).await??).await?;
    install::apply(&cluster.kubeconfig, &install::render("prerequisites")?)?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/acceleratorconfigs.petasus.io"])?;
    Ok(cluster)
}

/// Applies these objects and then again; the second time changes nothing.
fn apply_twice(cluster: &Cluster, what: &str, objects: &[Value]) -> anyhow::Result<()> {
    install::apply(&cluster.kubeconfig, objects)?;
    let before = generations(cluster, objects)?;
    install::apply(&cluster.kubeconfig, objects)?;
    assert_eq!(generations(cluster, objects)?, before, "{what} applied again");
    Ok(())
}

/// Each object with who applied what and when, and its generation: what a second apply without a difference leaves alone.
/// Not the version, which others move by status.
fn generations(cluster: &Cluster, objects: &[Value]) -> anyhow::Result<Vec<String>> {
    let input = serde_json::to_vec(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))?;
    let found =
        install::kubectl(&cluster.kubeconfig, &["get", "-f", "-", "-o", "json", "--show-managed-fields"], &input)?;
    let found: Value = serde_json::from_str(&found)?;
    let items = found["items"].as_array().cloned().unwrap_or_else(|| vec![found.clone()]);
    let lines = items.iter().map(|one| {
        let managers = one["metadata"]["managedFields"].as_array().into_iter().flatten();
        let ours: Vec<_> = managers.filter(|entry| entry["operation"] == "Apply").map(Value::to_string).collect();
        format!("{} {} {ours:?}", install::identity(one), one["metadata"]["generation"])
    });
    Ok(lines.collect())
}

/// Waits until each Deployment among these objects has all its pods, admitted and ready.
async fn expect_pods(cluster: &Cluster, objects: &[Value]) {
    for deployment in objects.iter().filter(|object| install::is_deployment(object)) {
        let metadata = &deployment["metadata"];
        let (name, namespace) =
            (metadata["name"].as_str().expect("a name"), metadata["namespace"].as_str().expect("one"));
        let expected = deployment["spec"]["replicas"].to_string();
        eventually(&format!("{expected} pods of {name}"), async || {
            let path = "jsonpath={.status.readyReplicas} {.status.conditions[*].message}";
            let ready = cluster.kubectl(&["get", "deployment", name, "-n", namespace, "-o", path]).unwrap_or_default();
            Wait::until(ready, |ready| ready.split(' ').next() == Some(&expected))
        })
        .await;
    }
}

#[tokio::test]
async fn the_default_overlay_installs_with_one_command_and_its_pods_are_admitted() -> anyhow::Result<()> {
    let cluster =
        Cluster::connect(tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??).await?;
    // The CRD, namespaces and everything else in one go, twice: the second time changes nothing.
    let objects = install::render("overlays/default")?;
    install::apply(&cluster.kubeconfig, &objects)?;
    install::apply(&cluster.kubeconfig, &objects)?;
    cluster.npu_nodes("any", 1, "").await?;
    let programs = testbed::repository::programs().count();
    eventually("every Deployment with a pod each, admitted under Pod Security restricted", async || {
        let ready = cluster.kubectl(&[
            "get",
            "deployments",
            "-n",
            "accelerator-system",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name}={.status.readyReplicas} {end}",
        ]);
        Wait::until(ready.unwrap_or_default(), |ready| {
            ready.split_whitespace().filter(|one| one.ends_with("=1")).count() == programs
        })
    })
    .await;

    eventually("kubectl explain to teach", async || {
        let explained = cluster.kubectl(&["explain", "ac.spec.providers.rebellions.devicePlugin.image"]);
        let words = explained.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        Wait::until(format!("{words:?}"), |text| text.contains("Each part that is absent or empty keeps its default"))
    })
    .await;
    let samples = testbed::repository::root().join("deploy/samples");
    cluster.kubectl(&["apply", "--dry-run=server", "-f", &samples.display().to_string()])?;
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_what_matters() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controllers = cluster.start_all().await;
    cluster.npu_nodes("c", 2, "container").await?;
    cluster.npu_nodes("v", 1, "vm-passthrough").await?;
    cluster.npu_nodes("n", 1, "").await?;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "ac/default"])?;
    let table = cluster.kubectl(&["get", "ac"])?;
    let columns: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[0], ["NAME", "READY", "REASON", "CONTAINER", "VM-PASSTHROUGH", "GENERATION", "OBSERVED", "AGE"]);
    assert_eq!(columns[1][..5], ["default", "True", "AllComponentsReady", "2", "1"]);
    Ok(())
}
