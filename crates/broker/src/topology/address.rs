//! Which broker or channel an address names: upstream's hosts and paths.
//!
//! | | |
//! |---|---|
//! | a broker | `broker-ingress.<system namespace>.svc.<domain>/<namespace>/<name>` |
//! | a channel | `<name>-kn-channel.<namespace>.svc.<domain>/` |
//! | a channel, over TLS | `imc-dispatcher.<system namespace>.svc.<domain>/<namespace>/<name>` |
//! | a RequestReply | `request-reply.<system namespace>.svc.<domain>/<namespace>/<name>`, and `/reply` after it for answers |
//! | a JobSink | `job-sink.<system namespace>.svc.<domain>/<namespace>/<name>` |
//! | an IntegrationSink | `<name>-deployment.<namespace>.svc.<domain>/` |
//! | an IntegrationSink, over TLS | `integration-sink.<system namespace>.svc.<domain>/<namespace>/<name>` |
//!
//! Hosts may be as short as names of services are inside a cluster: without the domain, and without `svc`.

use std::borrow::Cow;

use knoll_api::eventing::services::{
    BROKER_INGRESS as BROKERS, CERTIFICATES, CHANNEL_DISPATCHER as CHANNELS, CHANNEL_SUFFIX as CHANNEL,
    INTEGRATION_SINK as INTEGRATION_SINKS, INTEGRATION_SINK_SUFFIX as INTEGRATION_SINK, JOB_SINK as JOB_SINKS,
    REQUEST_REPLY as REQUEST_REPLIES,
};

use super::{Kind, Name};

/// The names that addresses are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where Eventing itself lives.
    pub system_namespace: Box<str>,
    /// Domain of the cluster.
    pub cluster_domain: Box<str>,
}

impl Default for Names {
    fn default() -> Self {
        Self { system_namespace: "knative-eventing".into(), cluster_domain: "cluster.local".into() }
    }
}

/// Why a request is for nobody here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Its path is not of the form of an address.
    #[error(
        "no address: those of brokers, RequestReplies and JobSinks end in /<namespace>/<name>, those of channels and \
         IntegrationSinks in /"
    )]
    Malformed,
    /// Its host is none of ours, or its path names nobody.
    #[error("brokers, channels, RequestReplies and sinks have other addresses: see their status.address.url")]
    Elsewhere,
    /// There is none of that name.
    #[error("there is no broker, channel, RequestReply or sink of this address")]
    Unknown,
    /// None of that name is known, and not everything is known that there is.
    #[error("no broker, channel, RequestReply or sink of this address is known yet: send it again later")]
    NotYet,
}

impl Names {
    /// The broker's host, without a path.
    pub fn broker_host(&self) -> String {
        format!("{BROKERS}.{}.svc.{}", self.system_namespace, self.cluster_domain)
    }

    /// A channel's host.
    pub fn channel_host(&self, namespace: &str, name: &str) -> String {
        format!("{name}{CHANNEL}.{namespace}.svc.{}", self.cluster_domain)
    }

    /// The JobSinks' host, without a path.
    pub(super) fn job_sink_host(&self) -> String {
        format!("{JOB_SINKS}.{}.svc.{}", self.system_namespace, self.cluster_domain)
    }

    /// An IntegrationSink's host.
    pub(super) fn integration_sink_host(&self, namespace: &str, name: &str) -> String {
        format!("{name}{INTEGRATION_SINK}.{namespace}.svc.{}", self.cluster_domain)
    }

    /// Whether a host is the name of a Service.
    pub(super) fn is_service(&self, host: &str) -> bool {
        self.service(&small(without_port(host))).is_some()
    }

    /// Whether a request is for JobSinks, by its host.
    pub(super) fn is_of_job_sinks(&self, host: &str) -> bool {
        let host = small(without_port(host));
        self.service(&host) == Some((JOB_SINKS, &self.system_namespace))
    }

    /// Namespace and name of the IntegrationSink that a request to the Service of all of them is for; nothing when the host
    /// is another.
    pub(super) fn integration_sink_by_path<'t>(
        &self,
        host: &str,
        target: &'t str,
    ) -> Option<Result<(&'t str, &'t str), NotFound>> {
        let host = small(without_port(host));
        if self.service(&host) != Some((INTEGRATION_SINKS, &self.system_namespace)) {
            return None;
        }
        let parts: Vec<&str> = target.strip_suffix('/').unwrap_or(target).split('/').collect();
        let ["", namespace, name] = parts[..] else { return Some(Err(NotFound::Malformed)) };
        Some(Ok((namespace, name)))
    }

    /// Namespace and name of the IntegrationSink that a host may be that of.
    pub(super) fn integration_sink(&self, host: &str) -> Option<(String, String)> {
        let host = small(without_port(host));
        let (service, namespace) = self.service(&host)?;
        let name = service.strip_suffix(INTEGRATION_SINK).filter(|name| !name.is_empty())?;
        Some((namespace.to_owned(), name.to_owned()))
    }

    /// Namespace and name of the RequestReply that a request is for, and whether it is for its answers; nothing when the
    /// host is another.
    pub(super) fn request_reply<'t>(
        &self,
        host: &str,
        target: &'t str,
    ) -> Option<Result<(&'t str, &'t str, bool), NotFound>> {
        let host = small(without_port(host));
        if self.service(&host) != Some((REQUEST_REPLIES, &self.system_namespace)) {
            return None;
        }
        if matches!(target, "" | "/") {
            return Some(Err(NotFound::Elsewhere));
        }
        let parts: Vec<&str> = target.strip_suffix('/').unwrap_or(target).split('/').collect();
        Some(match parts[..] {
            ["", namespace, name] => Ok((namespace, name, false)),
            ["", namespace, name, "reply"] => Ok((namespace, name, true)),
            _ => Err(NotFound::Malformed),
        })
    }

    /// What a request is for. The target is taken as it stands: a query is part of the name, and nothing is decoded, as
    /// upstream has it.
    pub(super) fn name(&self, host: &str, target: &str) -> Result<Name, NotFound> {
        let host = small(without_port(host));
        let (service, namespace) = self.service(&host).ok_or(NotFound::Elsewhere)?;
        if let Some(channel) = service.strip_suffix(CHANNEL)
            && !channel.is_empty()
        {
            // A relative reference such as an empty path means the root.
            return if matches!(target, "" | "/") {
                Ok(Name::new(Kind::Channel, namespace, channel))
            } else {
                Err(NotFound::Malformed)
            };
        }
        let kind = match service {
            BROKERS => Kind::Broker,
            CHANNELS => Kind::Channel,
            _ => return Err(NotFound::Elsewhere),
        };
        if namespace != &*self.system_namespace || matches!(target, "" | "/") {
            return Err(NotFound::Elsewhere);
        }
        let path = target.strip_suffix('/').unwrap_or(target);
        let parts: Vec<&str> = path.split('/').collect();
        let ["", namespace, name] = parts[..] else { return Err(NotFound::Malformed) };
        Ok(Name::new(kind, namespace, name))
    }

    /// The Service whose certificate is presented where this host is asked for. What names none of them gets the one of
    /// brokers: who asks for no name, such as by an address, sends to those.
    pub(crate) fn presenter(&self, host: &str) -> &'static str {
        let host = small(host);
        match self.service(&host) {
            Some((service, _)) if service.ends_with(CHANNEL) => CHANNELS,
            Some((service, _)) if service.ends_with(INTEGRATION_SINK) => INTEGRATION_SINKS,
            Some((service, namespace)) if namespace == &*self.system_namespace => {
                CERTIFICATES.iter().map(|(name, _)| *name).find(|name| *name == service).unwrap_or(BROKERS)
            }
            _ => BROKERS,
        }
    }

    /// Name and namespace of the service that a host is.
    fn service<'a>(&self, host: &'a str) -> Option<(&'a str, &'a str)> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = host.strip_suffix(&*self.cluster_domain).and_then(|host| host.strip_suffix('.')).unwrap_or(host);
        let host = host.strip_suffix(".svc").unwrap_or(host);
        host.split_once('.').filter(|(_, namespace)| !namespace.is_empty() && !namespace.contains('.'))
    }
}

/// A host in small letters, as nearly all are.
fn small(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { host.to_ascii_lowercase().into() } else { host.into() }
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(host: &str, target: &str) -> Result<(Kind, String, String), NotFound> {
        Names::default().name(host, target).map(|name| (name.kind, name.namespace.to_string(), name.name.to_string()))
    }

    #[test]
    fn upstreams_addresses_name_brokers_and_channels() {
        let names = Names::default();
        let broker = Ok((Kind::Broker, "ns".to_owned(), "b".to_owned()));
        let channel = Ok((Kind::Channel, "ns".to_owned(), "c".to_owned()));
        for host in [
            &*names.broker_host(),
            "broker-ingress.knative-eventing.svc.cluster.local:80",
            "Broker-Ingress.Knative-Eventing.svc.cluster.local.",
            "broker-ingress.knative-eventing.svc",
            "broker-ingress.knative-eventing",
        ] {
            assert_eq!(name(host, "/ns/b"), broker, "{host}");
            assert_eq!(name(host, "/ns/b/"), broker, "{host}");
        }
        assert_eq!(name(&names.channel_host("ns", "c"), "/"), channel);
        assert_eq!(name("c-kn-channel.ns:8080", ""), channel);
        assert_eq!(name("imc-dispatcher.knative-eventing.svc.cluster.local", "/ns/c"), channel);
    }

    #[test]
    fn what_names_nothing_is_told_from_what_is_no_address() {
        let broker = Names::default().broker_host();
        let cases = [
            (&*broker, "/", NotFound::Elsewhere),
            (&broker, "/ns", NotFound::Malformed),
            (&broker, "/ns/b/c", NotFound::Malformed),
            (&broker, "/ns/b//", NotFound::Malformed),
            (&broker, "ns/b", NotFound::Malformed),
            ("c-kn-channel.ns.svc.cluster.local", "/x", NotFound::Malformed),
            ("-kn-channel.ns.svc.cluster.local", "/", NotFound::Elsewhere),
            ("broker-ingress.other.svc.cluster.local", "/ns/b", NotFound::Elsewhere),
            ("broker-ingress.knative-eventing.svc.other.org", "/ns/b", NotFound::Elsewhere),
            ("example.org", "/ns/b", NotFound::Elsewhere),
            ("localhost", "/ns/b", NotFound::Elsewhere),
            ("", "/ns/b", NotFound::Elsewhere),
        ];
        for (host, target, error) in cases {
            assert_eq!(name(host, target), Err(error), "{host} {target}");
        }
    }

    proptest! {
        #[test]
        fn anything_may_be_asked_for_and_a_broker_that_is_found_is_named_by_its_address(
            host in "(\\PC{0,12}|broker-ingress|imc-dispatcher|c-kn-channel)(\\.[a-z-]{0,16}){0,2}(\\.svc)?(:[0-9]{0,5})?",
            system: bool,
            target in "(/[a-zé?%-]{0,8}){0,4}/?\\PC{0,2}",
        ) {
            let names = Names::default();
            let host = if system { names.broker_host() } else { host };
            if let Ok(found) = names.name(&host, &target)
                && found.kind == Kind::Broker
                && !found.name.is_empty()
            {
                let path = format!("/{}/{}", found.namespace, found.name);
                prop_assert_eq!(names.name(&names.broker_host(), &path), Ok(found));
            }
        }
    }

    #[test]
    fn each_host_has_the_certificate_of_its_service() {
        for (host, service) in [
            ("broker-ingress.knative-eventing.svc.cluster.local", BROKERS),
            ("IMC-dispatcher.knative-eventing.svc", CHANNELS),
            ("c-kn-channel.ns.svc.cluster.local", CHANNELS),
            ("request-reply.knative-eventing", REQUEST_REPLIES),
            ("job-sink.knative-eventing.svc", JOB_SINKS),
            ("integration-sink.knative-eventing.svc", INTEGRATION_SINKS),
            ("i-deployment.ns.svc", INTEGRATION_SINKS),
            ("imc-dispatcher.other.svc", BROKERS),
            ("example.org", BROKERS),
            ("", BROKERS),
        ] {
            assert_eq!(Names::default().presenter(host), service, "{host}");
        }
    }

    #[test]
    fn a_query_is_part_of_the_name() {
        let named = name(&Names::default().broker_host(), "/ns/b?x=y").expect("three parts");
        assert_eq!(named.2, "b?x=y");
    }
}
