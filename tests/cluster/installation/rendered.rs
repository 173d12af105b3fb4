//! What `deploy/` renders to, without a cluster.

use std::collections::BTreeSet;

use accelerator_api::ObservedConfig;
use accelerator_operand::{PlanContext, Write, plan};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::install::{self, identity, is_deployment};
use testbed::repository::{operands, programs, root};

use super::{COMPONENTS, OVERLAYS, overlay, own};

const LABELS: [&str; 5] = ["name", "component", "part-of", "managed-by", "version"];

fn identities(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(identity).collect()
}

/// The images of all containers of a pod template.
fn images(template: &Value) -> Vec<String> {
    let lists = ["initContainers", "containers"].into_iter();
    let containers = lists.flat_map(|list| template["spec"][list].as_array().cloned().unwrap_or_default());
    containers.map(|one| one["image"].as_str().expect("an image").to_owned()).collect()
}

/// Pod templates of the operands with the AcceleratorConfig among these objects.
fn operand_templates(objects: &[Value]) -> Vec<(&'static str, Value)> {
    let config = objects.iter().find(|object| object["kind"] == "AcceleratorConfig").expect("an AcceleratorConfig");
    let config: ObservedConfig = serde_json::from_value(config.clone()).expect("one that can be read");
    let rendered = operands().map(|operand| {
        let template = operand.template().expect("a manifest");
        let Write::Apply { wanted, .. } = plan(&template, PlanContext::of(OPERANDS), &[&config], None).write else {
            panic!("{} is not switched on", operand.component.name);
        };
        (operand.component.name, serde_json::to_value(&wanted).expect("JSON")["spec"]["template"].clone())
    });
    rendered.into()
}

#[test]
fn the_lists_of_overlays_and_components_are_complete() {
    let folders = |tree: &str| -> BTreeSet<_> {
        let entries = root().join("deploy").join(tree).read_dir().expect("a folder");
        let entries = entries.map(|entry| entry.expect("an entry").path());
        let entries = entries.filter(|path| path.join("kustomization.yaml").exists());
        entries.map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
    };
    assert_eq!(folders("overlays"), OVERLAYS.iter().map(|(name, _)| (*name).to_owned()).collect());
    // Those of other parts of the project have tests of their own.
    let others = ["guard-rails", "monitoring"].map(str::to_owned);
    let tried: BTreeSet<_> = COMPONENTS.iter().map(|name| (*name).to_owned()).chain(others).collect();
    assert!(folders("components").is_subset(&tried), "{:?}", folders("components"));
}

/// A release ships what `testbed::install::release_manifests` writes.
#[test]
fn every_overlay_is_one_file_of_a_release_and_contains_its_controllers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let written = install::release_manifests(folder.path())?;
    assert_eq!(written.len(), OVERLAYS.len());
    for (name, expected) in OVERLAYS {
        let text = std::fs::read_to_string(folder.path().join(format!("install-{name}.yaml")))?;
        let objects = install::objects(&text)?;
        let deployments = objects.iter().filter(|object| is_deployment(object));
        let found: BTreeSet<_> = deployments.map(|one| one["metadata"]["name"].as_str().expect("a name")).collect();
        let all: Vec<_> = programs().collect();
        let expected = if expected.is_empty() { &all[..] } else { expected };
        assert_eq!(found, expected.iter().copied().collect(), "{name}");
        assert!(!objects.iter().any(|object| object["kind"] == "ConfigMap"), "{name}: a setting is not applied");
    }
    Ok(())
}

#[test]
fn every_object_carries_the_recommended_labels_and_no_selector_ever_changes() -> anyhow::Result<()> {
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    for name in COMPONENTS {
        for object in own("default", &[name], &json!({}))? {
            let what = format!("{name}: {}", identity(&object));
            let labels = &object["metadata"]["labels"];
            for label in LABELS {
                assert!(labels[format!("app.kubernetes.io/{label}")].is_string(), "{what}: {label}");
            }
            assert_eq!(labels["app.kubernetes.io/version"], version, "{what}");
            if is_deployment(&object) {
                // The API server refuses another one than that of the first release.
                let selector = json!({"matchLabels": {"app.kubernetes.io/name": object["metadata"]["name"]}});
                assert_eq!(object["spec"]["selector"], selector, "{what}");
                let pods = &object["spec"]["template"]["metadata"]["labels"];
                assert_eq!(pods["app.kubernetes.io/name"], object["metadata"]["name"], "{what}");
            }
        }
    }
    Ok(())
}

/// Whoever applies one part and deletes another has all of it in the end, and nothing twice.
#[test]
fn crd_namespaces_and_controllers_come_apart() -> anyhow::Result<()> {
    let all = identities(&overlay("default")?);
    let crd = identities(&own("default", &["crd-only"], &json!({}))?);
    let controllers = identities(&own("default", &["controllers-only"], &json!({}))?);
    assert_eq!(crd, identities(&install::render("crds")?));
    assert!(crd.is_disjoint(&controllers));
    let namespaces = identities(&install::render("base/namespaces")?);
    let prerequisites = identities(&install::render("prerequisites")?);
    assert_eq!(prerequisites, crd.union(&namespaces).cloned().collect());
    assert_eq!(all, prerequisites.union(&controllers).cloned().collect());
    assert!(identities(&overlay("single-controller")?).is_disjoint(&prerequisites));
    Ok(())
}

#[test]
fn a_private_registry_is_set_in_one_place_for_every_image() -> anyhow::Result<()> {
    let objects = overlay("air-gapped")?;
    let expected = "registry.example.com/npu/";
    let mut seen = 0;
    for object in objects.iter().filter(|object| is_deployment(object)) {
        let template = &object["spec"]["template"];
        let image = format!("{expected}petasus-ai/{}:v0.1.0", object["metadata"]["name"].as_str().expect("a name"));
        assert_eq!(images(template), [image]);
        assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "mirror"}]));
        seen += 1;
    }
    for (name, template) in operand_templates(&objects) {
        for image in images(&template) {
            assert!(image.starts_with(expected), "{name}: {image}");
            seen += 1;
        }
        assert_eq!(template["spec"]["imagePullSecrets"], json!([{"name": "mirror"}]), "{name}");
    }
    assert!(seen > 2 * programs().count(), "{seen} images");
    // A digest of a layer below stays.
    let pinned = own("example-cluster", &["private-registry"], &json!({}))?;
    let deployment = pinned.iter().find(|object| is_deployment(object)).expect("a Deployment");
    let image = &images(&deployment["spec"]["template"])[0];
    assert!(image.starts_with(expected) && image.contains("@sha256:"), "{image}");
    Ok(())
}

#[test]
fn the_example_cluster_pins_every_image_that_one_digest_fits() -> anyhow::Result<()> {
    let objects = overlay("example-cluster")?;
    let deployments = objects.iter().filter(|object| is_deployment(object));
    let deployments = deployments.map(|one| ("a controller", one["spec"]["template"].clone()));
    let mut by_tag = vec![];
    for (name, template) in deployments.chain(operand_templates(&objects)) {
        by_tag.extend(
            images(&template).into_iter().filter(|image| !image.contains("@sha256:")).map(|image| (name, image)),
        );
    }
    // Of which there is one for each kernel and OS.
    let [(component, image)] = &by_tag[..] else { panic!("{by_tag:?}") };
    assert_eq!(*component, "driver");
    assert!(image.contains("/rbln-driver:"), "{image}");
    Ok(())
}

#[test]
fn openshift_knows_every_operand_and_no_user() -> anyhow::Result<()> {
    let objects = own("default", &["openshift"], &json!({}))?;
    let binding = objects
        .iter()
        .find(|one| one["kind"] == "RoleBinding" && one["metadata"]["name"] == "accelerator-operands-scc");
    let subjects = binding.expect("a binding")["subjects"].as_array().expect("subjects").iter();
    let mut subjects: Vec<_> = subjects.map(|one| one["name"].as_str().expect("a name").to_owned()).collect();
    let mut accounts: Vec<_> = operands().map(|one| format!("{}-operand", one.component.operand)).into();
    subjects.sort();
    accounts.sort();
    assert_eq!(subjects, accounts);
    for object in objects.iter().filter(|object| is_deployment(object)) {
        let context = &object["spec"]["template"]["spec"]["securityContext"];
        assert!(context["runAsUser"].is_null() && context["runAsGroup"].is_null(), "{context}");
        assert_eq!(context["runAsNonRoot"], true);
    }
    Ok(())
}

/// The constraints allow what the default manifests ask for.
#[test]
fn openshifts_constraints_fit_the_operands() -> anyhow::Result<()> {
    let objects = own("default", &["openshift"], &json!({}))?;
    let scc = objects.iter().find(|one| one["kind"] == "SecurityContextConstraints").expect("constraints");
    let allowed = scc["volumes"].as_array().expect("volumes");
    for (name, template) in operand_templates(&overlay("air-gapped")?) {
        let pod = &template["spec"];
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            let kind = volume.as_object().expect("a volume").keys().find(|key| *key != "name").expect("a kind");
            assert!(allowed.contains(&json!(kind)), "{name}: {kind}");
        }
        for (field, right) in
            [("hostNetwork", "allowHostNetwork"), ("hostPID", "allowHostPID"), ("hostIPC", "allowHostIPC")]
        {
            assert!(pod[field] != true || scc[right] == true, "{name}: {field}");
        }
    }
    Ok(())
}

/// Ports that policies leave open are metrics, and those of the default manifests.
#[test]
fn policies_leave_metrics_open_and_the_daemon_closed() -> anyhow::Result<()> {
    let objects = own("default", &["network-policy"], &json!({}))?;
    let policy = |namespace: &str| {
        let mut policies =
            objects.iter().filter(|one| one["kind"] == "NetworkPolicy" && one["metadata"]["namespace"] == namespace);
        let policy = policies.next().expect("a policy");
        assert_eq!(policies.next(), None);
        assert_eq!((&policy["spec"]["podSelector"], &policy["spec"]["policyTypes"]), (&json!({}), &json!(["Ingress"])));
        let ports = policy["spec"]["ingress"]
            .as_array()
            .expect("rules")
            .iter()
            .filter_map(|rule| rule["ports"].as_array().cloned());
        ports.flatten().map(|port| port["port"].as_u64().expect("a number")).collect::<BTreeSet<_>>()
    };
    let scraped = |template: &Value| {
        let port = template["metadata"]["annotations"]["prometheus.io/port"].as_str();
        port.map(|port| port.parse().expect("a number"))
    };
    let controllers =
        objects.iter().filter(|one| is_deployment(one)).filter_map(|one| scraped(&one["spec"]["template"]));
    assert_eq!(policy("accelerator-system"), controllers.collect());
    let templates = operand_templates(&overlay("air-gapped")?);
    assert_eq!(policy(OPERANDS), templates.iter().filter_map(|(_, template)| scraped(template)).collect());
    let exporter = templates.iter().find(|(name, _)| *name == "metric-exporter").expect("the exporter");
    assert!(exporter.1.to_string().contains("50051"), "the port of rbln-daemon is still that");
    assert!(!policy(OPERANDS).contains(&50051));
    Ok(())
}

#[test]
fn a_namespace_of_a_kustomization_is_refused_with_the_reason() {
    for name in OVERLAYS.iter().map(|(name, _)| *name) {
        let refused = own(name, &[], &json!({"namespace": "npu"})).expect_err("it cannot work").to_string();
        assert!(refused.contains("ID conflict"), "{name}: {refused}");
        assert!(refused.contains("deploy/components/operand-namespace"), "{name}: {refused}");
    }
}

#[test]
fn other_namespaces_are_one_setting_each_and_nothing_stays_behind() -> anyhow::Result<()> {
    let both = ["viewer", "network-policy", "priority-quota", "openshift", "operand-namespace", "controller-namespace"];
    for name in ["default", "single-controller"] {
        for object in own(name, &both, &json!({}))? {
            let mut text = object.clone();
            // What a person reads.
            text["metadata"]["annotations"] = json!({});
            let what = identity(&object);
            assert!(!text.to_string().contains("accelerator-system"), "{what}: {text}");
            let subjects = object["subjects"].as_array().cloned().unwrap_or_default();
            let moved = |namespace: &Value| {
                namespace.is_null() || namespace == "default" || namespace == "npu" || namespace == "npu-system"
            };
            assert!(moved(&object["metadata"]["namespace"]), "{what}");
            assert!(subjects.iter().all(|one| moved(&one["namespace"])), "{what}: {subjects:?}");
        }
    }
    Ok(())
}
