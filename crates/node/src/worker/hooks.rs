//! What a container does right after its start. It runs beside the container: until it has ended the container is not
//! asked whether it is ready, and a container whose hook fails is killed.

use std::sync::Arc;
use std::time::Duration;

use knoll_container::protocol::ContainerId;

use super::{Outcome, Worker, ending, tasks};
use crate::pod::Life;

/// Longest hook. A container that wants longer is killed, rather than never ready.
const LONGEST: Duration = Duration::from_secs(3600);

impl Worker {
    /// Goes on with a container that has just been started: its hook, then its probes.
    pub(super) fn after_start(&mut self, name: &str, id: &str) {
        let Some(container) = self.container(name) else { return };
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
        let (Some(hook), Ok(runtime_id)) = (hook, ContainerId::new(id)) else {
            return self.begin_probes(name, id, false);
        };
        let (shared, pod) = (Arc::clone(&self.shared), Arc::clone(&self.pod));
        let address = self.seen.sandbox.done().cloned();
        let (name, id) = (name.to_owned(), id.to_owned());
        let key = name.clone();
        let running = self.tasks.spawn(async move {
            let ran = tasks::run_hook(&shared, &container, &runtime_id, address.as_ref(), &hook, LONGEST).await;
            if let Err(why) = &ran {
                let text = format!("PostStartHook failed: {why}");
                shared.recorder.warning(&pod, Some(&name), "FailedPostStartHook", text);
                ending::kill(&shared, &id).await;
            }
            Outcome::Hooked { container: name, id, well: ran.is_ok() }
        });
        if let Some(old) = self.hooks.insert(key, running) {
            old.abort();
        }
    }

    /// A hook has ended: a container that still runs is asked from now on.
    pub(super) fn take_hook(&mut self, name: &str, id: &str, well: bool) {
        let current = |life: &Life| matches!(life, Life::Running { id: running, .. } if running == id);
        if !self.seen.containers.get(name).is_some_and(|c| current(&c.life)) {
            return;
        }
        self.hooks.remove(name);
        if well {
            self.begin_probes(name, id, false);
        }
    }

    /// Whoever stops, or has ended, needs its hook no more.
    pub(super) fn drop_hook(&mut self, name: &str) {
        if let Some(hook) = self.hooks.remove(name) {
            hook.abort();
        }
    }
}
