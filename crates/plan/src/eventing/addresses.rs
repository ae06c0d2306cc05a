//! Where Eventing's own objects take events: over http, https, or either, as the feature `transport-encryption` says.

use knoll_api::{
    Key, Kind, Object, Timestamp, config::eventing::TransportEncryption, duck::AddressStatus,
    k8s_openapi::api::core::v1::Secret, status::Addressable,
};

use super::{ADDRESSABLE, destination::not_found, identity};
use crate::{World, status::Reporting};

/// Entry of a certificate's Secret with the bundle to trust.
const CA_CERT: &str = "ca.crt";

/// Where an object takes events, before it is known how they travel.
pub(super) struct Place {
    /// URL over http.
    pub http: String,
    /// URL over https.
    pub https: String,
    /// Secret, in Eventing's namespace, of the certificate that is presented there.
    pub secret: &'static str,
}

/// Writes where the object takes events.
///
/// # Errors
/// When nobody can tell what to trust there; the status says so.
pub(super) fn settle<R: Reporting>(
    world: &World,
    next: &mut R,
    place: Place,
    now: Timestamp,
    status: fn(&mut R) -> &mut AddressStatus,
) -> Result<(), super::Stopped> {
    let audience = world.eventing.features.oidc_authentication.is_enabled().then(|| identity::audience(next));
    settle_for(world, next, place, audience, now, status)
}

/// The same where senders need not say who they are, whatever the features say.
///
/// # Errors
/// When nobody can tell what to trust there; the status says so.
pub(super) fn settle_without_audience<R: Reporting>(
    world: &World,
    next: &mut R,
    place: Place,
    now: Timestamp,
    status: fn(&mut R) -> &mut AddressStatus,
) -> Result<(), super::Stopped> {
    settle_for(world, next, place, None, now, status)
}

fn settle_for<R: Reporting>(
    world: &World,
    next: &mut R,
    place: Place,
    audience: Option<String>,
    now: Timestamp,
    status: fn(&mut R) -> &mut AddressStatus,
) -> Result<(), super::Stopped> {
    let ca_certs = match world.eventing.features.transport_encryption {
        TransportEncryption::Disabled => None,
        _ => ca_certs(world, place.secret).map_err(|why| {
            next.conditions(now).mark_unknown(ADDRESSABLE, "CACertsNotAvailable", &why);
            super::Stopped
        })?,
    };
    *status(next) = by_encryption(world, place.http, place.https, ca_certs, audience);
    next.conditions(now).mark_true(ADDRESSABLE);
    Ok(())
}

/// The addresses of what is reached at these URLs, of which the feature says which count.
pub(super) fn by_encryption(
    world: &World,
    http: String,
    https: String,
    ca_certs: Option<String>,
    audience: Option<String>,
) -> AddressStatus {
    let http = address("http", http, None, &audience);
    let https = address("https", https, ca_certs, &audience);
    match world.eventing.features.transport_encryption {
        TransportEncryption::Disabled => AddressStatus { address: Some(http), addresses: Vec::new() },
        TransportEncryption::Permissive => AddressStatus { address: Some(http.clone()), addresses: vec![https, http] },
        TransportEncryption::Strict => AddressStatus { address: Some(https.clone()), addresses: vec![https] },
    }
}

fn address(scheme: &str, url: String, ca_certs: Option<String>, audience: &Option<String>) -> Addressable {
    Addressable { name: Some(scheme.to_owned()), url: Some(url), ca_certs, audience: audience.clone() }
}

/// What to trust where the certificate of a Secret is presented; nothing but the system's roots when it does not say.
fn ca_certs(world: &World, secret: &str) -> Result<Option<String>, String> {
    let key = Key::new(&world.settings.eventing_namespace, secret);
    let found = world.secrets.get(&key);
    let found =
        found.ok_or_else(|| format!("failed to get CA certs from {key}: {}", not_found(Kind::Secret, secret)))?;
    Ok(authority_of(&found))
}

/// What to trust where the certificate of this Secret is presented, if it says so.
pub(super) fn authority_of(secret: &Secret) -> Option<String> {
    let bundle = secret.data.as_ref()?.get(CA_CERT)?;
    Some(String::from_utf8_lossy(&bundle.0).into_owned())
}

/// Every object of the row's kind, when the Secret of this name is the object that changed.
pub(super) fn by_secret(world: &World, object: &Object, of: Kind, secret: &str) -> Vec<Key> {
    let changed = object.key();
    let concerned = changed.namespace == world.settings.eventing_namespace
        && changed.name == secret
        && world.eventing.features.transport_encryption != TransportEncryption::Disabled;
    if concerned { world.keys(of) } else { Vec::new() }
}
