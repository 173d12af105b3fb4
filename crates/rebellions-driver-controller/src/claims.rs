//! Which resource claims are for NPUs. They are read once each, and only those of pods on nodes whose driver is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use accelerator_api::contract::DRA_DRIVER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Request;
use serde::Deserialize;

use crate::pods::Pod;

/// What is known of claims, by namespace and name.
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct Claims {
    client: Client,
    known: BTreeMap<(String, String), bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Claim {
    metadata: ObjectMeta,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    allocation: Option<Allocation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Allocation {
    devices: Devices,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Devices {
    results: Vec<Device>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    driver: String,
}

impl Claim {
    fn is_for_npus(&self) -> bool {
        let devices = self.status.allocation.iter().flat_map(|allocation| &allocation.devices.results);
        self.metadata.name.is_some() && devices.into_iter().any(|device| device.driver == DRA_DRIVER)
    }
}

impl Claims {
    /// Nothing is known so far.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, known: BTreeMap::new() }
    }

    /// Reads the claims of these pods that are not known yet, and forgets the others. A claim that cannot be read is not for NPUs:
    /// its pod could not hold one, or the API server does not know claims at all. Returns the claims for NPUs.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn of(&mut self, pods: &[Arc<Pod>]) -> Result<BTreeSet<(String, String)>, kube::Error> {
        let wanted: BTreeSet<(String, String)> = pods
            .iter()
            .flat_map(|pod| {
                let namespace = pod.full_name().namespace;
                pod.claims().map(move |claim| (namespace.clone(), claim.to_owned())).collect::<Vec<_>>()
            })
            .collect();
        self.known.retain(|claim, _| wanted.contains(claim));
        for claim in &wanted {
            if !self.known.contains_key(claim) {
                let is_for_npus = self.read(claim).await?;
                self.known.insert(claim.clone(), is_for_npus);
            }
        }
        Ok(self.known.iter().filter(|(_, is_for_npus)| **is_for_npus).map(|(claim, _)| claim.clone()).collect())
    }

    async fn read(&self, (namespace, name): &(String, String)) -> Result<bool, kube::Error> {
        let path = format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims");
        let mut request =
            Request::new(path).get(name, &kube::api::GetParams::default()).map_err(kube::Error::BuildRequest)?;
        request.extensions_mut().insert("get");
        match self.client.request::<Claim>(request).await {
            Ok(claim) => Ok(claim.is_for_npus()),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => Ok(false),
            Err(error) => Err(error),
        }
    }
}
