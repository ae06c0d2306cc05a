//! Questions to containers: has it started, is it ready, is it alive.
//!
//! [`schedule`] decides purely when to ask and what answers mean; [`watch`] asks.

mod crowd;
mod exec;
mod grpc;
pub(crate) mod http;
pub mod loopback;
pub mod schedule;
pub(crate) mod tcp;
mod tls;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use knoll_container::{client::Client, protocol::ContainerId};
use tokio::sync::watch::Receiver;

pub use crowd::Crowd;
pub use loopback::Loopback;
pub use schedule::ProbeKind;
pub use watch::{ContainerReport, Probes, Report, Reporter, watch};

/// Whom to ask.
#[derive(Clone)]
pub struct ProbeTarget {
    /// The pod's address.
    pub address: IpAddr,
    /// The container, for programs run inside it.
    pub container: ContainerId,
    /// The monitor, for programs run inside it; another connection after one was lost.
    pub monitor: Receiver<Client>,
    /// Where else its readiness may be asked for.
    pub loopback: Option<Arc<Loopback>>,
    /// Whether the pod's network is the machine's.
    pub on_host: bool,
    /// Those who are waited for together with it.
    pub crowd: Crowd,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a port takes connections.
    Tcp {
        /// Another host than the pod.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Whether a path answers with 200 to 399.
    Http(http::Get),
    /// Whether the health service answers SERVING.
    Grpc {
        /// The port.
        port: u16,
        /// Which service; empty is the server as a whole.
        service: String,
    },
    /// Whether a program ends well.
    Exec(Vec<String>),
    /// A probe that names no port that exists; it always fails, with this text.
    Unanswerable(String),
}

impl Question {
    /// The question of a probe; `None` when it asks nothing.
    pub fn of(probe: &Probe, container: &Container) -> Option<Question> {
        let question = if let Some(get) = &probe.http_get {
            port(&get.port, container).map(|port| Question::Http(http::Get::of(get, port)))
        } else if let Some(tcp) = &probe.tcp_socket {
            port(&tcp.port, container)
                .map(|port| Question::Tcp { host: tcp.host.clone().filter(|h| !h.is_empty()), port })
        } else if let Some(grpc) = &probe.grpc {
            port(&IntOrString::Int(grpc.port), container)
                .map(|port| Question::Grpc { port, service: grpc.service.clone().unwrap_or_default() })
        } else {
            let exec = probe.exec.as_ref()?;
            Ok(Question::Exec(exec.command.clone().unwrap_or_default()))
        };
        Some(question.unwrap_or_else(Question::Unanswerable))
    }

    /// Asks once. An answer that takes longer than `timeout` is a failure.
    ///
    /// # Errors
    /// Why the answer is no, as it is told to users.
    pub async fn ask(&self, target: &ProbeTarget, kind: ProbeKind, timeout: Duration) -> Result<(), String> {
        let way = tcp::Way {
            address: target.address,
            loopback: target.loopback.as_deref().filter(|_| kind == ProbeKind::Readiness),
            on_host: target.on_host,
        };
        match self {
            Question::Tcp { host, port } => tcp::ask(host.as_deref(), &way, *port, timeout).await,
            Question::Http(get) => http::ask(get, &way, timeout).await,
            Question::Grpc { port, service } => grpc::ask(&way, *port, service, timeout).await,
            Question::Exec(command) => exec::ask(target, command, timeout).await,
            Question::Unanswerable(why) => Err(why.clone()),
        }
    }

    /// Whether each asking starts a process.
    pub fn is_costly(&self) -> bool {
        matches!(self, Question::Exec(_))
    }
}

/// A port by number or by name. Zero stands for the container's first port.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let ports = container.ports.as_deref().unwrap_or_default();
    let number = match port {
        IntOrString::Int(0) => ports.first().map(|p| p.container_port).ok_or("the container has no ports")?,
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match ports.iter().find(|p| p.name.as_deref() == Some(name)) {
            Some(found) => found.container_port,
            None => name.parse().map_err(|_| format!("couldn't find port: {name}"))?,
        },
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn question(probe: serde_json::Value) -> Option<Question> {
        let container = json!({"name": "c", "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 9}]});
        let container: Container = serde_json::from_value(container).expect("a container");
        Question::of(&serde_json::from_value(probe).expect("a probe"), &container)
    }

    #[test]
    fn ports_go_by_number_by_name_or_are_the_first() {
        let port = |port: serde_json::Value| match question(json!({"tcpSocket": {"port": port}})) {
            Some(Question::Tcp { port, .. }) => Ok(port),
            Some(Question::Unanswerable(why)) => Err(why),
            other => panic!("{other:?}"),
        };
        assert_eq!(port(json!(81)), Ok(81));
        assert_eq!(port(json!("http")), Ok(8080));
        assert_eq!(port(json!("82")), Ok(82));
        assert_eq!(port(json!(0)), Ok(8080));
        assert_eq!(port(json!("nope")), Err("couldn't find port: nope".into()));
        assert_eq!(port(json!(70000)), Err("invalid port number: 70000".into()));
    }

    #[test]
    fn a_probe_without_an_action_asks_nothing() {
        assert_eq!(question(json!({"periodSeconds": 3})), None);
    }
}
