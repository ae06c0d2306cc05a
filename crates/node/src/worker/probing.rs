//! What a worker asks its containers, and what it makes of the answers.

use std::sync::Arc;

use super::{Worker, uid};
use crate::pod::{ContainerType, EndReason, Life};
use crate::probes::{ContainerReport, Loopback, ProbeTarget, Probes, Report, Reporter, watch as ask};

impl Worker {
    pub(super) fn begin_probes(&mut self, name: &str, id: &str, was_ready: bool) {
        let Some(container) = self.container(name) else { return };
        let kind = self.container_type(name);
        let probes = if kind == ContainerType::Init { Probes::default() } else { Probes::of(&container) };
        let seen = self.seen.container_mut(name);
        seen.started = was_ready || probes.starts_at_once();
        seen.ready = was_ready || (seen.started && probes.ready_at_once());
        let Some(info) = self.seen.sandbox.done() else { return };
        let Ok(container_id) = knoll_container::protocol::ContainerId::new(id) else { return };
        if probes.is_empty() {
            return;
        }
        let address = if info.host_network { self.shared.config.address } else { info.address };
        let monitor = self.shared.monitor.changes();
        let sandbox = knoll_container::protocol::SandboxId::new(uid(&self.pod)).ok().filter(|_| !info.host_network);
        let crowd = self.shared.crowd.clone();
        let loopback =
            sandbox.and_then(|id| Loopback::of(&self.pod, &container, address, id, monitor.clone(), crowd.clone()));
        let loopback = loopback.map(Arc::new);
        let on_host = info.host_network;
        let target =
            ProbeTarget { address: address.into(), container: container_id, monitor, loopback, on_host, crowd };
        let is_another_attempt = self.seen.containers.get(name).is_some_and(|c| c.restarts > 0);
        let (container, id, to) = (name.to_owned(), id.to_owned(), self.reports.0.clone());
        let report = Reporter { container, id, is_another_attempt, to };
        let key = name.to_owned();
        let asking = self.asking.spawn(ask(probes, target, was_ready, report));
        if let Some(old) = self.probes.insert(key, asking) {
            old.abort();
        }
    }

    /// Begins to ask those that ran before the sandbox was whole.
    pub(super) fn begin_missing_probes(&mut self) {
        let running = self.seen.containers.iter().filter_map(|(name, c)| match &c.life {
            Life::Running { id, .. } if !self.probes.contains_key(name) && !self.hooks.contains_key(name) => {
                Some((name.clone(), id.clone(), c.ready))
            }
            _ => None,
        });
        for (name, id, ready) in running.collect::<Vec<_>>() {
            self.begin_probes(&name, &id, ready);
        }
    }

    pub(super) fn end_probes(&mut self, name: &str) {
        if let Some(probes) = self.probes.remove(name) {
            probes.abort();
        }
    }

    pub(super) fn take_report(&mut self, report: ContainerReport) {
        let ContainerReport { container: name, id, report } = report;
        let seen = self.seen.container_mut(&name);
        if !matches!(&seen.life, Life::Running { id: running, .. } if *running == id) {
            return;
        }
        match report {
            Report::Started => seen.started = true,
            Report::Ready => {
                seen.ready = true;
                seen.complaint = None;
            }
            Report::NotReady => seen.ready = false,
            Report::Unhealthy { kind, message } => {
                let text = format!("{} probe failed: {message}", kind.title());
                if !seen.ready {
                    seen.complaint = Some(text.clone());
                }
                self.shared.recorder.warning(&self.pod, Some(&name), "Unhealthy", text);
            }
            Report::Condemned { kind, message, grace } => {
                seen.condemned = Some(EndReason { reason: "Unhealthy".into(), message });
                seen.condemned_grace = grace;
                let text = format!("Container {name} failed {} probe, will be restarted", kind.title().to_lowercase());
                self.shared.recorder.normal(&self.pod, Some(&name), "Killing", text);
            }
        }
    }
}
