//! The gateway's routing table, from Ingresses, Revisions and pods.
//!
//! [`build`] is the definition. [`Routing`] gives the same table by redoing only what changes touch; the tests
//! hold one against the other. Two Ingresses that claim one host: the first by namespace and name has it.
//!
//! A backend is keyed by the Kubernetes Service that an Ingress names when that Service is a Revision's, which
//! speaks one protocol on one port; any other Service is keyed `name:port`.

mod backend;
mod ingress_routes;
mod routing;

use std::sync::Arc;

use imbl::OrdMap;
use knoll_api::{
    Key, Kind,
    table::{Host, RoutingTable},
};

pub use routing::{Panics, Routing, Update};

use crate::World;

/// Kinds that a table is made of.
pub const KINDS: &[Kind] = &[
    Kind::Ingress,
    Kind::Revision,
    Kind::ServerlessService,
    Kind::PodAutoscaler,
    Kind::Pod,
    Kind::CoreService,
    Kind::Endpoints,
    Kind::ConfigMap,
];

/// The table that `world` describes.
pub fn build(world: &World) -> RoutingTable {
    let mut table = RoutingTable::default();
    for ingress in world.ingresses.keys() {
        let Some(routes) = ingress_routes::ingress_routes(world, &ingress) else { continue };
        claim(&mut table.external, routes.external);
        claim(&mut table.local, routes.local);
        for key in routes.backends {
            add_backend(world, &mut table, key);
        }
    }
    for key in world.serverless_services.keys().filter(|key| backend::is_revision(world, key)) {
        add_backend(world, &mut table, key);
    }
    table
}

fn claim(hosts: &mut OrdMap<String, Arc<Host>>, claimed: ingress_routes::Hosts) {
    for (name, host) in claimed {
        hosts.entry(name).or_insert(host);
    }
}

fn add_backend(world: &World, table: &mut RoutingTable, key: Key) {
    let backend = || Arc::new(backend::backend(world, &key));
    table.backends.entry(key.clone()).or_insert_with(backend);
}

#[cfg(test)]
mod tests;
