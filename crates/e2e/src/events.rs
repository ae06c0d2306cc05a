//! Sending events to what takes them.

use std::io;

use crate::{Answer, Connection, Namespace, request};

/// An address inside the cluster, as the machine reaches it.
#[derive(Clone, Debug)]
pub struct Place {
    /// `host:port` to connect to.
    pub address: String,
    /// Host that is asked for.
    pub host: String,
    /// Path that is asked for.
    pub path: String,
}

impl Place {
    /// Waits until an object is ready, and says where it takes events.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn of(space: &Namespace, kind: &str, name: &str) -> Self {
        space.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", &format!("{kind}/{name}")]);
        let url = space.kubectl(&["get", kind, name, "-o", "jsonpath={.status.address.url}"]);
        let rest = url.strip_prefix("http://").expect("an http address");
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // What takes events under names of its own is served by these.
        let own = host.split('.').next().unwrap_or(host);
        let service = match own {
            _ if !path.is_empty() => own,
            _ if own.ends_with("-kn-channel") => "imc-dispatcher",
            _ => "integration-sink",
        };
        let words = ["-n", "knative-eventing", "get", "service", service, "-o", "jsonpath={.spec.clusterIP}"];
        let address = format!("{}:80", space.cluster.kubectl(&words));
        Self { address, host: host.to_owned(), path: format!("/{path}") }
    }

    /// Sends an event in binary mode.
    ///
    /// # Panics
    /// When nobody answers.
    pub fn send(&self, id: &str, kind: &str, body: &str) -> Answer {
        request(&self.address, &self.host, "POST", &self.path, &headers(id, kind), body).expect("it answers")
    }

    /// Sends an event over a connection that is kept; its status.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn send_over(&self, connection: &mut Connection, id: &str, kind: &str) -> io::Result<u16> {
        connection.send(&self.host, "POST", &self.path, &headers(id, kind), id)?;
        Ok(connection.answer()?.status)
    }

    /// Sends an event whose data is its id, which is taken.
    ///
    /// # Panics
    /// When it is not.
    pub fn take(&self, id: &str, kind: &str) {
        let answer = self.send(id, kind, id);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
}

fn headers<'a>(id: &'a str, kind: &'a str) -> [(&'a str, &'a str); 5] {
    [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/e2e"), ("ce-type", kind), ("content-type", "text/plain")]
}
