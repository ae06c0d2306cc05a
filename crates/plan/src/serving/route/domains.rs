//! Under which names a Route answers.

use std::collections::BTreeSet;

use knoll_api::{Resource, labels::networking::VISIBILITY, serving::Route, syntax};

use super::Hidden;
use crate::{
    World,
    children::{annotations, labels},
};

/// Value of the visibility label that hides.
pub(crate) const CLUSTER_LOCAL: &str = "cluster-local";

/// Whether all names of the Route are hidden from outside.
pub(super) fn is_local(world: &World, route: &Route) -> bool {
    world.config.domain.lookup(&labels(route)) == format!("svc.{}", world.settings.cluster_domain)
}

/// The first part of the host of a tag; of the Route itself for no tag.
pub(super) fn tagged_name(world: &World, route: &Route, tag: &str) -> Result<String, String> {
    let name = world.config.network.tagged_name(route.name(), tag);
    name.map_err(|error| format!("domain name error: error executing the TagTemplate: {error}"))
}

/// The host that `name` answers under, inside or outside.
pub(super) fn host(world: &World, route: &Route, name: &str, local: bool) -> Result<String, String> {
    if local {
        return Ok(local_host(world, route.namespace(), name));
    }
    let mut labels = labels(route);
    labels.remove(VISIBILITY);
    let domain = world.config.domain.lookup(&labels);
    let network = &world.config.network;
    let host = network
        .host(name, route.namespace(), &domain, &annotations(route), &labels)
        .map_err(|error| format!("domain name error: error executing the DomainTemplate: {error}"))?;
    let problems = syntax::fully_qualified_domain(&host);
    if problems.is_empty() {
        return Ok(host);
    }
    // Each says itself which part of the name is wrong.
    Err(format!("domain name error: invalid domain name \"{host}\": url: {}", problems.join(", ")))
}

/// The full name of a Service inside the cluster.
pub(crate) fn local_host(world: &World, namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.svc.{}", world.settings.cluster_domain)
}

/// The hosts that `name` answers under, inside or outside, in order: inside, every form that resolves.
pub(super) fn hosts(world: &World, route: &Route, name: &str, local: bool) -> Result<BTreeSet<String>, String> {
    let host = host(world, route, name, local)?;
    if !local {
        return Ok(BTreeSet::from([host]));
    }
    let short = format!("{name}.{}", route.namespace());
    Ok(BTreeSet::from([host, format!("{short}.svc"), short]))
}

/// A URL that can be pasted: with a port only where the gateway does not have the usual one.
pub(crate) fn url(world: &World, host: &str, local: bool) -> String {
    let scheme = if local { "http" } else { &world.config.network.default_external_scheme };
    with_port(world, scheme, host, local)
}

/// A URL of `scheme` for `host`.
pub(crate) fn with_port(world: &World, scheme: &str, host: &str, local: bool) -> String {
    let gateway = &world.settings.gateway;
    let (usual, port) = if scheme == "https" { (443, gateway.https_port) } else { (80, gateway.http_port) };
    if local || port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
}

/// Where the Route is reached from inside.
pub(super) fn local_address(world: &World, route: &Route) -> String {
    format!("http://{}", local_host(world, route.namespace(), route.name()))
}

/// The URL of a tag.
pub(super) fn tag_url(world: &World, route: &Route, tag: &str, hidden: &Hidden) -> Result<String, String> {
    let local = hidden.get(tag).copied().unwrap_or_default();
    let name = tagged_name(world, route, tag)?;
    Ok(url(world, &host(world, route, &name, local)?, local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GatewayAddresses, Settings};

    #[test]
    fn a_name_that_is_too_long_is_told_once() {
        let world = World::new(Settings::default());
        let mut route = Route::default();
        route.metadata.namespace = Some("default".to_owned());
        let long = "a".repeat(64);
        let refused = host(&world, &route, &long, false).unwrap_err();
        let rest = refused.split_once(": url: ").expect("the field").1;
        assert_eq!(rest, format!("Invalid value: \"{long}\": must be no more than 63 characters"));
    }

    #[test]
    fn a_url_shows_a_port_only_where_it_must() {
        let settings = Settings::default();
        let gateway = GatewayAddresses { http_port: 8080, https_port: 8443, ..settings.gateway.clone() };
        let odd = World::new(Settings { gateway, ..settings.clone() });
        let usual = World::new(settings);
        assert_eq!(url(&usual, "a.localhost", false), "http://a.localhost");
        assert_eq!(url(&odd, "a.localhost", false), "http://a.localhost:8080");
        assert_eq!(with_port(&odd, "https", "a.localhost", false), "https://a.localhost:8443");
        assert_eq!(url(&odd, "a.b.svc.cluster.local", true), "http://a.b.svc.cluster.local");
    }
}
