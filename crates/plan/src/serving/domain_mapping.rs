//! DomainMapping → ClusterDomainClaim and Ingress: a name of the user's for a Service that is there.
//!
//! Each step needs the one before: the claim keeps two namespaces from taking one name.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{FALSE, READY, TRUE},
    config::HttpProtocol,
    k8s_openapi::apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    labels::networking,
    names,
    networking::{
        Certificate, CertificateSpec, ClusterDomainClaim, ClusterDomainClaimSpec, EXTERNAL_IP, HttpIngressPath,
        HttpIngressRule, Ingress, IngressRule, IngressSpec, IngressSplit, IngressTls,
    },
    serving::DomainMapping,
    status::Addressable,
};

use super::route::{
    certificates_enabled, challenge_path,
    domains::{local_host, with_port},
    http_option, ingress_class, without_excluded,
};
use crate::{
    Absence, EventType, Plan, Row, SystemConfig, Term, World, by_controller,
    children::{annotations, child_of, labels, map, not_owned, union},
    status::Reporting,
    terms::leads_to,
};

const DOMAIN_CLAIMED: &str = "DomainClaimed";
const REFERENCE_RESOLVED: &str = "ReferenceResolved";
const INGRESS_READY: &str = "IngressReady";
const CERTIFICATE_PROVISIONED: &str = "CertificateProvisioned";
const FINALIZER: &str = "domainmappings.serving.knative.dev";
const UID_LABEL: &str = "serving.knative.dev/domainMappingUID";
const NAMESPACE_LABEL: &str = "serving.knative.dev/domainMappingNamespace";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "domain-mapping",
    of: Kind::DomainMapping,
    wakes: &[
        (Kind::Ingress, by_controller),
        (Kind::Certificate, by_controller),
        (Kind::ClusterDomainClaim, by_domain),
        (Kind::Service, by_target),
        (Kind::Route, by_target),
        (Kind::CoreService, by_target),
    ],
    configs: &[SystemConfig::Serving("config-network")],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Every mapping of the claimed domain, whatever its namespace.
fn by_domain(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    let domain = object.key().name;
    let named = world.domain_mappings.find(Term::Named(&domain)).into_iter();
    named.map(|mapping| mapping.key()).filter(|key| key.name == domain).collect()
}

/// Mappings of the namespace that name the object.
fn by_target(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    let (kind, key) = (object.kind(), object.key());
    let mappings = world.domain_mappings.find(leads_to(kind, &key)).into_iter();
    let naming = mappings.filter(|mapping| {
        let target = &mapping.spec.ref_;
        let near = mapping.namespace() == key.namespace && target.name == key.name;
        near && Kind::from_api(&target.api_version, &target.kind) == Some(kind)
    });
    naming.map(|mapping| mapping.key()).collect()
}

/// Says why there is nothing more to do for now; the status has been written.
struct Stopped;

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(mapping) = world.domain_mappings.get(key) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let held = mapping.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if mapping.is_deleting() {
        if held {
            release(world, &mapping, &mut plan);
        }
        return plan;
    }
    if !held {
        // By itself, for a status written beside it would carry an old resourceVersion.
        let mut next = DomainMapping::clone(&mapping);
        next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        plan.update(mapping.as_ref(), next);
        return plan;
    }
    let mut next = DomainMapping::clone(&mapping);
    next.conditions(now).initialize();
    if !mapping.is_observed() {
        ingress_not_configured(&mut next, now);
    }
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(mapping.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut DomainMapping, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    set_url(world, next, &world.config.network.default_external_scheme.clone());
    claim(world, next, plan, now)?;
    let (tls, challenges) = tls(world, next, plan, now)?;
    let (host, service) = resolve(world, next).map_err(|why| {
        next.conditions(now).mark_false(REFERENCE_RESOLVED, "ResolveFailed", &why);
        Stopped
    })?;
    next.conditions(now).mark_true(REFERENCE_RESOLVED);
    let http_option = http_option(world, next).map_err(|_| Stopped)?;
    let spec = IngressSpec { http_option, tls, rules: rules(next, host, service, challenges) };
    settle_ingress(world, next, spec, plan, now)
}

fn set_url(world: &World, next: &mut DomainMapping, scheme: &str) {
    let url = with_port(world, scheme, next.name(), false);
    next.status.address = Some(Addressable { url: Some(url.clone()), ..Addressable::default() });
    next.status.url = Some(url);
}

fn ingress_not_configured(next: &mut DomainMapping, now: Timestamp) {
    next.conditions(now).mark_unknown(INGRESS_READY, "IngressNotConfigured", "Ingress has not yet been reconciled.");
}

/// Takes the domain for the namespace, or finds that it has it.
fn claim(world: &World, next: &mut DomainMapping, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let claim = world.cluster_domain_claims.get(&Key::new("", next.name()));
    let ours = match claim {
        Some(ref claim) => claim.spec.namespace == next.namespace(),
        None => world.config.network.autocreate_cluster_domain_claims,
    };
    if !ours {
        let text = "The domain name is already in use by another DomainMapping";
        next.conditions(now).mark_false(DOMAIN_CLAIMED, "DomainAlreadyClaimed", text);
        return Err(Stopped);
    }
    if claim.is_none() {
        plan.create(ClusterDomainClaim {
            metadata: ObjectMeta { name: Some(next.name().to_owned()), ..ObjectMeta::default() },
            spec: ClusterDomainClaimSpec { namespace: next.namespace().to_owned() },
        });
    }
    next.conditions(now).mark_true(DOMAIN_CLAIMED);
    Ok(())
}

/// Gives the domain up, if it was taken without being asked to be kept.
fn release(world: &World, mapping: &DomainMapping, plan: &mut Plan) {
    let claim = world.cluster_domain_claims.get(&Key::new("", mapping.name()));
    let ours = claim.filter(|claim| claim.spec.namespace == mapping.namespace() && !claim.is_deleting());
    if let Some(claim) = ours.filter(|_| world.config.network.autocreate_cluster_domain_claims) {
        plan.delete(claim.as_ref());
    }
    let mut next = mapping.clone();
    next.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    next.metadata.finalizers = next.metadata.finalizers.filter(|finalizers| !finalizers.is_empty());
    plan.update(mapping, next);
}

type Tls = (Vec<IngressTls>, Vec<(String, HttpIngressPath)>);

/// What the Ingress presents, and what it answers to an authority, by host.
fn tls(world: &World, next: &mut DomainMapping, plan: &mut Plan, now: Timestamp) -> Result<Tls, Stopped> {
    if let Some(own) = next.spec.tls.clone() {
        let text = "TLS certificate was provided externally";
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "CertificateExternallyProvided", text);
        set_url(world, next, "https");
        return Ok((vec![presented(next, own.secret_name)], Vec::new()));
    }
    if !certificates_enabled(world, next) {
        let text = "external-domain-tls is not enabled";
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "TLSNotEnabled", text);
        return Ok((Vec::new(), Vec::new()));
    }
    let certificate = certificate(world, next, plan, now)?;
    set_url(world, next, "https");
    if certificate.is_ready() {
        next.conditions(now).mark_true(CERTIFICATE_PROVISIONED);
        return Ok((vec![presented(next, certificate.spec.secret_name)], Vec::new()));
    }
    let name = certificate.name().to_owned();
    if world.config.network.http_protocol == HttpProtocol::Enabled {
        set_url(world, next, "http");
        let text = format!("Certificate {name} is not ready downgrade HTTP.");
        next.conditions(now).mark_true_with_reason(CERTIFICATE_PROVISIONED, "HTTPDowngrade", &text);
    } else {
        let text = format!("Certificate {name} is not ready.");
        next.conditions(now).mark_unknown(CERTIFICATE_PROVISIONED, "CertificateNotReady", &text);
    }
    let mut challenges: Vec<_> = certificate.status.http01_challenges.iter().collect();
    challenges.sort_by(|a, b| a.url.cmp(&b.url));
    Ok((Vec::new(), challenges.into_iter().map(challenge_path).collect()))
}

fn presented(mapping: &DomainMapping, secret_name: String) -> IngressTls {
    let hosts = vec![mapping.name().to_owned()];
    IngressTls { hosts, secret_name, secret_namespace: mapping.namespace().to_owned() }
}

fn certificate(
    world: &World,
    next: &mut DomainMapping,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Certificate, Stopped> {
    if let Some(existing) = world.certificates.get(&next.key()) {
        if existing.is_controlled_by(next) {
            return Ok(Certificate::clone(&existing));
        }
        let text = format!("There is an existing certificate {} that we don't own.", next.name());
        next.conditions(now).mark_false(CERTIFICATE_PROVISIONED, "CertificateNotOwned", &text);
        return Err(Stopped);
    }
    let class_key = format!("{}certificate.class", networking::PREFIX);
    let class = map([(class_key.as_str(), world.config.network.certificate_class.as_str())]);
    let annotations = without_excluded(union(class, annotations(next)));
    let labels = map([(UID_LABEL, next.uid()), (NAMESPACE_LABEL, next.namespace())]);
    let name = next.name().to_owned();
    let certificate = Certificate {
        metadata: child_of(next, next.name(), labels, annotations),
        spec: CertificateSpec { dns_names: vec![name.clone()], domain: String::new(), secret_name: name },
        ..Certificate::default()
    };
    plan.create(certificate.clone());
    Ok(certificate)
}

/// Host and name of the Service that answers.
fn resolve(world: &World, mapping: &DomainMapping) -> Result<(String, String), String> {
    let target = &mapping.spec.ref_;
    let namespace = if target.namespace.is_empty() { mapping.namespace() } else { &target.namespace };
    let key = Key::new(namespace, &target.name);
    let not_found = |what: &str| format!("{what} \"{}\" not found", target.name);
    let unset = || format!("address not set for {} {}/{}", target.kind, namespace, target.name);
    let url = match Kind::from_api(&target.api_version, &target.kind) {
        Some(Kind::Service) => {
            let service = world.services.get(&key).ok_or_else(|| not_found("services.serving.knative.dev"))?;
            service.status.address.as_ref().and_then(|address| address.url.clone()).ok_or_else(unset)?
        }
        Some(Kind::Route) => {
            let route = world.routes.get(&key).ok_or_else(|| not_found("routes.serving.knative.dev"))?;
            route.status.address.as_ref().and_then(|address| address.url.clone()).ok_or_else(unset)?
        }
        Some(Kind::CoreService) => {
            world.core_services.get(&key).ok_or_else(|| not_found("services"))?;
            format!("http://{}", local_host(world, namespace, &target.name))
        }
        _ => return Err(format!("{} {} is not addressable", target.api_version, target.kind)),
    };
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        return Err(format!("resolved URI \"{url}\" contains a path"));
    }
    let suffix = format!(".svc.{}", world.settings.cluster_domain);
    let parts = host.strip_suffix(&suffix).and_then(|rest| rest.split_once('.'));
    let Some((name, found)) = parts.filter(|(_, namespace)| !namespace.contains('.')) else {
        return Err(format!("resolved URI \"{url}\" must be of the form {{name}}.{{namespace}}{suffix}"));
    };
    if found != mapping.namespace() {
        return Err(format!("resolved URI \"{url}\" must be in same namespace as DomainMapping"));
    }
    Ok((host.to_owned(), name.to_owned()))
}

fn rules(
    mapping: &DomainMapping,
    host: String,
    service: String,
    challenges: Vec<(String, HttpIngressPath)>,
) -> Vec<IngressRule> {
    let split = IngressSplit {
        service_namespace: mapping.namespace().to_owned(),
        service_name: service,
        service_port: IntOrString::Int(80),
        percent: 100,
        append_headers: map([("K-Original-Host", mapping.name())]),
    };
    let path = HttpIngressPath { rewrite_host: host, splits: vec![split], ..HttpIngressPath::default() };
    let rule = |host: &str, paths| IngressRule {
        hosts: vec![host.to_owned()],
        visibility: EXTERNAL_IP.to_owned(),
        http: Some(HttpIngressRule { paths }),
    };
    let (ours, others): (Vec<_>, Vec<_>) = challenges.into_iter().partition(|(host, _)| host == mapping.name());
    let paths = ours.into_iter().map(|(_, path)| path).chain([path]).collect();
    let mut rules = vec![rule(mapping.name(), paths)];
    rules.extend(others.into_iter().map(|(host, path)| rule(&host, vec![path])));
    rules
}

fn settle_ingress(
    world: &World,
    next: &mut DomainMapping,
    spec: IngressSpec,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), Stopped> {
    let class = map([(networking::INGRESS_CLASS, ingress_class(world, next))]);
    let annotations = without_excluded(union(class, annotations(next)));
    let own = map([(UID_LABEL, next.uid()), (NAMESPACE_LABEL, next.namespace())]);
    let metadata = child_of(next, names::child(next.name(), ""), union(labels(next), own), annotations);
    let template = Ingress { metadata, spec, ..Ingress::default() };
    let Some(existing) = world.ingresses.get(&template.key()) else {
        let note = format!("Created Ingress \"{}\"", template.name());
        plan.create(template);
        plan.event(next, EventType::Normal, "Created", note);
        ingress_not_configured(next, now);
        return Ok(());
    };
    if !existing.is_controlled_by(next) {
        next.conditions(now).mark_false(INGRESS_READY, "NotOwned", &not_owned("Ingress", existing.name()));
        return Err(Stopped);
    }
    let mut wanted = Ingress::clone(&existing);
    wanted.metadata.labels = template.metadata.labels;
    wanted.metadata.annotations = template.metadata.annotations;
    wanted.spec = template.spec;
    let settled = wanted.spec == existing.spec && existing.is_observed();
    plan.update(existing.as_ref(), wanted);
    let ready = existing.condition(READY).filter(|_| settled).cloned();
    let Some(ready) = ready else {
        ingress_not_configured(next, now);
        return Ok(());
    };
    let mut conditions = next.conditions(now);
    match ready.status.as_str() {
        TRUE => conditions.mark_true(INGRESS_READY),
        FALSE => conditions.mark_false(INGRESS_READY, &ready.reason, &ready.message),
        _ => conditions.mark_unknown(INGRESS_READY, &ready.reason, &ready.message),
    };
    Ok(())
}
