//! The admin's window on a real control plane: what it says of a healthy cluster and of broken ones, what it asks, and that it
//! changes nothing.

use std::path::PathBuf;
use std::process::Command;

use accelerator_api::contract::{NODE_LABELER, NPU_COUNT_LABEL};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::audit::Mark;
use testbed::nodes::{ATOM, create_with, npu_labels_with_mode};
use testbed::programs::own_binary;
use testbed::{Access, Cluster, Controller, Leased, Wait, eventually};

/// How a command ended and what it printed.
struct Answer {
    code: i32,
    text: String,
}

/// A cluster in which everything runs.
struct Bed {
    controllers: Vec<Controller>,
    cluster: Leased,
}

impl Bed {
    async fn new(count: usize) -> anyhow::Result<Self> {
        let cluster = Cluster::lease().await;
        let controllers = cluster.start_all().await;
        nodes(&cluster, "c", count, "container").await?;
        nodes(&cluster, "v", 1, "vm-passthrough").await?;
        cluster.configure("default", Access::enable_all()).await?;
        cluster.expect_ready("default").await;
        let bed = Self { controllers, cluster };
        // DaemonSets count their pods a moment later.
        bed.eventually("status", 0, "ready (AllComponentsReady)").await;
        Ok(bed)
    }

    fn run(&self, arguments: &str) -> anyhow::Result<Answer> {
        let mut command = Command::new(own_binary("kubectl-accelerator")?);
        command.env_clear().env("KUBECONFIG", &self.cluster.kubeconfig).args(arguments.split(' '));
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(Answer { code: output.status.code().unwrap_or(-1), text })
    }

    /// Waits until a command ends like this and says these words.
    async fn eventually(&self, arguments: &str, code: i32, words: &str) -> String {
        eventually(&format!("kubectl accelerator {arguments} to end with {code} and say {words:?}"), async || {
            let answer = self.run(arguments).expect("the plugin runs");
            Wait::until((answer.code, answer.text), |(ended, text)| *ended == code && text.contains(words))
        })
        .await
        .1
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cluster.folder.join(name)
    }
}

/// Requests of the plugin since then, which asks as an administrator.
fn requests(mark: &Mark) -> anyhow::Result<Vec<String>> {
    let ours = mark.requests()?.into_iter().filter(|one| one.user == "admin");
    Ok(ours.map(|one| format!("{} {} {}", one.verb, one.resource, one.name)).collect())
}

/// Nodes on which the device plugin's NPUs are advertised, and which discovery has looked at.
async fn nodes(cluster: &Cluster, prefix: &str, count: usize, mode: &str) -> anyhow::Result<()> {
    let mut labels = npu_labels_with_mode(mode);
    labels.insert(NPU_COUNT_LABEL.into(), "8".into());
    create_with(&cluster.client, (0..count).map(|number| format!("{prefix}-{number}")), &labels, |node| {
        let status = node.status.get_or_insert_default();
        for resources in [&mut status.capacity, &mut status.allocatable].into_iter().filter(|_| mode == "container") {
            resources.get_or_insert_default().insert(ATOM.into(), Quantity("8".into()));
        }
    })
    .await
}

#[tokio::test]
async fn a_healthy_cluster_is_one_row_per_mode_and_few_requests() -> anyhow::Result<()> {
    let bed = Bed::new(30).await?;
    let mark = bed.cluster.mark()?;
    let answer = bed.run("status")?;
    let asked = requests(&mark)?;
    assert_eq!(answer.code, 0, "{}", answer.text);
    assert!(answer.text.contains("30 nodes") && answer.text.contains("v-0"), "{}", answer.text);
    // Configs, DaemonSets, Deployments, leases, and one page of nodes.
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked.iter().all(|one| one.starts_with("list ")), "{asked:?}");

    let rows: Value = serde_json::from_str(&bed.run("status -o json")?.text)?;
    assert_eq!(rows["groups"].as_array().map(Vec::len), Some(2), "{rows}");
    assert_eq!((&rows["ready"], &rows["nodes"], &rows["notReady"]), (&json!(true), &json!(31), &json!(0)));
    assert!(
        bed.run("status --mode container --component driver -l kubernetes.io/hostname=c-3 -o json")?
            .text
            .contains("\"c-3\"")
    );

    for subject in ["node/c-0", "node/v-0", "component/driver", "config"] {
        let mark = bed.cluster.mark()?;
        let answer = bed.run(&format!("explain {subject}"))?;
        assert_eq!(answer.code, 0, "{}", answer.text);
        let asked = requests(&mark)?;
        assert!(
            asked.len() <= 14 && asked.iter().all(|one| one.starts_with("list ") || one.starts_with("get ")),
            "{asked:?}"
        );
    }
    assert_eq!(bed.run("explain node/nobody")?.code, 4);
    assert_eq!(bed.run("explain pod/x")?.code, 2);
    assert!(bed.run("completion bash")?.text.contains("kubectl-accelerator"));
    Ok(())
}

#[tokio::test]
async fn what_was_broken_is_named() -> anyhow::Result<()> {
    let mut bed = Bed::new(4).await?;
    // A taint keeps pods off one node, and ends those that are there.
    let taint = ["taint", "node", "c-1", "example.com/team=a:NoExecute"];
    bed.cluster.kubectl(&taint)?;
    let words = "do not tolerate the taint example.com/team=a:NoExecute of node c-1";
    bed.eventually("explain node/c-1", 1, words).await;
    bed.eventually("explain component/device-plugin", 1, words).await;
    bed.eventually("explain config", 1, words).await;
    let status = bed.eventually("status", 1, "c-1: ").await;
    assert!(status.contains("3 nodes"), "those that are alike are one row:\n{status}");
    bed.cluster.kubectl(&["taint", "node", "c-1", "example.com/team-"])?;
    bed.eventually("status", 0, "4 nodes").await;

    // A typo, and who made it.
    bed.cluster.kubectl(&["label", "--overwrite", "node", "c-2", "rebellions.ai/npu.workload.config=contaner"])?;
    bed.eventually("explain node/c-2", 1, "set by kubectl-label").await;
    bed.cluster.set_mode("c-2", Some("container")).await?;

    // A quota lets no pod be made. What the API server remembers of it is not left to the next test.
    bed.cluster.spoil();
    bed.cluster.create(&json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "none", "namespace": OPERANDS}, "spec": {"hard": {"pods": "1"}}}))?;
    // What the quota controller, which the test bed does not run, would write.
    let status = r#"{"status": {"hard": {"pods": "1"}, "used": {"pods": "1"}}}"#;
    let full = ["-n", OPERANDS, "patch", "quota", "none", "--subresource=status", "--type=merge", "-p", status];
    bed.cluster.kubectl(&full)?;
    bed.cluster.kubectl(&[
        "-n",
        OPERANDS,
        "delete",
        "pod",
        "--field-selector",
        "spec.nodeName=c-3",
        "-l",
        "name=rebellions-metric-exporter",
    ])?;
    let said = bed.eventually("explain node/c-3", 1, "a quota of namespace rebellions is used up").await;
    assert!(said.contains("none, requested: pods=1"), "{said}");
    bed.cluster.kubectl(&["-n", OPERANDS, "delete", "quota", "none"])?;

    // Nobody labels nodes any more.
    let labeler = bed.controllers.iter().position(|one| one.name == NODE_LABELER).expect("node-labeler");
    bed.controllers.remove(labeler).stop()?;
    nodes(&bed.cluster, "late", 1, "container").await?;
    bed.eventually("explain node/late-0", 1, "node-labeler").await;
    Ok(())
}

#[tokio::test]
async fn a_bundle_is_explained_like_the_cluster_and_keeps_secrets_out() -> anyhow::Result<()> {
    let bed = Bed::new(2).await?;
    let mut section = Access::enable_all();
    section["metricExporter"]["env"] = json!([{"name": "A", "value": "hush-hush"}]);
    bed.cluster.configure("default", section).await?;
    bed.cluster.kubectl(&["annotate", "node", "c-0", "example.com/note=hush-hush"])?;
    bed.cluster.kubectl(&["taint", "node", "c-1", "example.com/team=a:NoExecute"])?;
    let words = "do not tolerate the taint example.com/team=a:NoExecute of node c-1";
    bed.eventually("explain node/c-1", 1, words).await;
    let file = bed.file("bundle.tar.gz");
    let mark = bed.cluster.mark()?;
    let answer = bed.run(&format!("collect -o {}", file.display()))?;
    assert_eq!(answer.code, 0, "{}", answer.text);
    let asked = requests(&mark)?;
    assert!(asked.iter().all(|one| one.starts_with("list ") || one.starts_with("get ")), "{asked:?}");
    let said = bed.run(&format!("explain node/c-1 --bundle {}", file.display()))?;
    assert_eq!(said.code, 1, "{}", said.text);
    assert!(said.text.contains(words), "{}", said.text);

    let list = Command::new("tar").args(["-xOzf"]).arg(&file).output()?;
    let all = String::from_utf8_lossy(&list.stdout);
    assert!(list.status.success() && all.contains("\"redaction\"") && all.contains(words), "a bundle with everything");
    assert!(!all.contains("hush-hush"), "a bundle tells no value of a variable and no annotation of others");
    assert_eq!(bed.run(&format!("collect -o {}", file.display()))?.code, 3, "nothing is overwritten");
    Ok(())
}
