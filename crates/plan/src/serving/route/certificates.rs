//! Certificates for the names of a Route, where the configuration wants them.

use std::collections::BTreeMap;

use knoll_api::{
    Resource, Timestamp,
    conditions::READY,
    config::HttpProtocol,
    labels::{networking::PREFIX, serving as keys},
    networking::{Certificate, CertificateSpec, Http01Challenge, HttpIngressPath, IngressSplit, IngressTls},
    serving::Route,
};

use super::{CERTIFICATE_PROVISIONED, Hidden, Stopped, bad_name, domains, traffic::Traffic, without_excluded};
use crate::{
    Plan, World,
    children::{annotations, child_of, map, some, union},
    status::Reporting,
};

/// What the Ingress presents.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    /// Certificates that are there.
    pub(super) secrets: Vec<IngressTls>,
    challenges: Vec<Http01Challenge>,
}

impl Tls {
    /// Paths of `host` that an authority asks for.
    pub(super) fn challenge_paths(&self, host: &str) -> Vec<HttpIngressPath> {
        let asked = self.challenges.iter().map(challenge_path).filter(|(asked, _)| asked == host);
        asked.map(|(_, path)| path).collect()
    }
}

/// Host and path under which an authority looks for the answer to a challenge, and who answers.
pub(crate) fn challenge_path(challenge: &Http01Challenge) -> (String, HttpIngressPath) {
    let rest = challenge.url.split_once("://").map_or(challenge.url.as_str(), |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let split = IngressSplit {
        service_namespace: challenge.service_namespace.clone(),
        service_name: challenge.service_name.clone(),
        service_port: challenge.service_port.clone(),
        percent: 100,
        ..IngressSplit::default()
    };
    let path = HttpIngressPath { path: format!("/{path}"), splits: vec![split], ..HttpIngressPath::default() };
    let host = authority.split(':').next().unwrap_or_default();
    (host.to_owned(), path)
}

/// Whether public names of `object` get certificates.
pub(crate) fn is_enabled<R: Resource>(world: &World, object: &R) -> bool {
    let keys = ["disableAutoTLS", "disable-auto-tls", "disable-external-domain-tls"];
    let disabled = keys.iter().find_map(|key| object.annotation(&format!("{PREFIX}{key}")));
    world.config.network.external_domain_tls && !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Makes the Certificates of `next`, and says what the Ingress presents.
pub(super) fn reconcile(
    world: &World,
    next: &mut Route,
    traffic: &Traffic,
    hidden: &Hidden,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Tls, Stopped> {
    let mut tls = Tls::default();
    if !is_enabled(world, next) {
        let text = "external-domain-tls is not enabled";
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "TLSNotEnabled", text);
        return Ok(tls);
    }
    let mut tags_by_host = BTreeMap::new();
    for tag in traffic.names.keys().filter(|tag| !hidden.get(*tag).copied().unwrap_or_default()) {
        let host = domains::tagged_name(world, next, tag).and_then(|name| domains::host(world, next, &name, false));
        tags_by_host.insert(host.map_err(|why| bad_name(next, &why, now))?, tag.clone());
    }
    if tags_by_host.is_empty() {
        let text = "TLS is not enabled for cluster-local";
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "TLSNotEnabled", text);
    }
    for (host, tag) in &tags_by_host {
        let wanted = make(world, next, host, tag);
        let certificate = settle(world, next, wanted, plan, now)?;
        follow(world, next, host, &certificate, &mut tls, now);
    }
    delete_orphans(world, next, &tags_by_host, plan);
    tls.challenges.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(tls)
}

fn make(world: &World, route: &Route, host: &str, tag: &str) -> Certificate {
    let suffix = if tag.is_empty() { String::new() } else { format!("-{}", adler32(tag.as_bytes())) };
    let name = format!("route-{}{suffix}", route.uid());
    let class_key = format!("{PREFIX}certificate.class");
    let class = map([(class_key.as_str(), world.config.network.certificate_class.as_str())]);
    let type_key = format!("{PREFIX}certificate-type");
    let labels = map([(keys::ROUTE, route.name()), (type_key.as_str(), "external-domain")]);
    let annotations = without_excluded(union(class, annotations(route)));
    Certificate {
        metadata: child_of(route, &name, labels, annotations),
        spec: CertificateSpec {
            dns_names: vec![host.to_owned()],
            domain: world.config.domain.lookup(&crate::children::labels(route)),
            secret_name: name,
        },
        ..Certificate::default()
    }
}

/// Makes the Certificate as it should be, and returns it as it is.
fn settle(
    world: &World,
    next: &mut Route,
    wanted: Certificate,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Certificate, Stopped> {
    let Some(existing) = world.certificates.get(&wanted.key()) else {
        plan.create(wanted.clone());
        return Ok(wanted);
    };
    if !existing.is_controlled_by(next) {
        let text = format!("There is an existing certificate {} that we don't own.", wanted.name());
        next.conditions(now).mark_false(CERTIFICATE_PROVISIONED, "CertificateNotOwned", &text);
        return Err(Stopped);
    }
    let mut updated = Certificate::clone(&existing);
    updated.metadata.annotations = some(union(annotations(existing.as_ref()), annotations(&wanted)));
    updated.spec = wanted.spec;
    plan.update(existing.as_ref(), updated);
    Ok(Certificate::clone(&existing))
}

fn follow(world: &World, next: &mut Route, host: &str, certificate: &Certificate, tls: &mut Tls, now: Timestamp) {
    let name = certificate.name().to_owned();
    set_scheme(world, next, host, "https");
    if certificate.is_ready() {
        let renewing = certificate.condition("Renewing").is_some_and(knoll_api::conditions::is_true);
        if renewing {
            tls.challenges.extend(certificate.status.http01_challenges.iter().cloned());
        }
        next.conditions(now).mark_true(CERTIFICATE_PROVISIONED);
        tls.secrets.push(IngressTls {
            hosts: vec![host.to_owned()],
            secret_name: certificate.spec.secret_name.clone(),
            secret_namespace: certificate.namespace().to_owned(),
        });
        return;
    }
    tls.challenges.extend(certificate.status.http01_challenges.iter().cloned());
    let reason = certificate.condition(READY).map(|ready| ready.reason.clone()).unwrap_or_default();
    if certificate.is_failed() {
        let text = format!("Certificate {name} fails to be provisioned: {reason}");
        next.conditions(now).mark_false(CERTIFICATE_PROVISIONED, "CertificateProvisionFailed", &text);
    } else {
        let text = format!("Certificate {name} is not ready: {reason}");
        next.conditions(now).mark_unknown(CERTIFICATE_PROVISIONED, "CertificateNotReady", &text);
    }
    if world.config.network.http_protocol == HttpProtocol::Enabled {
        set_scheme(world, next, host, "http");
        let text = format!("Certificate {name} is not ready downgrade HTTP.");
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "HTTPDowngrade", &text);
    }
}

/// URLs of `host` show `scheme`.
fn set_scheme(world: &World, next: &mut Route, host: &str, scheme: &str) {
    let url = domains::with_port(world, scheme, host, false);
    let is_of_host = |url: &String| {
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        rest.split(':').next() == Some(host)
    };
    let shown = next.status.url.iter_mut().chain(next.status.traffic.iter_mut().filter_map(|t| t.url.as_mut()));
    for shown in shown.filter(|url| is_of_host(url)) {
        shown.clone_from(&url);
    }
}

fn delete_orphans(world: &World, route: &Route, hosts: &BTreeMap<String, String>, plan: &mut Plan) {
    for certificate in world.certificates.labelled(route.namespace(), keys::ROUTE, route.name()) {
        let used = certificate.spec.dns_names.iter().any(|name| hosts.contains_key(name));
        if !used && certificate.is_controlled_by(route) {
            plan.delete(certificate.as_ref());
        }
    }
}

fn adler32(text: &[u8]) -> u32 {
    let (a, b) = text.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_well_known_one() {
        assert_eq!(super::adler32(b"Wikipedia"), 0x11E6_0398);
    }
}
