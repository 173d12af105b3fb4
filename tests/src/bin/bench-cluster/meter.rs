//! Measures a phase: requests, bytes and processor time, of our programs and of the control plane.

use std::collections::BTreeMap;
use std::time::Instant;

use testbed::audit::{Mark, Request};
use testbed::{Cluster, ControlPlane, Controller, say};

use crate::machine::Usage;
use crate::measure::{Count, Run, Work};

/// A control plane, its processes, and our programs that run now.
pub struct Bench {
    pub cluster: Cluster,
    pub controllers: Vec<Controller>,
    processes: Vec<(&'static str, u32)>,
}

/// The beginning of a phase.
pub struct Meter {
    mark: Mark,
    begun: Instant,
    cpu: Vec<f64>,
    /// Processor seconds and received bytes of each of our programs, by process id.
    own: BTreeMap<u32, (f64, f64)>,
}

impl Bench {
    pub async fn connect(control_plane: ControlPlane) -> anyhow::Result<Self> {
        let processes = control_plane.process_ids();
        Ok(Self { cluster: Cluster::connect(control_plane).await?, controllers: vec![], processes })
    }

    /// Stops every program of ours and starts it again.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        for controller in std::mem::take(&mut self.controllers) {
            let name = controller.name;
            controller.stop()?;
            self.controllers.push(Controller::start_shipped(&self.cluster, name).await?);
        }
        Ok(())
    }

    /// Begins a phase.
    pub async fn meter(&mut self) -> anyhow::Result<Meter> {
        let own = self.own().await?;
        Ok(Meter { mark: self.cluster.mark()?, begun: Instant::now(), cpu: self.cpu(), own })
    }

    /// Ends a phase, and keeps what it took. What a program that was started meanwhile took before counts too.
    pub async fn stop(&mut self, meter: &Meter, phase: &str, run: &mut Run) -> anyhow::Result<Work> {
        let seconds = meter.begun.elapsed().as_secs_f64();
        let cpu = self.processes.iter().zip(self.cpu()).zip(&meter.cpu);
        let cpu = cpu.map(|(((name, _), now), before)| ((*name).to_owned(), now - before)).collect();
        let own = self.own().await?;
        let before = |id: &u32| meter.own.get(id).copied().unwrap_or_default();
        let ours = |request: &Request| request.is_ours() && request.resource != "leases";
        let requests: Vec<_> = meter.mark.requests()?.into_iter().filter(ours).collect();
        let work = Work {
            phase: phase.into(),
            seconds,
            requests: requests.len(),
            writes: requests.iter().filter(|request| request.is_write()).count(),
            received_kb: own.iter().map(|(id, now)| now.1 - before(id).1).sum::<f64>() / 1e3,
            own_cpu: own.iter().map(|(id, now)| now.0 - before(id).0).sum(),
            cpu,
        };
        say(format!(
            "  {phase}: {seconds:.2} s, {} requests, {} of them writes, {:.1} KB received, processor seconds: ours {:.2}, {:.2?}",
            work.requests, work.writes, work.received_kb, work.own_cpu, work.cpu
        ));
        let mut counts = BTreeMap::new();
        for request in requests {
            *counts.entry((request.user, format!("{} {}", request.verb, request.resource))).or_insert(0) += 1;
        }
        let count = |((client, request), times)| Count { phase: phase.into(), client, request, times };
        run.requests.extend(counts.into_iter().map(count));
        run.work.push(work.clone());
        Ok(work)
    }

    fn cpu(&self) -> Vec<f64> {
        self.processes.iter().map(|(_, id)| Usage::of(*id).cpu_seconds).collect()
    }

    async fn own(&mut self) -> anyhow::Result<BTreeMap<u32, (f64, f64)>> {
        let mut own = BTreeMap::new();
        for controller in &mut self.controllers {
            let id = controller.process().id();
            let received = controller.metric("accelerator_api_received_bytes_total", "").await?;
            own.insert(id, (Usage::of(id).cpu_seconds, received));
        }
        Ok(own)
    }
}
