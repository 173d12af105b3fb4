//! Programs of the last release and of the code as it is, together on one cluster. After every step the status is true, no pod of
//! an operand was replaced unless its own template changed, and nobody wrote what is not theirs. The long ones build the last release
//! from its commit, once; `just skew-suite` runs them.

mod installation;
mod snapshot;

use std::collections::BTreeMap;
use std::time::Duration;

use accelerator_api::contract::{DEVICE_PLUGIN, DRIVER_UPGRADE_STATE_LABEL};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::releases::Release;
use testbed::repository::programs;
use testbed::{Access, Cluster, Kubelets, Wait, eventually, install, say};

use self::installation::{Installation, LABELER_PART, Part, Version, parts, section};
use self::snapshot::{Snapshot, Step};
use crate::LABELER;

/// Orders of an upgrade that are tried, of 5040; each with its seed.
const ORDERS: std::ops::Range<u64> = 0..4;

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn the_new_crd_under_old_programs() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    installation.switch(Part::Crd, Version::New).await?;
    installation.work().await?;
    // A CRD of a later day still: what an old program does not know, it ignores.
    let mut crd = installation.rendered(Version::New, "crds")?;
    let section_schema =
        "/properties/spec/properties/providers/properties/rebellions/properties/devicePlugin/properties";
    let future = schema(&mut crd, section_schema);
    future["ofTheFuture"] = json!({"type": "string", "description": "x"});
    install::apply(&installation.cluster.kubeconfig, &crd)?;
    let mut config = section();
    config["devicePlugin"]["ofTheFuture"] = json!("x");
    eventually("the later CRD to be served", async || {
        let taken = installation.cluster.configure("default", config.clone()).await;
        let kept = installation.cluster.config("default").await.to_string().contains("\"ofTheFuture\":\"x\"");
        let refusal = taken.err().map(|error| error.to_string());
        Wait::until((refusal, kept), |(refusal, kept)| refusal.is_none() && *kept)
    })
    .await;
    let mark = installation.cluster.mark()?;
    installation.settle().await?;
    installation.check("a field of the future", Step::default(), &mark.requests()?).await?;
    installation.switch(Part::Crd, Version::Old).await?;
    installation.tell("new CRD, old programs");
    Ok(())
}

/// A place in the schema of the only CRD of these.
fn schema<'a>(crds: &'a mut [Value], place: &str) -> &'a mut Value {
    let crd = crds.iter_mut().find(|object| object["kind"] == "CustomResourceDefinition").expect("a CRD");
    crd.pointer_mut(&format!("/spec/versions/0/schema/openAPIV3Schema{place}")).expect("a schema")
}

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn the_old_crd_under_one_new_program() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    for name in programs() {
        installation.switch(Part::Program(name), Version::New).await?;
        installation.switch(Part::Program(name), Version::Old).await?;
    }
    // One that is older still, so that what is reported does not fit: the new one says so, and harms nothing.
    let mut crd = installation.rendered(Version::Old, "crds")?;
    let entries = schema(&mut crd, "/properties/status/properties/components/items/properties");
    entries.as_object_mut().expect("properties").remove("available");
    install::apply(&installation.cluster.kubeconfig, &crd)?;
    installation.expect_crd()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let events = installation.cluster.namespaced::<Event>("default");
    events.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    installation.switch(Part::Program(DEVICE_PLUGIN.controller), Version::New).await?;
    let words = format!("CrdTooOld: {} cannot report its status", DEVICE_PLUGIN.controller);
    installation.cluster.expect_event("default", &words).await;
    install::apply(&installation.cluster.kubeconfig, &installation.rendered(Version::Old, "crds")?)?;
    installation.expect_crd()?;
    installation.work().await?;
    installation.tell("old CRD, one new program");
    Ok(())
}

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn an_old_labeler_among_new_controllers() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    installation.switch(Part::Crd, Version::New).await?;
    for part in Installation::others(LABELER) {
        installation.switch(part, Version::New).await?;
    }
    installation.work().await?;
    upgrade_a_driver(&mut installation).await?;
    installation.tell("old labeler, new controllers");
    Ok(())
}

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn a_new_labeler_among_old_controllers() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    installation.switch(Part::Crd, Version::New).await?;
    installation.switch(LABELER_PART, Version::New).await?;
    installation.work().await?;
    upgrade_a_driver(&mut installation).await?;
    installation.tell("new labeler, old controllers");
    Ok(())
}

/// The one thing that two programs do together: users of the driver step aside while it is replaced. On machines alone, whose kubelets
/// are played as closely as that needs.
async fn upgrade_a_driver(installation: &mut Installation) -> anyhow::Result<()> {
    let mark = installation.cluster.mark()?;
    let cluster = &installation.cluster;
    let kubelets = Kubelets::start(cluster).await?;
    let machines = cluster.machines("m").count(2).create().await?;
    for node in ["c-0", "c-1"] {
        cluster.set_mode(node, None).await?;
        cluster.expect_deployed(node, &[]).await;
    }
    let asked = ["driver", "device-plugin", "metric-exporter", "npu-feature-discovery"];
    for version in ["3.0.0", "3.1.0"] {
        let mut section = section();
        section["driver"]["version"] = version.into();
        section["driver"]["upgradePolicy"] = json!({"autoUpgrade": true, "maxUnavailable": "100%", "maxParallel": 4});
        cluster.configure("default", section).await?;
        eventually(&format!("every machine to run the driver {version}"), async || {
            let params = ListParams::default().labels("app.kubernetes.io/name=rebellions-driver");
            let pods =
                cluster.namespaced::<Pod>(OPERANDS).list(&params).await.map(|list| list.items).unwrap_or_default();
            let runs = |pod: &&Pod| {
                let spec = pod.spec.as_ref().expect("a spec");
                let image = spec.containers[0].image.as_deref().unwrap_or_default();
                let on_a_machine = machines.iter().any(|machine| spec.node_name.as_deref() == Some(machine));
                on_a_machine && image.contains(&format!(":{version}-")) && testbed::is_ready(pod)
            };
            Wait::until(pods.iter().filter(runs).count(), |running| *running == machines.len())
        })
        .await;
        installation.settle().await?;
    }
    for machine in &machines {
        let labels = cluster.labels(machine).await?;
        assert_eq!(labels.get(DRIVER_UPGRADE_STATE_LABEL).map(String::as_str), Some("Done"), "{machine}");
        cluster.expect_deployed(machine, crate::CONTAINER).await;
    }
    installation.check("a driver upgrade", Step { switched: None, asked: &asked }, &mark.requests()?).await?;
    drop(kubelets);
    Ok(())
}

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn one_program_up_and_back() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    installation.switch(Part::Crd, Version::New).await?;
    for name in programs() {
        installation.switch(Part::Program(name), Version::New).await?;
        installation.work().await?;
        installation.switch(Part::Program(name), Version::Old).await?;
    }
    installation.tell("one program up and back");
    Ok(())
}

#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn orders_of_an_upgrade_sample() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    for seed in ORDERS {
        let mut random = StdRng::seed_from_u64(seed);
        for version in [Version::New, Version::Old] {
            let mut order = parts();
            order.shuffle(&mut random);
            let busy = random.random_range(0..order.len());
            say(format!("seed {seed}: {order:?} to {version:?}, with work after {:?}", order[busy]));
            for (index, part) in order.into_iter().enumerate() {
                installation.switch(part, version).await?;
                if index == busy {
                    installation.work().await?;
                }
            }
        }
    }
    installation.tell("orders of an upgrade, up and back");
    Ok(())
}

/// What of an object others rely on, or cannot be changed.
fn relied_on(object: &Value) -> Value {
    let ports = |containers: &Value| {
        let containers = containers.as_array().cloned().unwrap_or_default();
        let all = containers.iter().flat_map(|one| one["ports"].as_array().cloned().unwrap_or_default());
        all.map(|port| format!("{}={}", port["name"].as_str().unwrap_or_default(), port["containerPort"]))
            .collect::<Vec<_>>()
    };
    let spec = &object["spec"];
    match object["kind"].as_str() {
        Some("Deployment") => json!({
            "selector": spec["selector"]["matchLabels"],
            "serviceAccountName": spec["template"]["spec"]["serviceAccountName"],
            "ports": ports(&spec["template"]["spec"]["containers"]),
        }),
        Some("Service") => json!({"selector": spec["selector"], "ports": spec["ports"]}),
        Some("RoleBinding" | "ClusterRoleBinding") => json!({"roleRef": object["roleRef"]}),
        _ => json!({}),
    }
}

fn relied_on_of(objects: &[Value]) -> BTreeMap<String, Value> {
    objects.iter().map(|object| (install::identity(object), relied_on(object))).collect()
}

/// What of the objects is gone, or is something else. Server-side apply would leave the first behind, and be refused the second.
fn changed(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<String> {
    let told = old.iter().filter_map(|(name, was)| match new.get(name) {
        Some(is) if is == was => None,
        Some(is) => Some(format!("deploy: {name} was {was}, is {is}")),
        None => Some(format!("deploy: {name} is gone")),
    });
    told.collect()
}

/// Needs no old program.
#[test]
fn the_objects_of_the_last_release_are_still_there() -> anyhow::Result<()> {
    let new = relied_on_of(&install::render("overlays/default")?);
    if let Some(version) = std::env::var_os("RECORD_RELEASE") {
        let folder = testbed::repository::root().join("releases").join(version);
        std::fs::write(folder.join("objects.json"), format!("{}\n", serde_json::to_string_pretty(&new)?))?;
    }
    let folder = Release::last()?.folder();
    let old: BTreeMap<String, Value> = serde_json::from_str(&std::fs::read_to_string(folder.join("objects.json"))?)?;
    let accepted: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(folder.join("accepted.json"))?)?;
    let accepted = accepted.iter().filter_map(|one| one["change"].as_str());
    let mut accepted: Vec<_> = accepted.filter(|change| change.starts_with("deploy: ")).collect();
    let mut changed = changed(&old, &new);
    accepted.sort_unstable();
    changed.sort_unstable();
    assert_eq!(
        changed,
        accepted,
        "left: what became of the last release's objects; right: what is accepted of it in {}",
        folder.join("accepted.json").display()
    );
    Ok(())
}

#[test]
fn an_object_that_goes_or_whose_selector_changes_is_told() -> anyhow::Result<()> {
    let mut objects = install::render("overlays/default")?;
    let old = relied_on_of(&objects);
    assert_eq!(changed(&old, &relied_on_of(&objects)), Vec::<String>::new());
    let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let name = install::identity(deployment);
    deployment["spec"]["selector"]["matchLabels"]["more"] = json!("x");
    let told = changed(&old, &relied_on_of(&objects));
    assert!(matches!(told.as_slice(), [told] if told.starts_with(&format!("deploy: {name} was "))), "{told:?}");
    objects.retain(|object| install::identity(object) != name);
    assert_eq!(changed(&old, &relied_on_of(&objects)), [format!("deploy: {name} is gone")]);
    Ok(())
}

/// As the README says: the whole overlay at once, over that of the last release, and back.
#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn the_whole_overlay_over_that_of_the_last_release() -> anyhow::Result<()> {
    let mut installation = Installation::of_the_last_release().await?;
    for version in [Version::New, Version::Old] {
        let objects = installation.rendered(version, "overlays/default")?;
        install::apply(&installation.cluster.kubeconfig, &objects)?;
        let mark = installation.cluster.mark()?;
        installation.settle().await?;
        installation.check(&format!("the overlay {version:?}"), Step::default(), &mark.requests()?).await?;
        for part in parts() {
            installation.switch(part, version).await?;
        }
    }
    installation.tell("the whole overlay, and back");
    Ok(())
}

/// What is compared with is what the commit has.
#[tokio::test]
#[ignore = "builds the last release; run by `just skew-suite`"]
async fn what_is_kept_of_the_last_release_is_that_of_its_commit() -> anyhow::Result<()> {
    let release = Release::last()?;
    let building = release.clone();
    let built = tokio::task::spawn_blocking(move || building.build()).await??;
    let kept = |file: &str| std::fs::read_to_string(release.folder().join(file));
    let crd = std::fs::read_to_string(built.source.join("deploy/crds/acceleratorconfigs.yaml"))?;
    assert!(kept("acceleratorconfigs.yaml")? == crd, "the CRD of {} is another one", release.commit);
    let objects: BTreeMap<String, Value> = serde_json::from_str(&kept("objects.json")?)?;
    assert_eq!(objects, relied_on_of(&install::render_of(&built.source, "overlays/default")?));
    let surface: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&kept("surface.json")?)?;
    let help = std::process::Command::new(built.program(LABELER)?).arg("--help").output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let options = surface["options"].keys().filter(|name| !name.starts_with("rebellions-vfio-manager"));
    for option in options.filter_map(|name| name.split_whitespace().last()) {
        assert!(help.contains(option), "{option} is no option of {}: {help}", release.version);
    }
    Ok(())
}

/// The suite is worth nothing if it passes whatever happens: a controller whose new version wants other pods, a pod that goes for
/// nothing, and a write of what is not its writer's.
#[tokio::test]
async fn a_release_that_disturbs_would_be_told() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let labeler = cluster.start(LABELER).await;
    let controller = cluster.start(DEVICE_PLUGIN.controller).await;
    cluster.npu_nodes("d", 2, "container").await?;
    cluster.configure("default", Access::enable(&[DEVICE_PLUGIN.name])).await?;
    cluster.expect_ready("default").await;
    let (before, mark) = (Snapshot::of(&cluster).await, cluster.mark()?);
    assert_eq!(before.violations(&before, Step::default(), &mark.requests()?), Vec::<String>::new());
    assert!(controller.stop()?.success() && labeler.stop()?.success());

    // What a doctored version of its controller would apply, with its rights and under its name.
    let client = cluster.client_of(DEVICE_PLUGIN.controller).await?;
    let doctored = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": DEVICE_PLUGIN.operand, "namespace": OPERANDS},
        "spec": {"template": {"metadata": {"annotations": {"example.com/doctored": "x"}}}},
    });
    let api = Api::<k8s_openapi::api::apps::v1::DaemonSet>::namespaced(client, OPERANDS);
    api.patch(DEVICE_PLUGIN.operand, &PatchParams::default(), &Patch::Merge(&doctored)).await?;
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(cluster.client_of(LABELER).await?);
    let label = json!({"metadata": {"labels": {"example.com/foreign": "x"}}});
    nodes.patch("d-0", &PatchParams::default(), &Patch::Merge(&label)).await?;
    let after = eventually("every pod to be replaced", async || {
        let after = Snapshot::of(&cluster).await;
        let replaced = before.replaced(&after).len();
        Wait::until((after, replaced), |(after, replaced)| after.pods.len() == 2 && *replaced == 2)
    })
    .await
    .0;
    let told = |step: Step<'_>| before.violations(&after, step, &mark.requests().expect("an audit log"));
    let of = |told: &[String], words: &str| told.iter().filter(|line| line.contains(words)).count();
    // While another program is switched, all of it is told.
    let other = told(Step { switched: Some(LABELER), asked: &[] });
    for (words, count) in
        [("are wanted otherwise", 1), ("was replaced", 2), ("patch nodes d-0", 1), ("patch daemonsets", 1)]
    {
        assert_eq!(of(&other, words), count, "{words}: {other:?}");
    }
    // While its own is, its template may change, and its pods with it.
    let own = told(Step { switched: Some(DEVICE_PLUGIN.controller), asked: &[] });
    assert_eq!((of(&own, "was replaced"), of(&own, "patch nodes d-0")), (0, 1), "{own:?}");
    cluster.namespaced::<Pod>(OPERANDS).delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let gone = eventually("pods made anew", async || {
        let gone = Snapshot::of(&cluster).await;
        let replaced = after.replaced(&gone).len();
        Wait::until((gone, replaced), |(gone, replaced)| gone.pods.len() == 2 && *replaced == 2)
    })
    .await
    .0;
    let step = Step { switched: Some(DEVICE_PLUGIN.controller), asked: &[] };
    let told = after.violations(&gone, step, &[]);
    assert_eq!(of(&told, "was replaced"), 2, "its template is the same: {told:?}");
    Ok(())
}
