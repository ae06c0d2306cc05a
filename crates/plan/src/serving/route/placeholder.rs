//! A Kubernetes Service a name of the Route, so that the name is taken and resolves inside the cluster.
//!
//! First it points at the name itself; once the data plane says where it listens, there. Labels and annotations
//! of the Route are added and never taken away, for users put their own there too.

use std::sync::Arc;

use knoll_api::{
    Resource, Timestamp,
    k8s_openapi::{
        api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec},
        apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
    },
    labels::{networking::VISIBILITY, serving as keys},
    networking::{Ingress, LoadBalancerIngress},
    serving::Route,
};

use super::{INGRESS_READY, Stopped, bad_name, domains, traffic::Traffic};
use crate::{
    EventType, Plan, World,
    children::{annotations, child_of, labels, map, says, some, union, without},
    status::Reporting,
};

const H2C: &str = "kubernetes.io/h2c";
const EXTERNAL_NAME: &str = "ExternalName";
const CLUSTER_IP: &str = "ClusterIP";
const HEADLESS: &str = "None";

/// A placeholder that exists.
pub(super) struct Placeholder {
    service: Arc<Service>,
    endpoints: Option<Arc<Endpoints>>,
}

/// Whether the placeholder Service of a name hides it.
pub(super) fn is_hidden(world: &World, route: &Route, name: &str) -> bool {
    let service = world.core_services.get(&route.key().sibling(name));
    let ours = service.filter(|service| service.label(keys::ROUTE) == Some(route.name()));
    ours.is_some_and(|service| service.label(VISIBILITY) == Some(domains::CLUSTER_LOCAL))
}

/// Takes every name of the Route, and gives up those it has no more. Returns the placeholders that exist.
pub(super) fn reserve(
    world: &World,
    next: &mut Route,
    traffic: &Traffic,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Vec<Placeholder>, Stopped> {
    let (mut existing, mut names) = (Vec::new(), Vec::new());
    for tag in traffic.names.keys() {
        let name = domains::tagged_name(world, next, tag).map_err(|why| bad_name(next, &why, now))?;
        let key = next.key().sibling(&name);
        let endpoints = world.endpoints.get(&key);
        match world.core_services.get(&key) {
            None => {
                let host = domains::host(world, next, &name, domains::is_local(world, next));
                let host = host.map_err(|why| bad_name(next, &why, now))?;
                plan.create(Service { spec: Some(external(host)), ..bare(next, &name) });
                plan.event(next, EventType::Normal, "Created", format!("Created placeholder service \"{name}\""));
            }
            Some(service) if !service.is_controlled_by(next) => return Err(taken(next, "Service", &name, now)),
            Some(service) => {
                if endpoints.as_ref().is_some_and(|endpoints| !is_ours(endpoints, &service, next)) {
                    return Err(taken(next, "Endpoint", &name, now));
                }
                existing.push(Placeholder { service: service.clone(), endpoints });
            }
        }
        names.push(name);
    }
    for service in world.core_services.labelled(next.namespace(), keys::ROUTE, next.name()) {
        if service.is_controlled_by(next) && !names.iter().any(|name| name == service.name()) {
            plan.delete(service.as_ref());
            if let Some(endpoints) = world.endpoints.get(&service.key()).filter(|e| e.is_controlled_by(next)) {
                plan.delete(endpoints.as_ref());
            }
        }
    }
    Ok(existing)
}

/// Endpoints may be the Route's, or made by whoever fills the Endpoints of Services.
fn is_ours(endpoints: &Endpoints, service: &Service, route: &Route) -> bool {
    endpoints.is_controlled_by(route) || endpoints.controller().is_none_or(|owner| owner.uid == service.uid())
}

fn taken(next: &mut Route, what: &str, name: &str, now: Timestamp) -> Stopped {
    let message = format!("There is an existing placeholder {what} \"{name}\" that we do not own.");
    next.conditions(now).mark_false(INGRESS_READY, "NotOwned", &message);
    Stopped
}

fn bare(route: &Route, name: &str) -> Service {
    let labels = without(labels(route), |key| key == VISIBILITY);
    let labels = union(labels, map([(keys::ROUTE, route.name())]));
    Service { metadata: child_of(route, name, labels, annotations(route)), ..Service::default() }
}

fn h2c_port() -> ServicePort {
    ServicePort {
        name: Some("http2".to_owned()),
        app_protocol: Some(H2C.to_owned()),
        port: 80,
        target_port: Some(IntOrString::Int(80)),
        ..ServicePort::default()
    }
}

fn external(host: String) -> ServiceSpec {
    ServiceSpec {
        type_: Some(EXTERNAL_NAME.to_owned()),
        external_name: Some(host),
        session_affinity: Some("None".to_owned()),
        ports: Some(vec![h2c_port()]),
        ..ServiceSpec::default()
    }
}

/// Points the placeholders at where the data plane listens, if it says so already.
pub(super) fn point(route: &Route, placeholders: &[Placeholder], ingress: &Ingress, plan: &mut Plan) {
    for placeholder in placeholders {
        if let Some((spec, subsets)) = target(ingress, &placeholder.service) {
            point_service(route, placeholder, spec, plan);
            point_endpoints(route, placeholder, subsets, plan);
        }
    }
}

/// Where the data plane listens; nothing while it does not say, or says more than one place.
fn target(ingress: &Ingress, service: &Service) -> Option<(ServiceSpec, Option<Vec<EndpointSubset>>)> {
    let private = ingress.status.private_load_balancer.as_ref();
    let hidden = service.label(VISIBILITY) == Some(domains::CLUSTER_LOCAL);
    let balancer = match private {
        Some(private) if hidden || !private.ingress.is_empty() => Some(private),
        None if hidden => None,
        _ => ingress.status.public_load_balancer.as_ref(),
    }?;
    let [entry] = balancer.ingress.as_slice() else { return None };
    let LoadBalancerIngress { ip, domain, domain_internal, mesh_only } = entry;
    if !ip.is_empty() {
        let spec = ServiceSpec {
            type_: Some(CLUSTER_IP.to_owned()),
            cluster_ip: Some(HEADLESS.to_owned()),
            ports: Some(vec![h2c_port()]),
            ..ServiceSpec::default()
        };
        return Some((spec, Some(vec![subset(ip)])));
    }
    let host = [domain_internal, domain].into_iter().find(|host| !host.is_empty());
    if let Some(host) = host {
        return Some((external(host.clone()), None));
    }
    mesh_only.then(|| {
        let port = ServicePort { name: Some("http".to_owned()), port: 80, ..ServicePort::default() };
        let spec =
            ServiceSpec { type_: Some(CLUSTER_IP.to_owned()), ports: Some(vec![port]), ..ServiceSpec::default() };
        (spec, None)
    })
}

fn subset(ip: &str) -> EndpointSubset {
    let port = EndpointPort {
        name: Some("http2".to_owned()),
        app_protocol: Some(H2C.to_owned()),
        port: 80,
        ..EndpointPort::default()
    };
    let address = EndpointAddress { ip: ip.to_owned(), ..EndpointAddress::default() };
    EndpointSubset { addresses: Some(vec![address]), ports: Some(vec![port]), ..EndpointSubset::default() }
}

fn point_service(route: &Route, placeholder: &Placeholder, spec: ServiceSpec, plan: &mut Plan) {
    let service = placeholder.service.as_ref();
    let had = service.spec.clone().unwrap_or_default();
    if !can_become(&had, &spec) {
        // Some types do not change into each other; the next plan makes the Service anew.
        plan.delete(service);
        return;
    }
    let template = bare(route, service.name());
    let mut wanted = service.clone();
    wanted.metadata.labels = some(union(labels(service), labels(&template)));
    wanted.metadata.annotations = some(union(annotations(service), annotations(&template)));
    if !says(&had, &spec) || stale(&had, &spec) {
        let keeps_address = had.type_ == spec.type_ && spec.cluster_ip.is_none() && spec.external_name.is_none();
        let (cluster_ip, cluster_ips) =
            if keeps_address { (had.cluster_ip, had.cluster_ips) } else { (spec.cluster_ip.clone(), None) };
        wanted.spec = Some(ServiceSpec { cluster_ip, cluster_ips, ..spec });
    }
    plan.update(service, wanted);
}

/// Whether the Service still holds what its new type must not.
fn stale(had: &ServiceSpec, spec: &ServiceSpec) -> bool {
    let named = |spec: &ServiceSpec| spec.external_name.as_ref().is_some_and(|name| !name.is_empty());
    named(had) && !named(spec)
}

fn can_become(had: &ServiceSpec, wanted: &ServiceSpec) -> bool {
    let type_of = |spec: &ServiceSpec| spec.type_.clone().unwrap_or_else(|| CLUSTER_IP.to_owned());
    if type_of(had) != type_of(wanted) {
        return type_of(had) == EXTERNAL_NAME;
    }
    let headless = |spec: &ServiceSpec| spec.cluster_ip.as_deref() == Some(HEADLESS);
    type_of(had) != CLUSTER_IP || headless(had) == headless(wanted)
}

fn point_endpoints(route: &Route, placeholder: &Placeholder, subsets: Option<Vec<EndpointSubset>>, plan: &mut Plan) {
    match (&placeholder.endpoints, subsets) {
        (None, Some(subsets)) => {
            let ObjectMeta { labels, annotations, .. } = bare(route, placeholder.service.name()).metadata;
            let metadata = child_of(
                route,
                placeholder.service.name(),
                labels.unwrap_or_default(),
                annotations.unwrap_or_default(),
            );
            plan.create(Endpoints { metadata, subsets: Some(subsets) });
        }
        (Some(endpoints), Some(subsets)) if !says(&endpoints.subsets, &Some(subsets.clone())) => {
            plan.update(endpoints.as_ref(), Endpoints { subsets: Some(subsets), ..Endpoints::clone(endpoints) });
        }
        (Some(endpoints), None) if endpoints.is_controlled_by(route) => plan.delete(endpoints.as_ref()),
        _ => {}
    }
}
