//! Where events go: the address that a Destination stands for.
//!
//! A Destination names an object, a URI, or an object and a URI relative to its address. An object says in its status
//! where it takes events; a Service of the core group is reached by its name.

use knoll_api::{
    Key, Kind, Object,
    config::eventing::Referent,
    duck::{AddressStatus, Destination, KReference},
    status::Addressable,
};

use super::{
    terms::{duck_of, key_of, kind_of},
    uri::Reference,
};
use crate::{DuckKind, Mapper, World, ducks::Lookup};

/// Kinds whose objects can be addressed.
pub(super) const ADDRESSABLE: [Kind; 13] = [
    Kind::CoreService,
    Kind::Service,
    Kind::Route,
    Kind::DomainMapping,
    Kind::Broker,
    Kind::Channel,
    Kind::InMemoryChannel,
    Kind::Sequence,
    Kind::Parallel,
    Kind::EventTransform,
    Kind::RequestReply,
    Kind::JobSink,
    Kind::IntegrationSink,
];

/// What wakes a row whose objects send events to others, beside `others`.
pub(super) const fn wakes<const OTHERS: usize, const ALL: usize>(
    others: [(Kind, Mapper); OTHERS],
) -> [(Kind, Mapper); ALL] {
    assert!(ALL == OTHERS + ADDRESSABLE.len(), "room for both and no more");
    let mut all: [(Kind, Mapper); ALL] = [(Kind::CoreService, by_reference); ALL];
    let mut at = 0;
    while at < ALL {
        all[at] = if at < OTHERS { others[at] } else { (ADDRESSABLE[at - OTHERS], by_reference) };
        at += 1;
    }
    all
}

/// Objects of the row's kind that send events to the object, or take events from it.
pub(super) fn by_reference(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    world.leading_to(of, object.kind(), &object.key())
}

/// The address that a Destination of an object in this namespace stands for.
///
/// # Errors
/// Why there is none, in words for the user.
pub(super) fn resolve(world: &World, to: &Destination, namespace: &str) -> Result<Addressable, String> {
    let uri = to.uri.as_deref().map(Reference::of);
    let Some(reference) = &to.ref_ else {
        let text = to.uri.as_ref().ok_or("destination missing Ref and URI, expected at least one")?;
        if !uri.is_some_and(|uri| uri.is_absolute() && !uri.host().is_empty()) {
            return Err(format!("URI is not absolute (both scheme and host should be non-empty): {text:?}"));
        }
        let (ca_certs, audience) = (to.ca_certs.clone(), to.audience.clone());
        return Ok(Addressable { name: None, url: to.uri.clone(), ca_certs, audience });
    };
    let mut address = of_reference(world, to, reference, namespace)?;
    if let Some(uri) = uri {
        if uri.is_absolute() {
            return Err("absolute URI is not allowed when Ref or [apiVersion, kind, name] exists".to_owned());
        }
        address.url = address.url.map(|base| Reference::of(&base).resolve(&uri));
    }
    Ok(address)
}

fn of_reference(
    world: &World,
    to: &Destination,
    reference: &KReference,
    namespace: &str,
) -> Result<Addressable, String> {
    let key = key_of(reference, namespace);
    let plain = |url| Addressable {
        name: reference.address.clone(),
        url: Some(url),
        ca_certs: to.ca_certs.clone(),
        audience: to.audience.clone(),
    };
    if let Some(url) = mapped(world, reference, &key) {
        return url.map(plain);
    }
    let found = match look_up(world, reference, &key)? {
        Some(Object::CoreService(_)) => {
            let scheme = if to.ca_certs.as_deref().is_some_and(|bundle| !bundle.is_empty()) { "https" } else { "http" };
            return Ok(plain(format!("{scheme}://{}", service_host(world, &key))));
        }
        Some(object) => addresses(&object).unwrap_or_default(),
        None => look_up_duck(world, reference, &key)?,
    };
    let shown = shown(reference, &key);
    let mut address = select(reference, found, &shown)?;
    let url = address.url.as_deref().ok_or_else(|| format!("URL missing in address of {shown}"))?;
    if Reference::of(url).host().is_empty() {
        return Err(format!("hostname missing in address of {shown}"));
    }
    // What the Destination says goes before what the object says.
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    address.ca_certs = given(&to.ca_certs).or(address.ca_certs);
    address.audience = given(&to.audience).or(address.audience);
    Ok(address)
}

/// Name inside the cluster of a Service of the core group.
pub(super) fn service_host(world: &World, service: &Key) -> String {
    format!("{}.{}.svc.{}", service.name, service.namespace, world.settings.cluster_domain)
}

/// The URI that the configuration has for objects of this kind, where it may have any.
fn mapped(world: &World, reference: &KReference, key: &Key) -> Option<Result<String, String>> {
    if !world.eventing.features.kreference_mapping.is_enabled() {
        return None;
    }
    // Templates may speak of the uid, but a reference has none.
    let object = Referent {
        name: &key.name,
        namespace: &key.namespace,
        uid: "",
        system_namespace: &world.settings.eventing_namespace,
    };
    let mapping = &world.eventing.kreference_mapping;
    Some(mapping.uri(&reference.api_version, &reference.kind, object)?.map_err(|error| error.to_string()))
}

/// The object that a reference means, if its kind can be addressed; nothing where controllers do not know the kind.
fn look_up(world: &World, reference: &KReference, key: &Key) -> Result<Option<Object>, String> {
    let Some(kind) = kind_of(reference) else { return Ok(None) };
    if !ADDRESSABLE.contains(&kind) {
        // Whether it is there or not, it has none.
        return Err(format!("address not set for {}", shown(reference, key)));
    }
    let found = world.object(kind, key);
    found.map(Some).ok_or_else(|| format!("failed to get object {key}: {}", not_found(kind, &key.name)))
}

/// Where an object of somebody's own kind takes events.
fn look_up_duck(world: &World, reference: &KReference, key: &Key) -> Result<AddressStatus, String> {
    let no_lister = |why: &str| {
        let (group, version) = match reference.api_version.rsplit_once('/') {
            Some(both) => both,
            None if reference.api_version.is_empty() => (reference.group.as_str(), ""),
            None => ("", reference.api_version.as_str()),
        };
        let plural = plural(&reference.kind);
        format!("failed to get lister for {group}/{version}, Resource={plural}: {why}")
    };
    let nobodys = || no_lister(&format!("no kind {:?} that takes events is known here", reference.kind));
    let kind = duck_of(reference).ok_or_else(nobodys)?;
    match world.ducks.look_up(&kind, key) {
        Lookup::Found(object) => Ok(object.address.clone()),
        Lookup::Unknown(why) => Err(no_lister(why)),
        Lookup::Missing => Err(format!("failed to get object {key}: {}", duck_not_found(&kind, &key.name))),
    }
}

/// The same of a kind that controllers do not know.
pub(super) fn duck_not_found(kind: &DuckKind, name: &str) -> String {
    format!("{}.{} {name:?} not found", plural(&kind.kind), kind.group())
}

/// How the API says that an object is not there.
pub(super) fn not_found(kind: Kind, name: &str) -> String {
    let group = if kind.group().is_empty() { String::new() } else { format!(".{}", kind.group()) };
    format!("{}{group} {name:?} not found", kind.plural())
}

/// The plural that clients guess for a kind that they do not know.
pub(super) fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.as_bytes().last() {
        Some(b's') => format!("{kind}es"),
        Some(b'y') => format!("{}ies", &kind[..kind.len() - 1]),
        _ => format!("{kind}s"),
    }
}

/// A reference as messages show it.
fn shown(reference: &KReference, key: &Key) -> String {
    format!(
        "Kind = {}, Namespace = {}, Name = {}, APIVersion = {}, Group = {}, Address = {}",
        reference.kind,
        key.namespace,
        key.name,
        reference.api_version,
        reference.group,
        reference.address.as_deref().unwrap_or_default()
    )
}

/// Where an object takes events; nothing for a kind that takes none.
fn addresses(object: &Object) -> Option<AddressStatus> {
    let one = |address: &Option<Addressable>| AddressStatus { address: address.clone(), addresses: Vec::new() };
    Some(match object {
        Object::Service(object) => one(&object.status.address),
        Object::Route(object) => one(&object.status.address),
        Object::DomainMapping(object) => one(&object.status.address),
        Object::Broker(object) => object.status.address.clone(),
        Object::Channel(object) => object.status.channelable.address.clone(),
        Object::InMemoryChannel(object) => object.status.address.clone(),
        Object::Sequence(object) => object.status.address.clone(),
        Object::Parallel(object) => object.status.address.clone(),
        Object::EventTransform(object) => object.status.address.clone(),
        Object::RequestReply(object) => object.status.address.clone(),
        Object::JobSink(object) => object.status.address.clone(),
        Object::IntegrationSink(object) => object.status.address.clone(),
        _ => return None,
    })
}

/// The address that is asked for by name, else the first, else the only one.
fn select(reference: &KReference, status: AddressStatus, shown: &str) -> Result<Addressable, String> {
    if status.addresses.is_empty() && status.address.is_none() {
        return Err(format!("address not set for {shown}"));
    }
    if let Some(name) = reference.address.as_deref().filter(|name| !name.is_empty()) {
        let found = status.addresses.into_iter().find(|address| address.name.as_deref() == Some(name));
        return found.ok_or_else(|| format!("address with name {name:?} not found for {shown}"));
    }
    let address = status.addresses.into_iter().next().or(status.address);
    address.ok_or_else(|| format!("address not set for {shown}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use knoll_api::config::{Data, eventing::KReferenceMapping};

    use serde_json::json;

    use super::super::fixture::{cluster, feature};
    use super::*;
    use crate::{DuckObject, DuckSeen};

    const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: plain}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: app}
status: {address: {url: "http://app.default.svc.cluster.local"}, url: "http://app.example.com"}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: young}
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {name: odd}
status: {address: {url: "http://"}}
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {name: hollow}
status: {address: {}}
---
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b, namespace: other}
status:
  address: {name: http, url: "http://in/other/b"}
  addresses:
  - {name: https, url: "https://in/other/b?x=1", CACerts: PEM, audience: me}
  - {name: http, url: "http://in/other/b"}
"#;

    fn told(world: &World, to: &str) -> String {
        let to: Destination = serde_saphyr::from_str(to).expect("a Destination");
        match resolve(world, &to, "default") {
            Ok(found) => {
                let parts = [found.name, found.url, found.ca_certs, found.audience];
                parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
            }
            Err(why) => format!("! {why}"),
        }
    }

    #[test]
    fn a_destination_is_where_its_object_takes_events() {
        let world = cluster(&[OBJECTS], &[]).world;
        let broker = "ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b, namespace: other";
        let absent =
            |kind: &str| format!("! failed to get lister for x.dev/v1, Resource={kind}: it was not listed yet");
        for (to, expected) in [
            ("uri: http://example.com/a", "http://example.com/a"),
            ("{uri: 'https://e.com', CACerts: PEM, audience: me}", "https://e.com PEM me"),
            ("uri: /relative", "! URI is not absolute (both scheme and host should be non-empty): \"/relative\""),
            ("uri: 'mailto:me'", "! URI is not absolute (both scheme and host should be non-empty): \"mailto:me\""),
            ("{}", "! destination missing Ref and URI, expected at least one"),
            ("ref: {apiVersion: v1, kind: Service, name: plain}", "http://plain.default.svc.cluster.local"),
            (
                "{ref: {apiVersion: v1, kind: Service, name: plain}, CACerts: PEM, uri: 'a/b?c'}",
                "https://plain.default.svc.cluster.local/a/b?c PEM",
            ),
            (
                "ref: {apiVersion: v1, kind: Service, name: plain, namespace: other}",
                "! failed to get object other/plain: services \"plain\" not found",
            ),
            (
                "ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: app}",
                "http://app.default.svc.cluster.local",
            ),
            (
                "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: app}, uri: 'http://x'}",
                "! absolute URI is not allowed when Ref or [apiVersion, kind, name] exists",
            ),
            (
                "ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: gone}",
                "! failed to get object default/gone: services.serving.knative.dev \"gone\" not found",
            ),
            (
                "ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: young}",
                "! address not set for Kind = Service, Namespace = default, Name = young, \
                 APIVersion = serving.knative.dev/v1, Group = , Address = ",
            ),
            (
                "ref: {apiVersion: serving.knative.dev/v1, kind: Route, name: odd}",
                "! hostname missing in address of Kind = Route, Namespace = default, Name = odd, \
                 APIVersion = serving.knative.dev/v1, Group = , Address = ",
            ),
            (
                "ref: {apiVersion: serving.knative.dev/v1, kind: Route, name: hollow}",
                "! URL missing in address of Kind = Route, Namespace = default, Name = hollow, \
                 APIVersion = serving.knative.dev/v1, Group = , Address = ",
            ),
            (&format!("{broker}}}"), "https https://in/other/b?x=1 PEM me"),
            (&format!("{broker}, address: http}}"), "http http://in/other/b"),
            (&format!("{{{broker}}}, CACerts: MINE, audience: you, uri: '../c'}}"), "https https://in/c MINE you"),
            (
                &format!("{broker}, address: ftp}}"),
                "! address with name \"ftp\" not found for Kind = Broker, Namespace = other, Name = b, \
                 APIVersion = eventing.knative.dev/v1, Group = , Address = ftp",
            ),
            (
                "ref: {group: eventing.knative.dev, kind: Broker, name: b, namespace: other}",
                "https https://in/other/b?x=1 PEM me",
            ),
        ] {
            assert_eq!(told(&world, to), expected, "{to}");
        }
        for (kind, plural) in [("Thing", "things"), ("Box", "boxs"), ("Policy", "policies"), ("Bus", "buses")] {
            let found = told(&world, &format!("ref: {{apiVersion: x.dev/v1, kind: {kind}, name: a}}"));
            assert!(found.starts_with(&absent(plural)), "{found}");
            let found = told(&world, &format!("ref: {{apiVersion: dev/v1, kind: {kind}, name: a}}"));
            assert!(found.contains("no kind") && found.contains("is known here"), "{found}");
        }
    }

    #[test]
    fn an_object_of_a_users_own_kind_takes_events_where_its_status_says() {
        let mut world = cluster(&[], &[]).world;
        let kind = DuckKind::of("example.com/v1", "Thing").expect("somebody's own");
        let see = |world: &mut World, seen| world.see_duck(kind.clone(), seen);
        let to = "{ref: {apiVersion: example.com/v1, kind: Thing, name: t}, uri: in}";
        assert!(told(&world, to).ends_with("Resource=things: it was not listed yet"));
        see(&mut world, DuckSeen::Unknown("example.com/v1 is not served".into()));
        assert!(told(&world, to).ends_with("Resource=things: example.com/v1 is not served"));
        see(&mut world, DuckSeen::Listed);
        assert_eq!(told(&world, to), "! failed to get object default/t: things.example.com \"t\" not found");
        let thing = |status| DuckObject::read(&json!({"status": status}));
        for (status, expected) in [
            (json!({"conditions": []}), "! address not set for Kind = Thing, Namespace = default, Name = t"),
            (json!({"address": {"url": "http://t.example/a/"}}), "http://t.example/a/in"),
            (
                json!({"address": {"url": "http://no"}, "addresses": [{"url": "https://t", "CACerts": "PEM"}]}),
                "https://t/in PEM",
            ),
        ] {
            see(&mut world, DuckSeen::Put(Key::new("default", "t"), thing(status)));
            assert!(told(&world, to).starts_with(expected), "{}", told(&world, to));
        }
        see(&mut world, DuckSeen::Gone(Key::new("default", "t")));
        assert!(told(&world, to).ends_with("not found"));
    }

    #[test]
    fn kinds_may_be_mapped_to_uris_where_the_feature_is_on() {
        let mut cluster = cluster(&[], &[]);
        let data = Data::from([("Pod.v1".to_owned(), "https://pods.{{ .SystemNamespace }}/{{ .Name }}".to_owned())]);
        let mut bundle = cluster.world.eventing.as_ref().clone();
        bundle.kreference_mapping = KReferenceMapping::parse(&data).expect("a template");
        cluster.world.eventing = Arc::new(bundle);
        let to = "{ref: {apiVersion: v1, kind: Pod, name: p}, uri: x}";
        assert!(told(&cluster.world, to).starts_with("! address not set for Kind = Pod, Namespace = default"));
        feature(&mut cluster, "kreference-mapping", "enabled");
        assert_eq!(told(&cluster.world, to), "https://pods.knative-eventing/x");
    }
}
