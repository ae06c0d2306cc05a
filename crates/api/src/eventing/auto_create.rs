//! EventTypes that are made of events, where the feature `eventtype-auto-create` is on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use knoll_event::Event;

use super::{EventType, EventTypeSpec};
use crate::{Key, Kind, duck::KReference, names::md5_hex, syntax};

/// Longest name of an object.
const LONGEST_NAME: usize = 253;
/// What is left free of a name that is cut.
const ROOM: usize = 10;

/// The EventType that an event makes which an object took: of the object's namespace, owned by it, and of the same name
/// for every event of the same type and source.
pub fn auto_created(kind: Kind, object: &Key, uid: &str, event: &Event) -> EventType {
    let reference = KReference {
        kind: kind.kind().to_owned(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        api_version: kind.api_version(),
        ..KReference::default()
    };
    let owner = OwnerReference {
        api_version: kind.api_version(),
        kind: kind.kind().to_owned(),
        name: object.name.clone(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    EventType {
        metadata: ObjectMeta {
            name: Some(name(object, event)),
            namespace: Some(object.namespace.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: EventTypeSpec {
            type_: event.kind().to_owned(),
            source: Some(event.source().to_owned()),
            schema: event.data_schema().map(str::to_owned),
            reference: Some(reference),
            description: "Event Type auto-created by controller".to_owned(),
            ..EventTypeSpec::default()
        },
        ..EventType::default()
    }
}

/// Byte for byte what `knative.dev/eventing/pkg/eventtype` gives.
fn name(object: &Key, event: &Event) -> String {
    let hash = md5_hex(&format!("{}{}{}{}", event.kind(), event.source(), object.namespace, object.name));
    let mut name = format!("et-{}-{hash}", object.name);
    if syntax::dns1123_subdomain(&name).is_empty() {
        return name;
    }
    if name.len() > LONGEST_NAME {
        name.truncate(LONGEST_NAME - ROOM);
    }
    let name = name.to_lowercase();
    let kept: String =
        name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(*c)).collect();
    kept.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_is_named_by_what_it_is_of_and_owned_by_who_took_the_event() {
        let event = Event::new("1", "/s", "com.example.Thing").expect("an event");
        let of = |name: &str, event: &Event| auto_created(Kind::Broker, &Key::new("ns", name), "u", event);
        let made = of("b", &event);
        // md5 of `com.example.Thing/snsb`.
        assert_eq!(made.metadata.name.as_deref(), Some("et-b-c76807b24ccdc6c2135a8ee2c4216c3d"));
        let owner = &made.metadata.owner_references.as_ref().expect("an owner")[0];
        assert_eq!((owner.uid.as_str(), owner.kind.as_str(), owner.controller), ("u", "Broker", None));
        assert_eq!((made.spec.type_.as_str(), made.spec.source.as_deref()), ("com.example.Thing", Some("/s")));
        assert_eq!(made.spec.reference.as_ref().map(|to| to.api_version.as_str()), Some("eventing.knative.dev/v1"));
        assert_eq!(of("b", &Event::new("2", "/s", "com.example.Thing").expect("an event")), made, "whatever the id");
        assert_ne!(of("b", &Event::new("1", "/t", "com.example.Thing").expect("an event")).metadata, made.metadata);
    }

    #[test]
    fn the_longest_names_of_brokers_give_legal_names() {
        let event = Event::new("1", "/s", "t").expect("an event");
        let made = auto_created(Kind::Broker, &Key::new("ns", "b.".repeat(126)), "u", &event);
        let name = made.metadata.name.expect("a name");
        assert!(name.len() <= LONGEST_NAME && syntax::dns1123_subdomain(&name).is_empty(), "{name}");
    }
}
