//! EventType: whether there is what it says sends or takes such events.

use knoll_api::{Key, Kind, Resource, Timestamp, duck::KReference, eventing::EventType};

use super::{
    destination,
    terms::{duck_of, is_decidable, key_of, kind_of},
};
use crate::{Absence, Mapper, Plan, Row, World, ducks::Lookup, status::Reporting};

const REFERENCE_EXISTS: &str = "ReferenceExists";

const WAKES: [(Kind, Mapper); 18] = destination::wakes([
    (Kind::ApiServerSource, destination::by_reference),
    (Kind::ContainerSource, destination::by_reference),
    (Kind::PingSource, destination::by_reference),
    (Kind::SinkBinding, destination::by_reference),
    (Kind::IntegrationSource, destination::by_reference),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "event-type",
    of: Kind::EventType,
    wakes: &WAKES,
    configs: &[],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(type_) = world.event_types.get(key).filter(|type_| is_decidable(world, type_.as_ref())) else {
        return plan;
    };
    let mut next = EventType::clone(&type_);
    next.conditions(now).initialize();
    check_reference(world, &mut next, now);
    plan.report(type_.as_ref(), next);
    plan
}

fn check_reference(world: &World, next: &mut EventType, now: Timestamp) {
    let reference = next.spec.reference.clone().filter(|reference| *reference != KReference::default());
    let namespace = next.namespace().to_owned();
    let mut conditions = next.conditions(now);
    let Some(reference) = reference else {
        conditions.mark_true_with_reason(REFERENCE_EXISTS, "ReferenceNotSet", "spec.reference is not set");
        return;
    };
    let (kind, key) = (kind_of(&reference), key_of(&reference, &namespace));
    let exists = match (kind.filter(|kind| WAKES.iter().any(|(on, _)| on == kind)), duck_of(&reference)) {
        (Some(kind), _) => Some(world.contains(kind, &key)),
        (None, Some(duck)) => match world.ducks.look_up(&duck, &key) {
            Lookup::Found(_) => Some(true),
            Lookup::Missing => Some(false),
            Lookup::Unknown(_) => None,
        },
        (None, None) => None,
    };
    match exists {
        Some(true) => conditions.mark_true(REFERENCE_EXISTS),
        Some(false) => {
            let text = "Resource in spec.reference does not exist";
            conditions.mark_false(REFERENCE_EXISTS, "ResourceDoesNotExist", text)
        }
        None => {
            let (kind, api_version) = (&reference.kind, &reference.api_version);
            let text =
                format!("Failed to get reference: nothing of kind {kind} ({api_version}) sends or takes events here");
            conditions.mark_unknown(REFERENCE_EXISTS, "ReferenceGetFailed", &text)
        }
    };
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{cluster, status, unhappy};
    use super::*;
    use crate::check::planned;

    #[test]
    fn an_event_type_is_ready_when_what_it_speaks_of_is_there() {
        let of = |reference: &str| {
            format!(
                "apiVersion: eventing.knative.dev/v1beta2\nkind: EventType\nmetadata: {{name: e}}\nspec: {{type: t{reference}}}\n"
            )
        };
        let broker = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b}\n";
        let to = ", reference: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}";
        assert_eq!(unhappy(&ROW, "default/e", &cluster(&[&of(to), broker], &[])), "");
        let told = unhappy(&ROW, "default/e", &cluster(&[&of(to)], &[]));
        let text = "ReferenceExists=False ResourceDoesNotExist Resource in spec.reference does not exist\n";
        assert!(told.contains(text), "{told}");
        let odd = of(", reference: {apiVersion: v1, kind: Node, name: b}");
        let told = unhappy(&ROW, "default/e", &cluster(&[&odd], &[]));
        assert!(
            told.contains("ReferenceExists=Unknown ReferenceGetFailed Failed to get reference: nothing of"),
            "{told}"
        );
        let status = status(&planned(&ROW, "default/e", &cluster(&[&of("")], &[])));
        assert_eq!(status["conditions"][1]["reason"], "ReferenceNotSet");
    }
}
