//! Tells the data plane of events how they travel: by the feature `transport-encryption`, the Secrets of certificates and the
//! bundles of certificates to trust.

use knoll_api::{
    Object, Resource,
    eventing::services::CERTIFICATES,
    k8s_openapi::api::core::v1::{ConfigMap, Secret},
    labels::eventing::TRUST_BUNDLE,
};
use knoll_broker::Transport;
use knoll_plan::{Changed, World};

/// Entries of a certificate's Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Tells everything.
pub(super) fn tell(transport: &Transport, world: &World) {
    transport.encrypt(world.eventing.features.transport_encryption);
    for secret in world.secrets.in_namespace(&world.settings.eventing_namespace) {
        present(transport, &secret);
    }
    trust(transport, world);
}

/// Tells what is different by a change of an object that the World holds already. A certificate whose Secret is gone is
/// presented until there is another, as upstream.
pub(super) fn changed(transport: &Transport, world: &World, change: &Changed) {
    let Changed::Object { before, after } = change else { return };
    let is_systems = |object: &&Object| object.key().namespace == world.settings.eventing_namespace;
    if let Some(Object::Secret(secret)) = after.as_ref().filter(is_systems) {
        present(transport, secret);
    }
    let is_bundle =
        |object: &Object| matches!(object, Object::ConfigMap(map) if map.label(TRUST_BUNDLE) == Some("true"));
    if before.iter().chain(after).filter(is_systems).any(is_bundle) {
        trust(transport, world);
    }
}

fn present(transport: &Transport, secret: &Secret) {
    let Some((service, name)) = CERTIFICATES.iter().find(|(_, name)| *name == secret.name()) else { return };
    let entry = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map_or(&[][..], |bytes| &bytes.0);
    if let Err(error) = transport.present(service, entry(CERTIFICATE), entry(KEY)) {
        tracing::error!(secret = *name, %error, "a certificate cannot be presented; the one before it still is");
    }
}

fn trust(transport: &Transport, world: &World) {
    let maps = world.config_maps.labelled(&world.settings.eventing_namespace, TRUST_BUNDLE, "true");
    transport.trust(maps.iter().flat_map(|map| bundles(map)));
}

/// Every entry of a ConfigMap.
fn bundles(map: &ConfigMap) -> impl Iterator<Item = &[u8]> {
    let texts = map.data.iter().flatten().map(|(_, text)| text.as_bytes());
    texts.chain(map.binary_data.iter().flatten().map(|(_, bytes)| &*bytes.0))
}
