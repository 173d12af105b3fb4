//! What the API server takes as an AcceleratorConfig, and what it refuses with which words.

use accelerator_api::{AcceleratorConfig, ObservedConfig};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::{Value, json};
use testbed::Cluster;

/// What an admin could get wrong: path of the field that the answer must name, and the section.
fn wrong() -> Vec<(&'static str, Value)> {
    let vfio = |settings: Value| {
        let mut section = json!({"enabled": true});
        section.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        json!({"vfioManager": section})
    };
    let common = |settings: Value| json!({"daemonsets": settings});
    let mut all = wrong_driver();
    all.extend(vec![
        ("workload.default", json!({"workload": {"default": "vm"}})),
        ("driver.enabled", json!({"driver": {}})),
        ("devicePlugin.enabled", json!({"devicePlugin": {"enabled": "yes"}})),
        ("metricExporter", json!({"metricExporter": true})),
        ("daemonsets.labels", common(json!({"labels": {"-team": "x"}}))),
        ("daemonsets.labels", common(json!({"labels": {"a/b/c": "x"}}))),
        ("daemonsets.labels.team", common(json!({"labels": {"team": "two words"}}))),
        ("daemonsets.labels.team", common(json!({"labels": {"team": "x".repeat(64)}}))),
        ("daemonsets.annotations", common(json!({"annotations": {"a b": "x"}}))),
        ("daemonsets.priorityClassName", common(json!({"priorityClassName": "Not_A_Name"}))),
        ("daemonsets.tolerations[0].operator", common(json!({"tolerations": [{"key": "a", "operator": "Like"}]}))),
        ("daemonsets.tolerations[0].operator", common(json!({"tolerations": [{"value": "a"}]}))),
        (
            "daemonsets.tolerations[0].value",
            common(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]})),
        ),
        ("daemonsets.tolerations[0].value", common(json!({"tolerations": [{"key": "a", "value": "b c"}]}))),
        ("daemonsets.tolerations[0].key", common(json!({"tolerations": [{"key": "a b"}]}))),
        (
            "daemonsets.tolerations[1].effect",
            common(json!({"tolerations": [{"key": "a"}, {"key": "a", "effect": "Never"}]})),
        ),
        (
            "daemonsets.tolerations[0].effect",
            common(json!({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]})),
        ),
        ("daemonsets.updateStrategy.maxUnavailable", common(json!({"updateStrategy": {"maxUnavailable": 0}}))),
        ("daemonsets.updateStrategy.maxUnavailable", common(json!({"updateStrategy": {"maxUnavailable": "0%"}}))),
        ("daemonsets.updateStrategy.maxUnavailable", common(json!({"updateStrategy": {"maxUnavailable": "200%"}}))),
        ("daemonsets.updateStrategy.maxUnavailable", common(json!({"updateStrategy": {"maxUnavailable": "ten"}}))),
        (
            "daemonsets.updateStrategy.maxUnavailable",
            common(json!({"updateStrategy": {"maxUnavailable": 3_000_000_000_u32}})),
        ),
        ("daemonsets.updateStrategy.minReadySeconds", common(json!({"updateStrategy": {"minReadySeconds": -1}}))),
        ("daemonsets.updateStrategy.minReadySeconds", common(json!({"updateStrategy": {"minReadySeconds": 3601}}))),
        ("daemonsets.tolerations[0].key", common(json!({"tolerations": [{"key": format!("{}/b", "a".repeat(254))}]}))),
        ("daemonsets.annotations", common(json!({"annotations": {"a": "x".repeat(260_000)}}))),
        ("daemonsets.kubeletRootDir", common(json!({"kubeletRootDir": "var/lib/kubelet"}))),
        ("daemonsets.kubeletRootDir", common(json!({"kubeletRootDir": "/data/../kubelet"}))),
        ("daemonsets.image.registry", common(json!({"image": {"registry": "https://example.com"}}))),
        ("daemonsets.image.imagePullPolicy", common(json!({"image": {"imagePullPolicy": "Sometimes"}}))),
        ("driver.manager.image.tag", json!({"driver": {"enabled": true, "manager": {"image": {"tag": ":1"}}}})),
        (
            "devicePlugin.giveBack.env[0].name",
            json!({"devicePlugin": {"enabled": true, "giveBack": {"env": [{"name": "A=B"}]}}}),
        ),
        (
            "metricExporter.daemon.resources.limits",
            json!({"metricExporter": {"enabled": true, "daemon": {"resources": {"limits": {"gpu": 1}}}}}),
        ),
        ("vfioManager.resources.limits", vfio(json!({"resources": {"limits": {"cpu": 1, "hugepages-2Mi": "3Mi"}}}))),
        ("vfioManager.resources.limits", vfio(json!({"resources": {"limits": {"cpu": 1, "hugepages-x": "4Mi"}}}))),
        ("vfioManager.image.registry", vfio(json!({"image": {"registry": "https://example.com"}}))),
        ("vfioManager.image.name", vfio(json!({"image": {"name": "Upper/Case"}}))),
        ("vfioManager.image.name", vfio(json!({"image": {"name": "a b"}}))),
        ("vfioManager.image.tag", vfio(json!({"image": {"tag": ":1"}}))),
        ("vfioManager.image.tag", vfio(json!({"image": {"name": "a/b:1", "tag": "2"}}))),
        ("vfioManager.image.digest", vfio(json!({"image": {"digest": "sha256:0123"}}))),
        ("vfioManager.image.imagePullPolicy", vfio(json!({"image": {"imagePullPolicy": "Sometimes"}}))),
        ("vfioManager.resources.limits.memory", vfio(json!({"resources": {"limits": {"memory": "1 Gi"}}}))),
        ("vfioManager.resources.limits.cpu", vfio(json!({"resources": {"limits": {"cpu": -1}}}))),
        ("vfioManager.resources.limits", vfio(json!({"resources": {"limits": {"gpu": 1}}}))),
        ("vfioManager.resources.limits", vfio(json!({"resources": {"limits": {"example.com/device": "500m"}}}))),
        ("vfioManager.resources.limits", vfio(json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}))),
        (
            "vfioManager.resources.requests",
            vfio(json!({"resources": {"requests": {"cpu": "1500m"}, "limits": {"cpu": 1}}})),
        ),
        ("vfioManager.resources.requests", vfio(json!({"resources": {"requests": {"example.com/device": 1}}}))),
        ("vfioManager.env[0].name", vfio(json!({"env": [{"name": ""}]}))),
        ("vfioManager.env[0].name", vfio(json!({"env": [{"name": "A=B"}]}))),
        ("vfioManager.env[0].value", vfio(json!({"env": [{"name": "A", "value": 1}]}))),
        ("vfioManager.env[1]", vfio(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}))),
        ("vfioManager.args", vfio(json!({"args": "--one"}))),
        ("vfioManager.image.name", vfio(json!({"image": {"name": "rebellions/{family}/agent"}}))),
    ]);
    all.extend(wrong_placement());
    all
}

/// What an admin could get wrong about where and how pods of one component run.
fn wrong_placement() -> Vec<(&'static str, Value)> {
    let of = |section: &str, mut settings: Value| {
        settings["enabled"] = json!(true);
        json!({section: settings})
    };
    let driver = |settings: Value| of("driver", settings);
    let terms = |terms: Value| {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        driver(json!({"affinity": {"nodeAffinity": required}}))
    };
    let one = |requirement: Value| terms(json!([{"matchExpressions": [requirement]}]));
    let path = "driver.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let requirement = "driver.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
                       .matchExpressions[0]";
    let key = "driver.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
               .matchExpressions[0].key";
    let too_many: Vec<_> = (0..17).map(|_| json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]})).collect();
    vec![
        ("driver.nodeSelector", driver(json!({"nodeSelector": {"-a": "b"}}))),
        ("driver.nodeSelector", driver(json!({"nodeSelector": {"rebellions.ai/npu.deploy.driver": "true"}}))),
        ("driver.nodeSelector", driver(json!({"nodeSelector": {"rebellions.ai/npu.deploy.device-plugin": "true"}}))),
        ("driver.nodeSelector", driver(json!({"nodeSelector": {"rebellions.ai/npu-driver-pool": "p"}}))),
        ("nfd.nodeSelector.zone", of("nfd", json!({"nodeSelector": {"zone": "a b"}}))),
        ("nfd.nodeSelector.zone", of("nfd", json!({"nodeSelector": {"zone": true}}))),
        (path, terms(json!([]))),
        (path, terms(too_many.into())),
        (path, terms(json!([{"matchExpressions": []}]))),
        (path, terms(json!([{}]))),
        (key, one(json!({"key": "a b", "operator": "Exists"}))),
        (key, one(json!({"key": "", "operator": "Exists"}))),
        (key, one(json!({"key": "rebellions.ai/npu-driver-pool", "operator": "Exists"}))),
        (key, one(json!({"key": "rebellions.ai/npu.deploy.driver", "operator": "DoesNotExist"}))),
        (requirement, one(json!({"key": "a", "operator": "Gt", "values": ["1"]}))),
        (requirement, one(json!({"key": "a", "operator": "In"}))),
        (requirement, one(json!({"key": "a", "operator": "NotIn", "values": []}))),
        (requirement, one(json!({"key": "a", "operator": "Exists", "values": ["b"]}))),
        (requirement, one(json!({"key": "a", "operator": "In", "values": ["b c"]}))),
        ("driver.tolerations[0].operator", driver(json!({"tolerations": [{"value": "a"}]}))),
        ("nfd.updateStrategy.maxSurge", of("nfd", json!({"updateStrategy": {"maxSurge": 0}}))),
        ("nfd.updateStrategy.maxSurge", of("nfd", json!({"updateStrategy": {"maxSurge": "101%"}}))),
        ("metricExporter.hostPort", of("metricExporter", json!({"hostPort": 0}))),
        ("metricExporter.hostPort", of("metricExporter", json!({"hostPort": 65536}))),
        ("metricExporter.hostPort", of("metricExporter", json!({"hostPort": "metrics"}))),
        ("metricExporter.hostPort", of("metricExporter", json!({"hostPort": 50051, "hostNetwork": true}))),
        ("metricExporter.hostNetwork", of("metricExporter", json!({"hostNetwork": "yes"}))),
    ]
}

/// A setting that a component does not have is no setting: kubectl, Flux and Argo CD have the API server refuse it.
#[tokio::test]
async fn a_setting_of_another_component_is_refused_by_its_name() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    for (section, field, value) in [
        ("driver", "updateStrategy", json!({"maxSurge": 1})),
        ("devicePlugin", "updateStrategy", json!({"maxSurge": 1})),
        ("metricExporter", "updateStrategy", json!({"maxSurge": 1})),
        ("vfioManager", "updateStrategy", json!({"maxSurge": 1})),
        ("nfd", "hostPort", json!(9400)),
        ("devicePlugin", "hostNetwork", json!(true)),
        ("vfioManager", "volumes", json!([])),
        ("daemonsets", "nodeSelector", json!({"a": "b"})),
        ("nfd", "affinity", json!({"podAntiAffinity": {}})),
    ] {
        let mut settings = json!({field: value});
        if section != "daemonsets" {
            settings["enabled"] = json!(true);
        }
        let object = json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "wrong"},
                            "spec": {"providers": {"rebellions": {section: settings}}}});
        let refused = format!("{:#}", cluster.create(&object).expect_err("nobody reads it"));
        let name = if field == "affinity" { "podAntiAffinity" } else { field };
        assert!(refused.contains(&format!("{section}.")) && refused.contains(name), "{section}.{field}: {refused}");
    }
    Ok(())
}

/// What an admin could get wrong about the driver alone.
fn wrong_driver() -> Vec<(&'static str, Value)> {
    let driver = |settings: Value| {
        let mut section = json!({"enabled": true});
        section.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        json!({"driver": section})
    };
    let policy = |settings: Value| driver(json!({"upgradePolicy": settings}));
    vec![
        ("driver.mode", driver(json!({"mode": "Preinstalled"}))),
        ("driver.version", driver(json!({"version": "3.0.0:1"}))),
        ("driver.version", driver(json!({"version": "x".repeat(64)}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "{version}-{kernal}-{os}"}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "{version}-{kernel"}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "{version}-{}"}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "-{version}"}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "{version}/{kernel}"}))),
        ("driver.imageTagTemplate", driver(json!({"imageTagTemplate": "x".repeat(129)}))),
        ("driver.image.name", driver(json!({"image": {"name": "rebellions/{kernel}/rbln-driver"}}))),
        ("driver.image.name", driver(json!({"image": {"name": "rebellions/{family/rbln-driver"}}))),
        ("driver.manager.image.name", driver(json!({"manager": {"image": {"name": "rebellions/{family}/manager"}}}))),
        ("driver.upgradePolicy.maxParallel", policy(json!({"maxParallel": 0}))),
        ("driver.upgradePolicy.maxParallel", policy(json!({"maxParallel": "101%"}))),
        ("driver.upgradePolicy.maxUnavailable", policy(json!({"maxUnavailable": "0%"}))),
        ("driver.upgradePolicy.maxUnavailable", policy(json!({"maxUnavailable": "many"}))),
        ("driver.upgradePolicy.failureThreshold", policy(json!({"failureThreshold": -1}))),
        ("driver.upgradePolicy.failureThreshold", policy(json!({"failureThreshold": "101%"}))),
        ("driver.upgradePolicy.failureThreshold", policy(json!({"failureThreshold": 2_147_483_648_u32}))),
        ("driver.upgradePolicy.onFailure", policy(json!({"onFailure": "Rollback"}))),
        ("driver.upgradePolicy.onFailure", policy(json!({"onFailure": "Rollback", "autoUpgrade": false}))),
        ("driver.upgradePolicy.onFailure", policy(json!({"onFailure": "Abort", "autoUpgrade": true}))),
        ("driver.upgradePolicy.validationTimeout", policy(json!({"validationTimeout": "61m"}))),
        ("driver.upgradePolicy.validationTimeout", policy(json!({"validationTimeout": "0s"}))),
        ("driver.upgradePolicy.validationTimeout", policy(json!({"validationTimeout": "10"}))),
        ("driver.upgradePolicy.validationTimeout", policy(json!({"validationTimeout": "ten minutes"}))),
        ("driver.upgradePolicy.validationTimeout", policy(json!({"validationTimeout": 600}))),
        ("driver.upgradePolicy.eviction.timeout", policy(json!({"eviction": {"timeout": "0s"}}))),
        ("driver.upgradePolicy.eviction.timeout", policy(json!({"eviction": {"timeout": "25h"}}))),
        ("driver.upgradePolicy.eviction.timeout", policy(json!({"eviction": {"timeout": "30m1h"}}))),
        ("driver.upgradePolicy.eviction.force", policy(json!({"eviction": {"force": "yes"}}))),
        ("driver.upgradePolicy.waitForJobs.timeout", policy(json!({"waitForJobs": {"timeout": "721h"}}))),
        ("driver.upgradePolicy.waitForJobs.timeout", policy(json!({"waitForJobs": {"timeout": "-1s"}}))),
        ("driver.upgradePolicy.waitForJobs.podSelector", policy(json!({"waitForJobs": {"podSelector": "app=a b"}}))),
        ("driver.upgradePolicy.waitForJobs.podSelector", policy(json!({"waitForJobs": {"podSelector": "app in a,b"}}))),
        ("driver.upgradePolicy.waitForJobs.podSelector", policy(json!({"waitForJobs": {"podSelector": ",app"}}))),
        ("driver.upgradePolicy.drain.podSelector", policy(json!({"drain": {"podSelector": "=a"}}))),
        ("driver.upgradePolicy.paused", policy(json!({"paused": "true"}))),
    ]
}

#[tokio::test]
async fn a_wrong_config_is_refused_by_the_name_of_its_field() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let api = Api::<DynamicObject>::all_with(cluster.client.clone(), &ApiResource::erase::<AcceleratorConfig>(&()));
    for (field, section) in wrong() {
        let object = json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "wrong"},
                            "spec": {"providers": {"rebellions": section}}});
        // Not with typed objects, which could not say half of this.
        match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
            Err(kube::Error::Api(status)) => {
                let path = format!("spec.providers.rebellions.{field}");
                assert!(status.message.contains(&path), "{section} must be refused for {path}: {}", status.message);
            }
            other => panic!("{section} must be refused: {other:?}"),
        }
    }
    let refused = cluster.configure_spec("wrong", json!({})).await.expect_err("providers are required");
    assert!(refused.to_string().contains("spec.providers: Required value"), "{refused}");
    Ok(())
}

/// What the predecessor's schema took and could ever have worked.
#[tokio::test]
async fn what_the_predecessor_took_is_taken() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let every_field = json!({
        "daemonsets": {
            "labels": {"team": "", "example.com/x": "Y_1.z"},
            "annotations": {"Example.com/Mixed": "any text at all: {}\n", "plain": ""},
            "tolerations": [
                {"operator": "Exists"},
                {"key": "example.com/a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": -1},
                {"key": "k", "effect": ""},
                {"key": "k", "operator": "", "value": ""},
            ],
            "priorityClassName": "",
        },
        "driver": {"enabled": true},
        "devicePlugin": {"enabled": false},
        "metricExporter": {"enabled": true},
        "nfd": {"enabled": true},
        "vfioManager": {
            "enabled": true,
            "image": {"registry": "docker.io", "name": "redhat/ubi8", "tag": "8.10", "imagePullPolicy": "IfNotPresent",
                      "imagePullSecrets": ["drivercred", "drivercred", ""]},
            "resources": {"limits": {"memory": "200Mi", "cpu": 1, "example.com/device": "2"},
                          "requests": {"cpu": "100m", "memory": 1000, "example.com/device": 2}},
            "env": [{"name": "A.b-C_1", "value": "$(OTHER) x"}, {"name": "1 odd name", "value": ""}, {"name": "EMPTY"}],
        },
    });
    let odd_images = [
        json!({"registry": "", "name": "ubi8", "tag": ""}),
        json!({"name": "docker.io/redhat/ubi8", "tag": "8.10"}),
        json!({"name": "redhat/ubi8:8.10"}),
        json!({"registry": "registry.example.com:5000/a/b", "name": "under_score/dou--ble", "tag": "_x-1.2"}),
        json!({"imagePullPolicy": ""}),
    ];
    cluster.configure("taken", every_field).await?;
    for image in odd_images {
        let section = json!({"vfioManager": {"enabled": true, "image": image, "resources": {"limits": {}}, "env": []}});
        cluster.configure("taken", section.clone()).await.map_err(|error| anyhow::anyhow!("{section}: {error}"))?;
    }
    cluster.configure_spec("taken", json!({"providers": {}})).await?;
    let bare = json!({"apiVersion": "petasus.io/v1beta1", "kind": "AcceleratorConfig", "metadata": {"name": "bare"}});
    cluster.create(&bare)?;
    Ok(())
}

/// Every setting of the driver, with values on the edge of what is taken.
#[tokio::test]
async fn settings_of_the_driver_are_taken_and_read() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let policies = [
        json!({}),
        json!({"autoUpgrade": true, "maxParallel": 1, "maxUnavailable": "1%", "failureThreshold": 0, "onFailure": "Rollback",
               "paused": true, "validationTimeout": "1h", "waitForJobs": {"podSelector": "", "timeout": "0s"},
               "eviction": {"timeout": "24h", "force": true, "deleteEmptyDirData": true},
               "drain": {"enabled": true, "podSelector": "!example.com/a,b, c = d,e in (f, g),h notin (),i!=j,k=="}}),
        json!({"autoUpgrade": false, "maxParallel": "100%", "maxUnavailable": 2_147_483_647, "failureThreshold": "0%",
               "onFailure": "Pause", "validationTimeout": "1s", "waitForJobs": {"podSelector": "a", "timeout": "720h"},
               "eviction": {"timeout": "1h30m10s"}, "drain": null}),
        json!({"onFailure": "", "eviction": null, "waitForJobs": null}),
    ];
    let images = [
        json!({"version": "", "imageTagTemplate": "", "mode": "", "image": {}}),
        json!({"version": "3.2.2", "imageTagTemplate": "{version}-{kernel}-{os}-{arch}_{family}", "mode": "managed"}),
        json!({"imageTagTemplate": "{version}", "mode": "preinstalled", "image": {"name": "rebellions/{family}/rbln-driver"}}),
        json!({"imageTagTemplate": "fixed", "image": {"name": "example.com:5000/{family}-x/rbln.{family}:1"}}),
    ];
    for (policy, image) in policies.iter().zip(images) {
        let mut section = json!({"enabled": true, "upgradePolicy": policy});
        section.as_object_mut().expect("an object").extend(image.as_object().expect("an object").clone());
        let driver = json!({"driver": section});
        cluster.configure("taken", driver).await.map_err(|error| anyhow::anyhow!("{section}: {error}"))?;
        let config = Api::<ObservedConfig>::all(cluster.client.clone()).get("taken").await?;
        let rebellions = config.spec.map_err(anyhow::Error::msg)?.providers.rebellions.expect("a section");
        assert!(rebellions.driver.is_some_and(|driver| driver.upgrade_policy.is_some()), "{section}");
    }
    Ok(())
}

/// Whatever the schema takes, the API server takes as a DaemonSet, or the component says so. Here: the odd but valid.
#[tokio::test]
async fn what_is_taken_can_be_applied() -> anyhow::Result<()> {
    let cluster = Cluster::lease().await;
    let _controller = cluster.start("rebellions-vfio-manager-controller").await;
    let sections = [
        json!({"env": [{"name": "1 odd name", "value": "$(X)"}, {"name": "~!@#", "value": ""}], "args": ["", "--x"]}),
        json!({"image": {"name": "ubi8:8.10", "imagePullSecrets": ["a", "a", "", "b"]}}),
        json!({"image": {"tag": "1", "digest": format!("sha256:{}", "0".repeat(64))}}),
        json!({"resources": {"limits": {"cpu": "1e3", "memory": "0.5Gi", "ephemeral-storage": "1.5M", "a.b/c": "1k"},
                             "requests": {"cpu": "+1.", "memory": ".25Gi", "a.b/c": 1000}}}),
        json!({"resources": {"limits": {"hugepages-2Mi": "4Mi", "cpu": 0}, "requests": {"hugepages-2Mi": "4Mi"}}}),
        json!({"nodeSelector": {"example.com/A_b": "", "zone": "X_1.y"}, "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "In", "values": ["", "B_1"]}, {"key": "b", "operator": "Exists", "values": null}]},
                {"matchExpressions": null}]}}},
            "tolerations": [{"operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 0}]}),
        json!({"nodeSelector": null, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": null}}}, "tolerations": null}),
        json!({"affinity": {"nodeAffinity": null}}),
    ];
    for (index, settings) in sections.into_iter().enumerate() {
        let mut section = json!({"enabled": true});
        section.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        let marker = format!("round-{index}");
        let labels = json!({"labels": {"example.com/round": marker}});
        cluster.configure("odd", json!({"daemonsets": labels, "vfioManager": section})).await?;
        testbed::eventually(&format!("{settings} to be applied"), async || {
            let condition = cluster.condition("odd", "RebellionsVfioManagerReady").await;
            let applied =
                cluster.daemon_set("vfio-manager").await["spec"]["template"]["metadata"]["labels"]["example.com/round"]
                    .clone();
            testbed::Wait::until((applied, condition), |(applied, condition)| {
                *applied == *marker && condition.starts_with("True/")
            })
        })
        .await;
        // Applied once and recognised: not again and again.
        let mark = cluster.mark()?;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        let writes: Vec<_> = mark.our_writes()?.into_iter().filter(|write| write.resource == "daemonsets").collect();
        assert!(writes.is_empty(), "{settings}: {writes:?}");
    }
    Ok(())
}
