//! Sinks in a snapshot: what ends the way of an event here.

use std::sync::Arc;

use http::Uri;
use knoll_api::{Resource, sinks};

use super::{NotFound, Topology, access::Guard};

/// A JobSink: each event becomes a Job.
#[derive(Clone, Debug)]
pub struct JobSink {
    /// It, as the API has it.
    pub object: Arc<sinks::JobSink>,
    /// Who may send, and ask what became of an event.
    pub guard: Guard,
}

/// An IntegrationSink into a log.
#[derive(Clone, Debug)]
pub struct LogSink {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// How it writes.
    pub log: sinks::LogSink,
    /// Who may send.
    pub guard: Guard,
}

impl Topology {
    /// The same with this JobSink, in place of the one of its namespace and name.
    #[must_use]
    pub fn with_job_sink(mut self, sink: JobSink) -> Self {
        let name = (sink.object.namespace().into(), sink.object.name().into());
        self.job_sinks.insert(name, Arc::new(sink));
        self
    }

    /// The same without the JobSink of this namespace and name.
    #[must_use]
    pub fn without_job_sink(mut self, namespace: &str, name: &str) -> Self {
        self.job_sinks.remove(&(namespace.into(), name.into()));
        self
    }

    /// The same with this IntegrationSink, in place of the one of its namespace and name.
    #[must_use]
    pub fn with_log_sink(mut self, sink: LogSink) -> Self {
        self.log_sinks.insert((sink.namespace.clone(), sink.name.clone()), Arc::new(sink));
        self
    }

    /// The same without the IntegrationSink of this namespace and name.
    #[must_use]
    pub fn without_log_sink(mut self, namespace: &str, name: &str) -> Self {
        self.log_sinks.remove(&(namespace.into(), name.into()));
        self
    }

    /// The address of a JobSink, whether it is there or not; nothing when its name is none of a URI.
    pub fn job_sink_address(&self, namespace: &str, name: &str) -> Option<Uri> {
        let path = format!("/{namespace}/{name}");
        Uri::builder().scheme("http").authority(self.names.job_sink_host()).path_and_query(path).build().ok()
    }

    /// The address of an IntegrationSink, whether it is there or not; nothing when its name is none of a URI.
    pub fn log_sink_address(&self, namespace: &str, name: &str) -> Option<Uri> {
        let host = self.names.integration_sink_host(namespace, name);
        Uri::builder().scheme("http").authority(host).path_and_query("/").build().ok()
    }

    /// Whether a request is for JobSinks, by the host that it names.
    pub(crate) fn is_of_job_sinks(&self, host: &str) -> bool {
        self.names.is_of_job_sinks(host)
    }

    /// The JobSink of this namespace and name.
    pub fn job_sink(&self, namespace: &str, name: &str) -> Option<&Arc<JobSink>> {
        self.job_sinks.get(&(namespace.into(), name.into()))
    }

    /// The IntegrationSink of this namespace and name.
    pub fn log_sink(&self, namespace: &str, name: &str) -> Option<&Arc<LogSink>> {
        self.log_sinks.get(&(namespace.into(), name.into()))
    }

    /// The JobSink that an event for JobSinks is for, by the target of its request.
    pub(crate) fn job_sink_at(&self, target: &str) -> Result<&Arc<JobSink>, NotFound> {
        let parts: Vec<&str> = target.strip_suffix('/').unwrap_or(target).split('/').collect();
        let ["", namespace, name] = parts[..] else { return Err(NotFound::Malformed) };
        self.job_sink(namespace, name).ok_or(self.unknown())
    }

    /// The IntegrationSink that a request is for, by the host that it names and its target; nothing when the host is that
    /// of none that is there: other Services may be called so, too.
    pub(crate) fn find_log_sink(&self, host: &str, target: &str) -> Option<Result<Arc<LogSink>, NotFound>> {
        if let Some(named) = self.names.integration_sink_by_path(host, target) {
            let found = named.and_then(|(namespace, name)| self.log_sink(namespace, name).ok_or(self.unknown()));
            return Some(found.cloned());
        }
        let (namespace, name) = self.names.integration_sink(host)?;
        let found = self.log_sink(&namespace, &name)?;
        // A relative reference such as an empty path means the root.
        Some(if matches!(target, "" | "/") { Ok(found.clone()) } else { Err(NotFound::Malformed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_sink() -> LogSink {
        let namespace: Arc<str> = "ns".into();
        LogSink {
            namespace: namespace.clone(),
            name: "l".into(),
            log: sinks::LogSink::default(),
            guard: Guard::new(namespace),
        }
    }

    #[test]
    fn an_integration_sink_is_found_at_its_own_name() {
        let topology = Topology::default().with_log_sink(log_sink());
        let address = topology.log_sink_address("ns", "l").expect("a URI");
        assert_eq!(address, "http://l-deployment.ns.svc.cluster.local/");
        let found = |topology: &Topology, host: &str, target: &str| {
            topology.find_log_sink(host, target).map(|found| found.map(|sink| sink.name.to_string()))
        };
        for host in [address.host().expect("a host"), "L-Deployment.ns.svc:80", "l-deployment.ns"] {
            assert_eq!(found(&topology, host, "/"), Some(Ok("l".to_owned())), "{host}");
        }
        assert_eq!(found(&topology, "l-deployment.ns", "/x"), Some(Err(NotFound::Malformed)));
        for host in ["m-deployment.ns", "l-deployment.ns2", "-deployment.ns", "l.ns", "broker-ingress.knative-eventing"]
        {
            assert_eq!(found(&topology, host, "/x"), None, "{host}");
        }
        let all = "integration-sink.knative-eventing.svc.cluster.local";
        for (target, expected) in [
            ("/ns/l", Ok("l".to_owned())),
            ("/ns/l/", Ok("l".to_owned())),
            ("/ns/m", Err(NotFound::Unknown)),
            ("/ns", Err(NotFound::Malformed)),
            ("/", Err(NotFound::Malformed)),
        ] {
            assert_eq!(found(&topology, all, target), Some(expected), "{target}");
        }
        assert_eq!(found(&topology, "integration-sink.ns", "/ns/l"), None);
        assert_eq!(found(&topology.without_log_sink("ns", "l"), "l-deployment.ns", "/"), None);
    }

    #[test]
    fn job_sinks_have_upstreams_host() {
        let topology = Topology::default();
        let address = topology.job_sink_address("ns", "j").expect("a URI");
        assert_eq!(address, "http://job-sink.knative-eventing.svc.cluster.local/ns/j");
        assert!(topology.is_of_job_sinks(address.host().expect("a host")));
        let object =
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": "j"}, "spec": {}}));
        let sink = JobSink { object: Arc::new(object.expect("a JobSink")), guard: Guard::new("ns".into()) };
        let topology = topology.with_job_sink(sink);
        for (target, found) in [
            (address.path(), Ok(())),
            ("/ns/j/", Ok(())),
            ("/ns/k", Err(NotFound::Unknown)),
            ("/ns/j?x", Err(NotFound::Unknown)),
            ("/ns", Err(NotFound::Malformed)),
            ("/", Err(NotFound::Malformed)),
            ("/ns/j/k", Err(NotFound::Malformed)),
        ] {
            assert_eq!(topology.job_sink_at(target).map(|_| ()), found, "{target}");
        }
        assert!(topology.clone().without_job_sink("ns", "j").job_sink("ns", "j").is_none());
        assert!(topology.is_of_job_sinks("Job-Sink.knative-eventing.svc:80"));
        assert!(!topology.is_of_job_sinks("job-sink.ns.svc.cluster.local"));
        assert!(!topology.is_of_job_sinks("example.org"));
    }
}
