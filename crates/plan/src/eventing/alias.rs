//! Services of their own for what the data plane takes events of by name: aliases of the Service that takes them all.

use knoll_api::{
    Key, Kind, Object, Resource,
    k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec},
    names,
};

use super::destination;
use crate::{
    Plan, World,
    children::{Map, child_of, says},
};

/// Port of the Services.
const PORT: i32 = 80;

/// Sees to the Service of an object that is called like it with a suffix, an alias of one in Eventing's own namespace.
/// Returns its key.
///
/// # Errors
/// When its name is another's, or the API server did not want it; in words for the user.
pub(super) fn settle<R: Resource + Into<Object>>(
    world: &World,
    owner: &R,
    suffix: &str,
    labels: Map,
    of: &str,
    plan: &mut Plan,
) -> Result<Key, String> {
    let spec = spec(destination::service_host(world, &Key::new(&world.settings.eventing_namespace, of)));
    let metadata = child_of(owner, names::child(owner.name(), suffix), labels, Default::default());
    let wanted = Service { metadata, spec: Some(spec), ..Service::default() };
    let key = wanted.key();
    let Some(existing) = world.core_services.get(&key) else {
        let refusal = world.observed.refusals.get(&(Kind::CoreService, key.clone()));
        let refused = refusal.map(|refusal| refusal.message.clone());
        plan.create(wanted);
        return refused.map_or(Ok(key), Err);
    };
    if !existing.is_controlled_by(owner) {
        let kind = R::KIND.kind().to_lowercase();
        return Err(format!("{kind}: {} does not own Service: {:?}", owner.key(), key.name));
    }
    if !says(&existing.spec, &wanted.spec) {
        plan.update(existing.as_ref(), Service { spec: wanted.spec, ..Service::clone(&existing) });
    }
    Ok(key)
}

fn spec(host: String) -> ServiceSpec {
    let port = ServicePort {
        name: Some("http".to_owned()),
        protocol: Some("TCP".to_owned()),
        port: PORT,
        ..ServicePort::default()
    };
    ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some(host),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    }
}
