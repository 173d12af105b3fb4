//! The test bed itself: that simulated machines, their kubelets and workloads do what scenarios rely on.

use std::time::Duration;

use accelerator_api::contract::{DRIVER, DRIVER_UPGRADE_STATE_LABEL};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use testbed::access::OPERANDS;
use testbed::nodes::ATOM;
use testbed::{Access, Cluster, Kubelets, Leased, Recording, Trouble, Wait, Workload, eventually, workload};

/// Driver and device plugin as DaemonSets of nobody, so that nothing but the test bed is looked at.
fn operands(access: &Access, tag: &str) -> anyhow::Result<()> {
    for (name, strategy) in [("rebellions-driver", "OnDelete"), ("rebellions-device-plugin", "RollingUpdate")] {
        let labels = json!({"name": name, "app.kubernetes.io/name": name});
        access.create(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": OPERANDS},
            "spec": {
                "selector": {"matchLabels": {"name": name}},
                "updateStrategy": {"type": strategy},
                "template": {"metadata": {"labels": labels}, "spec": {
                    "tolerations": [{"operator": "Exists"}],
                    "initContainers": [{"name": "manager", "image": "registry.example/manager:1"}],
                    "containers": [{"name": "main", "image": format!("registry.example/{name}:{tag}")}],
                }},
            },
        }))?;
    }
    Ok(())
}

struct Bed {
    kubelets: Kubelets,
    nodes: Vec<String>,
    /// Last: it is given back only when its kubelets have ended.
    cluster: Leased,
}

impl Bed {
    /// Machines with driver and device plugin, and everything advertised.
    async fn new(count: usize) -> anyhow::Result<Self> {
        let cluster = Cluster::lease().await;
        let kubelets = Kubelets::start(&cluster).await?;
        let nodes = cluster.machines("m").count(count).create().await?;
        operands(&cluster, "3.0.0")?;
        let bed = Self { kubelets, nodes, cluster };
        for node in &bed.nodes {
            bed.expect_npus(node, "8").await;
        }
        Ok(bed)
    }

    /// The driver's pod on a node, as JSON.
    async fn driver(&self, node: &str) -> Value {
        let params = ListParams::default()
            .labels(&format!("app.kubernetes.io/name={}", DRIVER.operand))
            .fields(&format!("spec.nodeName={node}"));
        let pods = self.cluster.namespaced::<Pod>(OPERANDS).list(&params).await.expect("pods");
        pods.items.into_iter().next().map_or(Value::Null, |pod| json!(pod))
    }

    /// What the driver's main container on a node waits for, and how often it was restarted.
    async fn waits(&self, node: &str) -> (String, u64) {
        let container = &self.driver(node).await["status"]["containerStatuses"][0];
        let reason = container["state"]["waiting"]["reason"].as_str().unwrap_or_default();
        (reason.to_owned(), container["restartCount"].as_u64().unwrap_or_default())
    }

    async fn expect_npus(&self, node: &str, count: &str) {
        eventually(&format!("{node} to have {count} NPUs"), async || {
            let node = self.cluster.all::<Node>().get(node).await.expect("a node");
            let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
            Wait::until(allocatable.get(ATOM).map(|count| count.0.clone()), |seen| seen.as_deref() == Some(count))
        })
        .await;
    }

    /// As an admin replaces the driver of a node: a new tag, and the old pod is deleted.
    async fn replace(&self, node: &str, tag: &str) -> anyhow::Result<()> {
        let image = format!("main=registry.example/rebellions-driver:{tag}");
        self.cluster.kubectl(&["-n", OPERANDS, "set", "image", "daemonset/rebellions-driver", &image])?;
        let name = self.driver(node).await["metadata"]["name"].as_str().expect("a driver").to_owned();
        self.cluster.kubectl(&["-n", OPERANDS, "delete", "pod", &name, "--wait=false"]).map(drop)
    }

    async fn expect_workloads(&self, names: &[&str]) {
        let pods = self.cluster.namespaced::<Pod>(workload::NAMESPACE);
        eventually(&format!("the workloads {names:?}"), async || {
            let there = pods.list_metadata(&ListParams::default()).await.expect("pods").items;
            Wait::until(there.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), |there| *there == names)
        })
        .await;
    }
}

#[tokio::test]
async fn machines_have_the_system_that_they_were_given() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    cluster.machines("u").count(2).create().await?;
    cluster.machines("r").kernel("5.14.0-427.el9.aarch64").os("rhel", "9.4").arch("arm64").create().await?;
    cluster.machines("x").kernel("6.8.0-60-generic").os("ubuntu", "24.04").without_discovery().create().await?;
    let line = async |node: &str| {
        let node = cluster.all::<Node>().get(node).await.expect("a node");
        let discovered = node.labels().get("feature.node.kubernetes.io/kernel-version.full").cloned();
        let arch = node.labels()["kubernetes.io/arch"].clone();
        let info = node.status.and_then(|status| status.node_info).expect("its system");
        [info.kernel_version, info.os_image, info.architecture, arch, discovered.unwrap_or_default()].join(" | ")
    };
    let ubuntu = "5.15.0-130-generic | Ubuntu 22.04.5 LTS | amd64 | amd64 | 5.15.0-130-generic";
    assert_eq!([line("u-0.sim").await, line("u-1.sim").await], [ubuntu, ubuntu]);
    let kernel = "5.14.0-427.el9.aarch64";
    let rhel = format!("{kernel} | Red Hat Enterprise Linux 9.4 (Plow) | arm64 | arm64 | {kernel}");
    assert_eq!(line("r-0.sim").await, rhel);
    assert_eq!(line("x-0.sim").await, "6.8.0-60-generic | Ubuntu 24.04.3 LTS | amd64 | amd64 | ");
    Ok(())
}

#[tokio::test]
async fn npus_are_allocatable_while_the_driver_and_the_device_plugin_are_ready() -> anyhow::Result<()> {
    let bed = Bed::new(2).await?;
    let [replaced, other] = [&bed.nodes[0], &bed.nodes[1]];
    let pods = bed.cluster.pods().await;
    bed.kubelets.trouble(Trouble::slow("rebellions-driver:3.1.0", Duration::from_secs(3)));
    bed.replace(replaced, "3.1.0").await?;
    bed.expect_npus(replaced, "0").await;
    bed.expect_npus(replaced, "8").await;
    bed.expect_npus(other, "8").await;
    let driver = |node: &str| format!("driver@{node}");
    let after = bed.cluster.pods().await;
    assert_ne!(after[&driver(replaced)], pods[&driver(replaced)]);
    assert_eq!(after[&driver(other)], pods[&driver(other)]);

    bed.cluster.kubectl(&["-n", OPERANDS, "delete", "daemonset", "rebellions-device-plugin"])?;
    bed.expect_npus(replaced, "0").await;
    bed.expect_npus(other, "0").await;
    Ok(())
}

#[tokio::test]
async fn an_image_is_missing_until_it_appears() -> anyhow::Result<()> {
    let bed = Bed::new(1).await?;
    let node = &bed.nodes[0];
    bed.kubelets.trouble(Trouble::image_missing(":3.1.0"));
    bed.replace(node, "3.1.0").await?;
    eventually("the pull to back off", async || {
        Wait::until(bed.waits(node).await.0, |reason| reason == "ImagePullBackOff")
    })
    .await;
    let status = &bed.driver(node).await["status"];
    let waiting = &status["containerStatuses"][0]["state"]["waiting"]["message"];
    let image = "registry.example/rebellions-driver:3.1.0";
    let words = format!("failed to resolve reference \"{image}\": {image}: not found");
    assert!(waiting.as_str().is_some_and(|message| message.ends_with(&words)), "{waiting}");
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0, "init containers ran before");
    bed.expect_npus(node, "0").await;
    bed.kubelets.heal();
    bed.expect_npus(node, "8").await;
    Ok(())
}

#[tokio::test]
async fn a_driver_crashes_on_chosen_machines_with_its_new_image_only() -> anyhow::Result<()> {
    let bed = Bed::new(3).await?;
    let (bad, good) = bed.nodes.split_first().expect("nodes");
    bed.kubelets.trouble(Trouble::crash(":3.1.0", 17).on(&[bad]));
    for node in &bed.nodes {
        bed.replace(node, "3.1.0").await?;
    }
    eventually("restarts to be counted", async || {
        let (reason, restarts) = bed.waits(bad).await;
        Wait::until((reason, restarts), |(reason, restarts)| reason == "CrashLoopBackOff" && *restarts >= 2)
    })
    .await;
    let last = bed.driver(bad).await["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"].clone();
    assert_eq!(last, 17);
    for node in good {
        bed.expect_npus(node, "8").await;
        assert_eq!(bed.waits(node).await, (String::new(), 0));
    }
    bed.kubelets.heal();
    bed.expect_npus(bad, "8").await;
    Ok(())
}

/// The vendor's pods stay where they are, as on a real machine: nothing ends while nobody is there to end it.
#[tokio::test]
async fn nothing_moves_on_a_machine_that_is_down() -> anyhow::Result<()> {
    let bed = Bed::new(1).await?;
    let node = &bed.nodes[0];
    bed.kubelets.power_off(node).await?;
    let before = bed.driver(node).await["metadata"]["uid"].clone();
    bed.replace(node, "3.1.0").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let driver = bed.driver(node).await;
    assert_eq!(driver["metadata"]["uid"], before);
    assert!(driver["metadata"]["deletionTimestamp"].is_string(), "it is asked to end");
    bed.expect_npus(node, "8").await;

    bed.kubelets.power_on(node).await?;
    eventually("the driver to be replaced", async || {
        Wait::until(bed.driver(node).await["metadata"]["uid"].clone(), |uid| uid.is_string() && *uid != before)
    })
    .await;
    bed.expect_npus(node, "8").await;
    Ok(())
}

#[tokio::test]
async fn a_reboot_changes_the_boot_id_and_the_kernel_and_starts_containers_again() -> anyhow::Result<()> {
    let bed = Bed::new(1).await?;
    let node = &bed.nodes[0];
    let info = async || {
        let node = bed.cluster.all::<Node>().get(node).await.expect("a node");
        let label = node.labels()["feature.node.kubernetes.io/kernel-version.full"].clone();
        let info = node.status.and_then(|status| status.node_info).expect("its system");
        (info.boot_id, info.kernel_version, label)
    };
    let (boot_id, ..) = info().await;
    bed.kubelets.trouble(Trouble::slow(":3.0.0", Duration::from_secs(2)));
    bed.kubelets.reboot(node, Some("6.8.0-60-generic"), Duration::from_millis(500)).await?;
    bed.expect_npus(node, "0").await;
    bed.expect_npus(node, "8").await;
    let (next, kernel, label) = info().await;
    assert_ne!(next, boot_id);
    assert_eq!((kernel.as_str(), label.as_str()), ("6.8.0-60-generic", "6.8.0-60-generic"));
    assert_eq!(bed.waits(node).await, (String::new(), 1), "the same pod, started again");
    Ok(())
}

#[tokio::test]
async fn a_budget_that_never_allows_refuses_every_eviction() -> anyhow::Result<()> {
    let bed = Bed::new(1).await?;
    let node = &bed.nodes[0];
    Workload::npu("kept", node).never_disrupted().create(&bed.cluster).await?;
    Workload::npu("free", node).create(&bed.cluster).await?;
    Workload::npu("bare", node).bare().never_disrupted().create(&bed.cluster).await?;
    for kept in ["kept", "bare"] {
        let refusal = bed.cluster.evict(kept).await.expect_err("the budget");
        assert!(matches!(&refusal, kube::Error::Api(status) if status.code == 429), "{refusal}");
    }
    bed.cluster.evict("free").await?;
    bed.expect_workloads(&["bare", "kept"]).await;
    bed.cluster.unprotect("kept")?;
    eventually("the budget to be forgotten", async || {
        Wait::until(bed.cluster.evict("kept").await.is_ok(), |evicted| *evicted)
    })
    .await;
    bed.expect_workloads(&["bare"]).await;
    Ok(())
}

#[tokio::test]
async fn workloads_are_what_their_names_say() -> anyhow::Result<()> {
    let bed = Bed::new(1).await?;
    let node = &bed.nodes[0];
    Workload::npu("init", node).in_init_container().create(&bed.cluster).await?;
    Workload::npu("claim", node).by_claim().create(&bed.cluster).await?;
    Workload::npu("dir", node).with_empty_dir().create(&bed.cluster).await?;
    Workload::npu("finalized", node).with_finalizer().create(&bed.cluster).await?;
    Workload::npu("stuck", node).never_ends().create(&bed.cluster).await?;
    Workload::npu("slow", node).ends_after("3s").create(&bed.cluster).await?;
    Workload::plain("plain", node).bare().create(&bed.cluster).await?;
    let get =
        async |name: &str| json!(bed.cluster.namespaced::<Pod>(workload::NAMESPACE).get(name).await.expect("a pod"));
    let (init, claim) = (get("init").await, get("claim").await);
    assert_eq!(init["spec"]["initContainers"][0]["resources"]["limits"][ATOM], "1");
    assert!(init["spec"]["containers"][0]["resources"].get("limits").is_none());
    assert_eq!(init["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(claim["spec"]["resourceClaims"][0]["resourceClaimName"], "claim");
    let driver = "jsonpath={.status.allocation.devices.results[0].driver}";
    assert_eq!(bed.cluster.kubectl(&["get", "resourceclaim", "claim", "-o", driver])?, workload::DRA_DRIVER);
    assert!(get("plain").await["metadata"]["ownerReferences"].is_null());

    for name in ["finalized", "stuck", "slow", "dir"] {
        bed.cluster.evict(name).await?;
    }
    bed.expect_workloads(&["claim", "finalized", "init", "plain", "slow", "stuck"]).await;
    bed.expect_workloads(&["claim", "finalized", "init", "plain", "stuck"]).await;
    assert_eq!(get("finalized").await["status"]["phase"], "Failed", "its containers have ended");
    assert_eq!(get("stuck").await["status"]["phase"], "Running");
    bed.cluster.release("finalized").await?;
    bed.expect_workloads(&["claim", "init", "plain", "stuck"]).await;
    Ok(())
}

/// A person upgrades two of three machines by hand; the record tells it as it was.
#[tokio::test]
async fn a_recording_has_every_moment_and_every_request() -> anyhow::Result<()> {
    let bed = Bed::new(3).await?;
    let [first, second, third] = [&bed.nodes[0], &bed.nodes[1], &bed.nodes[2]];
    Workload::npu("work", first).create(&bed.cluster).await?;
    bed.kubelets.trouble(Trouble::slow(":3.1.0", Duration::from_secs(1)));
    let recording = Recording::start(&bed.cluster).await?;
    for node in [first, second] {
        bed.cluster.kubectl(&["cordon", node])?;
        bed.cluster.label(node, DRIVER_UPGRADE_STATE_LABEL, Some("Cordoned")).await?;
        if node == first {
            bed.cluster.evict("work").await?;
            bed.expect_workloads(&[]).await;
        }
        bed.replace(node, "3.1.0").await?;
        bed.expect_npus(node, "0").await;
        bed.expect_npus(node, "8").await;
        bed.cluster.label(node, DRIVER_UPGRADE_STATE_LABEL, Some("Done")).await?;
        bed.cluster.kubectl(&["uncordon", node])?;
    }
    bed.kubelets.power_off(third).await?;
    bed.kubelets.power_on(third).await?;
    let history = recording.stop(&bed.cluster).await?;
    assert_eq!(history.order(), [first.clone(), second.clone()]);
    assert_eq!(history.states(first), ["Cordoned", "Done"]);
    assert_eq!(history.states(third), Vec::<String>::new());
    let most = [history.most_unavailable(), history.most_unschedulable(), history.most_under_way()];
    assert!(most.iter().all(|nodes| nodes.len() == 1), "{most:?}");
    assert_eq!(history.end().unavailable(), Vec::<String>::new());
    let asked = history.requests.iter().filter(|request| request.is_eviction() && request.name == "work");
    assert_eq!(asked.map(|request| request.code).collect::<Vec<_>>(), [201]);
    // Nothing of it was done by the driver controller.
    assert_eq!(history.violations(1, 1), Vec::<String>::new());
    assert_eq!((history.writes().len(), history.evictions().len(), history.events(first)), (0, 0, 0));
    Ok(())
}

/// What the test bed takes for driver and device plugin is what this operator deploys.
#[tokio::test]
async fn the_operator_brings_npus_to_machines() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let kubelets = Kubelets::start(&cluster).await?;
    let controllers = cluster.start_all().await;
    let nodes = cluster.machines("m").count(2).create().await?;
    cluster.configure("default", Access::enable(&["driver", "device-plugin"])).await?;
    cluster.expect_ready("default").await;
    let bed = Bed { kubelets, nodes, cluster };
    for node in &bed.nodes {
        bed.expect_npus(node, "8").await;
    }
    bed.cluster.configure("default", Access::enable(&["device-plugin"])).await?;
    for node in &bed.nodes {
        bed.expect_npus(node, "0").await;
    }
    drop(controllers);
    Ok(())
}
