//! Questions about a Revision that more than one plane asks.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;

use super::{Revision, RevisionSpec};
use crate::{conditions, config::DefaultsConfig, table::Protocol};

/// The port that a container listens on when it does not say.
pub const DEFAULT_USER_PORT: i32 = 8080;

impl RevisionSpec {
    /// The container that serves: the only one, or the one with a port.
    pub fn serving_container(&self) -> Option<&Container> {
        match self.pod_spec.containers.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|container| has_port(container)),
        }
    }

    /// The containers beside the one that serves.
    pub fn sidecars(&self) -> impl Iterator<Item = &Container> {
        let several = self.pod_spec.containers.len() > 1;
        self.pod_spec.containers.iter().filter(move |container| several && !has_port(container))
    }

    /// How the container speaks, by the name of its port.
    pub fn protocol(&self) -> Protocol {
        let port = self.serving_container().and_then(|container| container.ports.as_ref()?.first());
        let is_h2c = port.is_some_and(|port| port.name.as_deref() == Some("h2c"));
        if is_h2c { Protocol::H2c } else { Protocol::Http1 }
    }

    /// The port that the container listens on.
    pub fn user_port(&self) -> i32 {
        let port = self.serving_container().and_then(|container| container.ports.as_ref()?.first());
        port.map(|port| port.container_port).filter(|port| *port != 0).unwrap_or(DEFAULT_USER_PORT)
    }

    /// Most time for a whole request.
    pub fn timeout(&self, defaults: &DefaultsConfig) -> Duration {
        seconds(self.timeout_seconds).unwrap_or(Duration::from_secs(defaults.revision_timeout_seconds.unsigned_abs()))
    }

    /// Most time until the response starts; nothing when that is not limited apart from the whole.
    pub fn response_start_timeout(&self) -> Option<Duration> {
        seconds(self.response_start_timeout_seconds)
    }

    /// Most time between two writes of the response; nothing when that is not limited apart from the whole.
    pub fn idle_timeout(&self) -> Option<Duration> {
        seconds(self.idle_timeout_seconds)
    }
}

fn has_port(container: &Container) -> bool {
    container.ports.as_ref().is_some_and(|ports| !ports.is_empty())
}

/// A positive count of seconds; zero is off.
fn seconds(count: Option<i64>) -> Option<Duration> {
    u64::try_from(count?).ok().filter(|count| *count > 0).map(Duration::from_secs)
}

impl Revision {
    /// Whether it is ready for its own generation.
    pub fn is_ready(&self) -> bool {
        conditions::is_ready(self.metadata.generation, &self.status.common)
    }

    /// Whether it failed for its own generation.
    pub fn is_failed(&self) -> bool {
        conditions::is_failed(self.metadata.generation, &self.status.common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(spec: &str) -> Revision {
        serde_json::from_str(&format!(r#"{{"metadata": {{}}, "spec": {spec}}}"#)).expect("a revision")
    }

    #[test]
    fn the_container_with_a_port_serves() {
        let r = revision(
            r#"{"containers": [{"name": "a"}, {"name": "b", "ports": [{"name": "h2c", "containerPort": 9000}]}]}"#,
        );
        assert_eq!(r.spec.serving_container().map(|container| container.name.as_str()), Some("b"));
        assert_eq!(r.spec.sidecars().map(|container| container.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!((r.spec.protocol(), r.spec.user_port()), (Protocol::H2c, 9000));
        let alone = revision(r#"{"containers": [{"name": "a"}]}"#);
        assert_eq!((alone.spec.protocol(), alone.spec.user_port()), (Protocol::Http1, 8080));
        assert_eq!(alone.spec.sidecars().count(), 0);
    }

    #[test]
    fn timeouts_of_zero_are_off() {
        let r = revision(r#"{"containers": [], "timeoutSeconds": 0, "idleTimeoutSeconds": 0}"#);
        assert_eq!(r.spec.timeout(&DefaultsConfig::default()), Duration::from_secs(300));
        assert_eq!((r.spec.idle_timeout(), r.spec.response_start_timeout()), (None, None));
    }
}
