//! Sources → EventTypes of what their status says they send, where that goes to an object, for people and tools to find.

use std::collections::BTreeMap;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    duck::{SourceSpec, SourceStatus},
    eventing::{EventType, EventTypeSpec},
    names,
    sources::{API_SERVER_EVENT_TYPES, PING_EVENT_TYPES},
};
use serde::Deserialize;

use crate::{
    Absence, Plan, Row, World, by_controller,
    children::{child_of, map, says},
};

/// Label of the EventTypes: name of their source.
const SOURCE_LABEL: &str = "eventing.knative.dev/sourceName";

/// PingSources.
pub(crate) const PING: Row = Row {
    name: "ping-source-event-types",
    of: Kind::PingSource,
    wakes: &[(Kind::EventType, by_controller)],
    configs: &[],
    reads: &[],
    absence: Absence::IsEmpty,
    plan: plan_ping,
};

/// ApiServerSources.
pub(crate) const API_SERVER: Row =
    Row { name: "api-server-source-event-types", of: Kind::ApiServerSource, plan: plan_api_server, ..PING };

fn plan_ping(world: &World, key: &Key, _: Timestamp) -> Plan {
    let Some(source) = world.ping_sources.get(key).filter(|source| !source.is_deleting()) else {
        return Plan::nothing();
    };
    plan(world, source.as_ref(), &source.spec.source, &source.status, PING_EVENT_TYPES)
}

fn plan_api_server(world: &World, key: &Key, _: Timestamp) -> Plan {
    let source = world.api_server_sources.get(key).filter(|source| !source.is_deleting());
    let Some(source) = source else { return Plan::nothing() };
    plan(world, source.as_ref(), &source.spec.source, &source.status.source, API_SERVER_EVENT_TYPES)
}

/// What is said of a type of events.
#[derive(Deserialize)]
struct Known {
    #[serde(rename = "type")]
    type_: String,
    #[serde(default)]
    description: String,
}

fn plan<R: Resource>(world: &World, source: &R, spec: &SourceSpec, status: &SourceStatus, known: &str) -> Plan {
    let mut plan = Plan::nothing();
    let mut wanted = wanted(source, spec, status, known);
    for existing in world.event_types.owned_by(source.uid()) {
        // Others of the source's are left alone.
        if existing.label(SOURCE_LABEL) != Some(source.name()) {
            continue;
        }
        match wanted.remove(existing.name()) {
            None => plan.delete(existing.as_ref()),
            Some(wanted) if !says(&existing.spec, &wanted.spec) => {
                plan.update(existing.as_ref(), EventType { spec: wanted.spec, ..EventType::clone(&existing) });
            }
            Some(_) => {}
        }
    }
    wanted.into_values().for_each(|event_type| plan.create(event_type));
    plan
}

/// The EventTypes by name; none where events go to a URI.
fn wanted<R: Resource>(
    source: &R,
    spec: &SourceSpec,
    status: &SourceStatus,
    known: &str,
) -> BTreeMap<String, EventType> {
    let Some(reference) = &spec.sink.ref_ else { return BTreeMap::new() };
    let known: Vec<Known> = serde_json::from_str(known).expect("the kinds' own annotations are JSON");
    let sent = status.ce_attributes.iter().filter(|sent| !sent.type_.is_empty());
    let types = sent.map(|sent| {
        let name = names::md5_hex(&format!("{}{}{}", sent.type_, sent.source, source.uid()));
        let description = known.iter().find(|known| known.type_ == sent.type_).map(|known| known.description.clone());
        let metadata = child_of(source, name.clone(), map([(SOURCE_LABEL, source.name())]), Default::default());
        let spec = EventTypeSpec {
            type_: sent.type_.clone(),
            source: Some(sent.source.clone()),
            reference: Some(reference.clone()),
            description: description.unwrap_or_default(),
            ..EventTypeSpec::default()
        };
        (name, EventType { metadata, spec, ..EventType::default() })
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::cluster;
    use super::*;
    use crate::check::{NOW, check_in, planned};

    const SOURCE: &str = "apiVersion: sources.knative.dev/v1\nkind: PingSource\nmetadata: {name: p}\n\
                          spec: {sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}}\n\
                          status: {ceAttributes: [{type: dev.knative.sources.ping, source: /p}]}\n";

    #[test]
    fn what_a_source_sends_to_an_object_is_an_event_type() {
        check_in(
            &PING,
            "default/p",
            cluster(&[SOURCE], &[]),
            expect![[r#"
            create EventType default/058e6f527f82cbe53b564e97f23b5607
              labels eventing.knative.dev/sourceName="p"
              description "The fixed data of a PingSource, at the times of its schedule"
              reference {"apiVersion":"eventing.knative.dev/v1","kind":"Broker","name":"b"}
              source "/p"
              type "dev.knative.sources.ping"
        "#]],
        );
    }

    #[test]
    fn event_types_follow_their_source() {
        let mut cluster = cluster(&[SOURCE], &[]);
        planned(&PING, "default/p", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        let made = |cluster: &crate::check::Cluster| {
            let all = cluster.world.event_types.iter();
            all.map(|one| one.spec.reference.as_ref().map(|to| to.name.clone())).collect::<Vec<_>>()
        };
        let key = Key::new("default", "p");
        cluster.edit(Kind::PingSource, &key, |value| value["spec"]["sink"]["ref"]["name"] = "c".into());
        planned(&PING, "default/p", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert_eq!(made(&cluster), [Some("c".to_owned())]);
        cluster.edit(Kind::PingSource, &key, |value| value["spec"]["sink"] = serde_json::json!({"uri": "http://x"}));
        planned(&PING, "default/p", &cluster).wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert!(made(&cluster).is_empty());
    }
}
