//! Attacks by DaemonSets: root on whichever node runs one.

use std::path::PathBuf;

use accelerator_operand::Operand;
use serde_json::{Value, json};
use testbed::repository::{assets, operands};
use testbed::{Wait, eventually};

use super::{Attack, Write, attack, unguarded};

/// A change of a manifest's pods, and what the policy says to it.
type Change = (&'static str, fn(&mut Value), &'static str);

const CHANGES: [Change; 16] = [
    ("every node", |pod| pod["nodeSelector"] = json!({}), "runs on nodes with the label"),
    (
        "the control plane",
        |pod| pod["nodeSelector"] = json!({"node-role.kubernetes.io/control-plane": ""}),
        "runs on nodes",
    ),
    ("another's rights", |pod| pod["serviceAccountName"] = json!("somebody-else"), "run as"),
    ("its account's token", |pod| pod["automountServiceAccountToken"] = json!(true), "no token is mounted"),
    ("processes of the host", |pod| pod["hostPID"] = json!(true), "share neither processes nor IPC"),
    ("IPC of the host", |pod| pod["hostIPC"] = json!(true), "share neither processes nor IPC"),
    ("the network of the host", |pod| pod["hostNetwork"] = json!(true), "its network only if"),
    (
        "files of the host",
        |pod| mount(pod, json!({"hostPath": {"path": "/etc/kubernetes/pki"}})),
        "and not /etc/kubernetes/pki",
    ),
    ("secrets in files", |pod| mount(pod, json!({"secret": {"secretName": "pull-secret"}})), "mount no Secrets"),
    (
        "secrets in a projection",
        |pod| mount(pod, json!({"projected": {"sources": [{"secret": {"name": "a"}}]}})),
        "mount no Secrets",
    ),
    (
        "an image of one's own",
        |pod| main(pod)["image"] = json!("example.com/rebellions/driver:1"),
        "the image example.com/rebellions/driver:1 is of none",
    ),
    (
        "an image whose name looks right",
        |pod| main(pod)["image"] = json!("docker.io/rebellions.evil/a:1"),
        "is of none",
    ),
    (
        "a shell",
        |pod| main(pod)["command"] = json!(["sh", "-c", "nsenter -t 1 -a"]),
        "run the commands of their default manifest",
    ),
    (
        "a shell in a hook",
        |pod| main(pod)["lifecycle"] = json!({"postStart": {"exec": {"command": ["sh"]}}}),
        "run the commands",
    ),
    ("a shell in a probe", |pod| main(pod)["startupProbe"] = json!({"exec": {"command": ["sh"]}}), "run the commands"),
    (
        "secrets in variables",
        |pod| main(pod)["envFrom"] = json!([{"secretRef": {"name": "a"}}]),
        "no variables from Secrets",
    ),
];

fn main(pod: &mut Value) -> &mut Value {
    &mut pod["containers"][0]
}

fn mount(pod: &mut Value, mut volume: Value) {
    volume["name"] = json!("loot");
    pod["volumes"].as_array_mut().expect("volumes").push(volume);
    main(pod)["volumeMounts"].as_array_mut().expect("mounts").push(json!({"name": "loot", "mountPath": "/loot"}));
}

fn manifest(operand: &Operand) -> Value {
    yaml(&assets(operand).join("daemonset.yaml"))
}

fn yaml(path: &PathBuf) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).expect("a file")).expect("YAML")
}

fn apply(operand: &Operand, daemon_set: Value) -> Write {
    let path = format!("/apis/apps/v1/namespaces/rebellions/daemonsets/{}", operand.component.operand);
    Write::apply(operand.component.controller, operand.component.controller, &path, daemon_set)
}

fn attacks() -> Vec<Attack> {
    let each = |operand: &'static Operand| {
        CHANGES.iter().map(move |(what, change, refusal)| {
            let mut daemon_set = manifest(operand);
            change(&mut daemon_set["spec"]["template"]["spec"]);
            attack(format!("{what} for {}", operand.component.name), apply(operand, daemon_set), refusal)
        })
    };
    // The driver's controller is kept from the first three by policies that are always there.
    let always = |attack: &Attack| {
        attack.write.by == "rebellions-driver-controller"
            && ["every node", "the control plane", "another's rights"].iter().any(|what| attack.what.starts_with(what))
    };
    operands().into_iter().flat_map(each).filter(|attack| !always(attack)).collect()
}

#[tokio::test]
async fn a_stolen_token_does_not_make_a_daemonset_into_a_shell_on_every_node() -> anyhow::Result<()> {
    let (mut cluster, thieves) = unguarded().await?;
    let attacks = attacks();
    thieves.expect_possible(&attacks).await;
    cluster.guard().await?;
    thieves.expect_refused(&attacks).await;

    // What controllers make of every kind of setting, but for what the policy has to be told as well.
    let goldens = goldens()?;
    for (write, is_default) in &goldens {
        let done = write.try_only(&thieves).await;
        let Err(kube::Error::Api(refused)) = &done else {
            assert!(done.is_ok(), "{write:?}: {done:?}");
            continue;
        };
        let names_setting = ["is of none of the registries", "(kubeletRootDir of", "only if hostNetwork of"];
        assert!(!is_default && names_setting.iter().any(|said| refused.message.contains(said)), "{write:?}: {refused}");
    }
    let set = |place: usize, value: &str| json!({"op": "replace", "path": format!("/spec/variables/{place}/expression"), "value": value});
    let told = json!([set(0, "['*']"), set(1, "'/data/kubelet'"), set(2, "['metric-exporter']")]);
    let policy = ["validatingadmissionpolicy", "accelerator-operand-daemonsets"];
    cluster.kubectl(&["patch", policy[0], policy[1], "--type=json", "-p", &told.to_string()])?;
    cluster.spoil();
    let exporter = operands()[2];
    let mut elsewhere: Value = serde_json::from_str(&manifest(exporter).to_string().replace("/var/lib/", "/data/"))?;
    elsewhere["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let has = |write: &Write, text: &str| write.body.to_string().contains(text);
    let mut allowed: Vec<_> = goldens.into_iter().map(|(write, _)| write).collect();
    allowed.retain(|write| has(write, "/data/kubelet/") || !has(write, "/var/lib/kubelet/"));
    allowed.push(apply(exporter, elsewhere));
    for write in allowed {
        eventually("what the policy was told to be allowed", async || {
            Wait::until(write.try_only(&thieves).await.map_err(|error| error.to_string()), Result::is_ok)
        })
        .await
        .map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// What the renderer makes of settings, applied, and whether it is the default.
fn goldens() -> anyhow::Result<Vec<(Write, bool)>> {
    let mut goldens = vec![];
    for operand in operands() {
        for entry in std::fs::read_dir(assets(operand).join("testdata"))? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".expected.yaml") {
                goldens.push((apply(operand, yaml(&path)), path.ends_with("default.expected.yaml")));
            }
        }
    }
    Ok(goldens)
}

/// As many variables as a container may well have, and more volumes than any operand.
#[tokio::test]
async fn the_largest_daemonset_is_within_the_budget_of_the_policies() -> anyhow::Result<()> {
    let (mut cluster, thieves) = unguarded().await?;
    cluster.guard().await?;
    for operand in operands() {
        let mut daemon_set = manifest(operand);
        let pod = &mut daemon_set["spec"]["template"]["spec"];
        let env: Vec<_> =
            (0..500).map(|number| json!({"name": format!("V{number}"), "value": "v".repeat(200)})).collect();
        for kind in ["containers", "initContainers"] {
            for container in pod[kind].as_array_mut().into_iter().flatten() {
                container["env"] = json!(env);
            }
        }
        for number in 0..100 {
            let volume = json!({"name": format!("v{number}"), "hostPath": {"path": "/sys"}});
            pod["volumes"].as_array_mut().expect("volumes").push(volume);
        }
        apply(operand, daemon_set).try_only(&thieves).await?;
    }
    Ok(())
}
