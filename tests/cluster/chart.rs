//! The Helm chart: what it renders is what kustomize renders, and a release of it works.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde_json::{Value, json};
use testbed::chart::{self, NO_SWITCHES, switches};
use testbed::install::{render, render_own};
use testbed::{Access, Cluster, ControlPlane, Profile, Wait, eventually, programs, repository};

const NAME: &str = "accelerator-operator";
/// A namespace that none of the objects is in.
const ELSEWHERE: &str = "releases";
/// The label that says who manages an object.
const MANAGED_BY: &str = "/metadata/labels/app.kubernetes.io~1managed-by";

/// The chart, made for a test.
struct Chart {
    folder: tempfile::TempDir,
}

impl Chart {
    fn new() -> anyhow::Result<Self> {
        let chart = Self { folder: tempfile::tempdir()? };
        std::fs::create_dir(chart.path())?;
        chart::write(&chart.path())?;
        Ok(chart)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(NAME)
    }

    fn helm(&self, arguments: &[&str], kubeconfig: Option<&Path>) -> anyhow::Result<String> {
        let mut helm = Command::new(programs::helm_binary()?);
        for kind in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(kind, self.folder.path());
        }
        helm.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/dev/null")));
        let output = helm.args(arguments).output()?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        ensure!(output.status.success(), "helm {}:\n{}{}", arguments.join(" "), said[0], said[1]);
        Ok(said[0].clone())
    }

    /// What it renders with these values, in order.
    fn render(&self, namespace: &str, values: &Value) -> anyhow::Result<Vec<Value>> {
        let file = self.folder.path().join("values.json");
        std::fs::write(&file, values.to_string())?;
        let (chart, file) = (self.path().display().to_string(), file.display().to_string());
        let text = self.helm(&["template", NAME, &chart, "--namespace", namespace, "--values", &file], None)?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        Ok(in_order(objects.into_iter().filter(|object| !object.is_null())))
    }

    /// Holds it to what kustomize renders.
    fn assert_same(&self, values: &Value, expected: Vec<Value>) -> anyhow::Result<()> {
        let mut values = values.clone();
        values["crd"]["keep"] = false.into();
        let (rendered, expected) = (self.render(ELSEWHERE, &values)?, in_order(expected.into_iter().map(of_helm)));
        assert_eq!(names(&rendered), names(&expected), "{values}");
        for (rendered, expected) in rendered.iter().zip(&expected) {
            assert_eq!(rendered, expected, "{values}");
        }
        Ok(())
    }
}

fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().map(testbed::install::identity).collect()
}

fn in_order(objects: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by_cached_key(testbed::install::identity);
    objects
}

/// As Helm renders what kustomize does: the label that says who manages it, where there is one, tells of Helm.
fn of_helm(mut object: Value) -> Value {
    if let Some(manager) = object.pointer_mut(MANAGED_BY) {
        *manager = "Helm".into();
    }
    object
}

#[test]
fn the_chart_renders_what_kustomize_does() -> anyhow::Result<()> {
    let chart = Chart::new()?;
    chart.helm(&["lint", "--strict", &chart.path().display().to_string()], None)?;
    let default = "overlays/default";
    chart.assert_same(&json!({}), render(default)?)?;
    let switches = switches()?;
    let mut all = json!({"components": {}});
    for name in &switches {
        let with = render_own(&[default], &[name.as_str()], &json!({}))?;
        chart.assert_same(&json!({"components": {name: true}}), with)?;
        chart.assert_same(&json!({"components": {name: false}}), render(default)?)?;
        all["components"][name] = true.into();
    }
    let components: Vec<_> = switches.iter().map(String::as_str).collect();
    chart.assert_same(&all, render_own(&[default], &components, &json!({}))?)?;
    assert!(switches.iter().any(|name| name == "monitoring"), "{switches:?}");
    Ok(())
}

#[test]
fn values_do_what_an_overlay_does() -> anyhow::Result<()> {
    let chart = Chart::new()?;
    let default = &["overlays/default"][..];
    let patch = |pod: Value, spec: Value| {
        let mut spec = spec;
        spec["template"] = json!({"spec": pod});
        let patch = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "any"}, "spec": spec});
        json!({"patches": [{"target": {"kind": "Deployment"}, "patch": patch.to_string()}]})
    };
    let digest = format!("sha256:{}", "ab".repeat(32));
    let images: Vec<_> = repository::programs()
        .map(|name| {
            let mut image =
                json!({"name": format!("ghcr.io/petasus-ai/{name}"), "newName": format!("mirror:5000/npu/{name}")});
            let (key, value) = if name == crate::LABELER { ("digest", digest.as_str()) } else { ("newTag", "v9") };
            image[key] = value.into();
            image
        })
        .collect();
    let with = |more: Value| render_own(default, &[], &more);
    let values = json!({"repository": "mirror:5000/npu", "tag": "v9", "digests": {crate::LABELER: digest}});
    chart.assert_same(&json!({"image": values}), with(json!({"images": images}))?)?;
    let tags: Vec<_> = repository::programs()
        .map(|name| json!({"name": format!("ghcr.io/petasus-ai/{name}"), "newTag": "v9"}))
        .collect();
    chart.assert_same(&json!({"image": {"tag": "v9"}}), with(json!({"images": tags}))?)?;
    chart.assert_same(
        &json!({"replicas": 2, "image": {"pullSecrets": ["mirror"]}, "priorityClassName": "mine", "nodeSelector": {"a": "b"}}),
        with(patch(
            json!({"imagePullSecrets": [{"name": "mirror"}], "priorityClassName": "mine", "nodeSelector": {"a": "b"}}),
            json!({"replicas": 2}),
        ))?,
    )?;
    let toleration = json!({"key": "example.com/infra", "operator": "Exists"});
    let (tolerations, resources) = (json!([toleration]), json!({"limits": {"memory": "1Gi"}}));
    let set =
        |path: &str, value: &Value| json!({"op": "add", "path": format!("/spec/template/spec/{path}"), "value": value});
    let operations = json!([
        set("tolerations", &tolerations),
        set("containers/0/resources/limits/memory", &"1Gi".into()),
        set("containers/0/imagePullPolicy", &"Always".into()),
    ]);
    let patches = json!([{"target": {"kind": "Deployment"}, "patch": operations.to_string()}]);
    chart.assert_same(
        &json!({"tolerations": tolerations, "resources": resources, "image": {"pullPolicy": "Always"}}),
        with(json!({"patches": patches}))?,
    )?;
    Ok(())
}

#[test]
fn programs_the_crd_and_namespaces_can_be_left_out() -> anyhow::Result<()> {
    let chart = Chart::new()?;
    let one = "rebellions-device-plugin-controller";
    let base = format!("base/{one}");
    let alone = render_own(&["crds", "base/namespaces", &base], &[], &json!({}))?;
    chart.assert_same(&json!({"controllers": [one]}), alone.clone())?;
    let without = |kind: &str| alone.iter().filter(|object| object["kind"] != kind).cloned().collect::<Vec<_>>();
    let values = json!({"controllers": [one], "namespaces": {"install": false}});
    chart.assert_same(&values, without("Namespace"))?;
    let values = json!({"controllers": [one], "crd": {"install": false}});
    chart.assert_same(&values, without("CustomResourceDefinition"))?;

    // Helm makes the namespace of a release, and refuses one of the same name in a chart.
    let rendered = chart.render("accelerator-system", &json!({}))?;
    let named: Vec<_> = rendered.iter().filter(|object| object["kind"] == "Namespace").collect();
    assert!(matches!(named.as_slice(), [one] if one["metadata"]["name"] == "rebellions"), "{named:?}");
    let crd = rendered.iter().find(|object| object["kind"] == "CustomResourceDefinition").expect("a CRD");
    assert_eq!(crd["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    Ok(())
}

#[test]
fn values_that_mean_nothing_are_refused() -> anyhow::Result<()> {
    let chart = Chart::new()?;
    for (values, why) in [
        (json!({"controllers": ["nobody"]}), "there is no program nobody; there are node-labeler, "),
        (json!({"image": {"digests": {"nobody": format!("sha256:{}", "a".repeat(64))}}}), "there is no program nobody"),
        (json!({"components": {"monitorin": true}}), "components.monitorin: there is no such component"),
        (json!({"imag": {}}), "additional properties 'imag' not allowed"),
        (json!({"image": {"repository": "x/"}}), "/image/repository"),
    ] {
        let error = chart.render(ELSEWHERE, &values).expect_err("refused").to_string();
        assert!(error.contains(why), "{values}: {error}");
    }
    for &(name, _) in NO_SWITCHES {
        assert!(chart.render(ELSEWHERE, &json!({"components": {name: true}})).is_err(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_release_is_installed_works_and_is_removed() -> anyhow::Result<()> {
    let cluster =
        Cluster::connect(tokio::task::spawn_blocking(|| ControlPlane::start(Profile::Functional)).await??).await?;
    let chart = Chart::new()?;
    let path = chart.path().display().to_string();
    let kubeconfig = Some(cluster.kubeconfig.as_path());
    let release = [NAME, &path, "--namespace", "accelerator-system"];
    chart.helm(&[&["install"], &release[..], &["--create-namespace"]].concat(), kubeconfig)?;
    cluster.npu_nodes("c", 1, "container").await?;
    let programs = repository::programs().count();
    eventually("every Deployment with a pod each", async || {
        let path = "jsonpath={range .items[*]}{.metadata.name}={.status.readyReplicas} {end}";
        let ready = cluster.kubectl(&["get", "deployments", "-n", "accelerator-system", "-o", path]);
        Wait::until(ready.unwrap_or_default(), |ready| {
            ready.split_whitespace().filter(|one| one.ends_with("=1")).count() == programs
        })
    })
    .await;
    // The rights are those of the chart; the pods of the Deployments are played.
    let controllers = cluster.start_all().await;
    cluster.configure("default", Access::enable_all()).await?;
    cluster.expect_ready("default").await;

    chart.helm(&[&["upgrade"], &release[..], &["--set", "replicas=2"]].concat(), kubeconfig)?;
    let replicas = ["get", "deployment", crate::LABELER, "-n", "accelerator-system", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.kubectl(&replicas)?, "2");
    cluster.expect_ready("default").await;

    cluster.unconfigure("default").await?;
    cluster.expect_operands(&[]).await;
    drop(controllers);
    chart.helm(&["uninstall", NAME, "--namespace", "accelerator-system"], kubeconfig)?;
    assert_eq!(cluster.kubectl(&["get", "deployments", "-n", "accelerator-system", "-o", "name"])?, "");
    cluster.kubectl(&["get", "crd", "acceleratorconfigs.petasus.io"])?;
    Ok(())
}
