//! What a worker tells others at once, before the API hears of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Worker, uid};
use crate::config::InstanceEvent;
use crate::pod::{self, Life, ObservedContainer, Step, is_ready};
use crate::shared::Attempt;

impl Worker {
    /// Lets names lead to the pod as long as it has an address of its own.
    pub(super) fn name_address(&mut self) {
        let stands = self.seen.sandbox.done().filter(|info| !info.host_network);
        let address = stands.map(|info| info.address).filter(|_| !matches!(self.seen.teardown, Step::Done(())));
        if address == self.named {
            return;
        }
        let (all, uid) = (&self.shared.pod_addresses, uid(&self.pod));
        if let Some(before) = std::mem::replace(&mut self.named, address) {
            all.remove(before, uid);
        }
        if let Some(address) = address {
            all.put(address, self.pod.metadata.namespace.as_deref().unwrap_or_default(), uid);
        }
    }

    /// Tells when the pod begins or ceases to take requests.
    pub(super) fn announce(&mut self) {
        // Without an address there is nothing to tell.
        let up = is_ready(&self.pod, &self.seen) && self.seen.sandbox.done().is_some();
        if up == self.up {
            return;
        }
        self.up = up;
        tracing::debug!(pod = pod::describe(&self.pod), up, "tell of an instance");
        if let Some(event) = self.event(up) {
            (self.shared.callbacks.on_instance)(event);
        }
    }

    pub(super) fn event(&self, up: bool) -> Option<InstanceEvent> {
        let info = self.seen.sandbox.done()?;
        let address = if info.host_network { self.shared.config.address } else { info.address };
        Some(InstanceEvent { pod: Arc::clone(&self.pod), address: address.into(), up })
    }

    /// Says which attempt of each container is the newest.
    pub(super) fn tell_attempts(&mut self) {
        let newest: BTreeMap<String, Attempt> =
            self.seen.containers.iter().map(|(name, c)| (name.clone(), newest_attempt(c))).collect();
        if newest != self.attempts {
            self.shared.attempts.put(uid(&self.pod), newest.clone());
            self.attempts = newest;
        }
    }
}

/// The newest attempt of which there is, or was, a process.
fn newest_attempt(container: &ObservedContainer) -> Attempt {
    let not_yet = matches!(container.life, Life::Absent | Life::Creating | Life::Rejected(_));
    let number = container.restarts - u32::from(not_yet && container.restarts > 0);
    Attempt { number, started: !not_yet || container.restarts > 0 }
}
