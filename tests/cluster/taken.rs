//! Values on every edge, thrown at the schema: what it takes, a controller has to be able to read, and the API server to
//! take in the DaemonSet, where it has to mean what was written.

use accelerator_api::contract::DEVICE_PLUGIN;
use accelerator_api::{AcceleratorConfig, ObservedConfig};
use accelerator_operand::{PlanContext, Write, daemon_set_difference, plan};
use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::{Cluster, say};

const NUMBERS: &[&str] = &[
    "-1",
    "0",
    "1",
    "60",
    "60.0",
    "0.5",
    "3600",
    "3601",
    "2147483647",
    "2147483648",
    "3000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e20",
    "1e25",
    "-1e25",
];

const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "A",
    "a b",
    " a",
    "a ",
    "a\nb",
    "é",
    "-a",
    "a-",
    "a.b",
    "a..b",
    "a_b",
    "a/b",
    "a/b/c",
    "/",
    "/a",
    "/a/",
    "//a",
    "/a/../b",
    "/.",
    "/..",
    "/a:b",
    "x:1",
    "x:99999",
    "a:b:c",
    "a@b",
    "$(X)",
    "=",
    "0",
    "1",
    "-1",
    "0.5",
    "+1.",
    ".5",
    "1e3",
    "1E3",
    "1e99",
    "1e-99",
    "99999999999999999999",
    "9223372036854775807",
    "9223372036854775808",
    "1n",
    "0.0000000001",
    "100m",
    "1.5k",
    "3Mi",
    "4Mi",
    "1.5Ei",
    "9Ei",
    "10Ei",
    "0%",
    "1%",
    "001%",
    "100%",
    "101%",
    "1.5%",
    "Always",
    "Exists",
    "Equal",
    "NoSchedule",
    "NoExecute",
    "system-node-critical",
    "example.com/x",
    "name",
    "kubernetes.io/x",
];

const KEYS: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "pods",
    "hugepages-",
    "hugepages-x",
    "hugepages-0",
    "hugepages-2Mi",
    "hugepages-1Gi",
    "example.com/device",
    "kubernetes.io/x",
    "requests.example.com/x",
    "example.com/requests",
    "attachable-volumes-x",
    "",
];

/// Lengths around which names are refused.
const LENGTHS: &[usize] = &[63, 64, 128, 244, 245, 253, 254, 300];

fn texts() -> Vec<String> {
    let long = LENGTHS.iter().flat_map(|length| {
        let text = "a".repeat(*length);
        [format!("{text}/b"), format!("b/{text}"), text]
    });
    TEXTS.iter().map(|text| (*text).to_owned()).chain(long).collect()
}

/// Every value to try for a field with this schema.
fn values(schema: &Value) -> Vec<Value> {
    let numbers = || NUMBERS.iter().map(|number| serde_json::from_str(number).expect("a number"));
    match schema["type"].as_str() {
        _ if schema["x-kubernetes-int-or-string"] == true => {
            numbers().chain(texts().into_iter().map(Value::from)).collect()
        }
        Some("integer") => numbers().collect(),
        Some("boolean") => vec![json!(true), json!(null)],
        Some("string") => texts().into_iter().map(Value::from).collect(),
        _ => vec![],
    }
}

/// Every section with one field below `schema` set to a value to try; `set` puts it where it belongs.
fn sections(schema: &Value, set: &dyn Fn(Value) -> Value, all: &mut Vec<Value>) {
    all.extend(values(schema).into_iter().map(set));
    // What is in it is the same as what is beside it.
    let properties = schema["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "giveBack");
    for (name, below) in properties {
        sections(below, &|value| set(beside(name, value)), all);
    }
    if schema["items"].is_object() {
        sections(&schema["items"], &|value| set(json!([value])), all);
    }
    if schema["additionalProperties"].is_object() {
        let keys = KEYS.iter().map(|key| (*key).to_owned()).chain(texts());
        // Values matter for resources alone, and there only with the keys that are resources.
        let is_resource = |key: &str| KEYS[..10].contains(&key) || key == KEYS[10];
        for key in keys {
            let values = values(&schema["additionalProperties"]);
            let is_amount = schema["additionalProperties"]["x-kubernetes-int-or-string"] == true;
            let few = if is_amount && !is_resource(&key) { &values[2..3] } else { &values[..] };
            let few = if !is_amount && key != "a" { &few[2..3] } else { few };
            all.extend(few.iter().map(|value| set(json!({&key: value}))));
        }
    }
}

/// An object with this field, and with those that the field cannot be without.
fn beside(name: &str, value: Value) -> Value {
    let mut object = match name {
        "tolerationSeconds" | "effect" => json!({"key": "a", "effect": "NoExecute"}),
        "value" => json!({"key": "a", "name": "A"}),
        "key" | "operator" => json!({"key": "a", "effect": "NoSchedule"}),
        "requests" => json!({"limits": value}),
        _ => json!({}),
    };
    object[name] = value;
    // Huge pages need it beside them.
    if let Some(limits) = object.get_mut("limits").filter(|limits| limits["cpu"].is_null()) {
        limits["cpu"] = json!(1);
    }
    object
}

/// The beginning of a text, for people.
fn short(text: &str) -> String {
    text.chars().take(250).collect()
}

/// What is wrong with a section that the schema takes; `None` when it refuses it or all is well.
async fn fault(cluster: &Cluster, section: Value) -> Option<Result<(), String>> {
    let mut section = section;
    if section["devicePlugin"]["enabled"].is_null() {
        section["devicePlugin"]["enabled"] = json!(true);
    }
    let object = json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "taken"},
                        "spec": {"providers": {"rebellions": section}}});
    let configs = Api::<DynamicObject>::all_with(cluster.client.clone(), &ApiResource::erase::<AcceleratorConfig>(&()));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let stored = match configs.create(&dry, &serde_json::from_value(object).expect("an object")).await {
        Ok(stored) => serde_json::to_value(stored).expect("JSON"),
        Err(_) => return None,
    };
    Some(applied(cluster, stored).await.map_err(|why| {
        let text = section.to_string();
        format!("{}: {}", short(&text), short(&why))
    }))
}

async fn applied(cluster: &Cluster, stored: Value) -> Result<(), String> {
    let config: ObservedConfig = serde_json::from_value(stored).map_err(|error| error.to_string())?;
    let template = rebellions_device_plugin_controller::OPERAND.template().expect("a manifest");
    let wanted = match plan(&template, PlanContext::of(OPERANDS), &[&config], None).write {
        Write::Apply { wanted, .. } => wanted,
        other => return Err(format!("{other:?}")),
    };
    let params = PatchParams { dry_run: true, ..PatchParams::apply(DEVICE_PLUGIN.controller).force() };
    let api = cluster.namespaced::<DaemonSet>(OPERANDS);
    let live = api.patch(DEVICE_PLUGIN.operand, &params, &Patch::Apply(&wanted)).await;
    let live = live.map_err(|error| error.to_string())?;
    match daemon_set_difference(&live, &wanted) {
        Some(path) => Err(format!("applied, it differs at {path}: it would be applied again and again")),
        None => Ok(()),
    }
}

#[tokio::test]
async fn whatever_the_schema_takes_is_read_and_applied() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let crd = serde_json::to_value(accelerator_api::crd())?;
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/providers/properties/rebellions";
    let schema = crd.pointer(path).expect("our provider");
    let mut all = vec![];
    for name in ["workload", "daemonsets", "devicePlugin"] {
        sections(&schema["properties"][name], &|value| json!({name: value}), &mut all);
    }
    let tried = all.len();
    let results: Vec<_> = stream::iter(all).map(|section| fault(&cluster, section)).buffer_unordered(8).collect().await;
    let taken: Vec<_> = results.into_iter().flatten().collect();
    say(format!("{tried} sections tried, {} taken", taken.len()));
    let faults: Vec<_> = taken.iter().filter_map(|result| result.as_ref().err()).collect();
    let some: Vec<_> = faults.iter().take(30).collect();
    assert!(faults.is_empty(), "the schema lets through what fails later, {} times:\n{some:#?}", faults.len());
    assert!(taken.len() > 200 && tried - taken.len() > 200, "too tame or too wild to test anything");
    Ok(())
}
