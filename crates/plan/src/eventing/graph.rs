//! Who sends what to whom: sources, brokers, channels, flows, Triggers, Subscriptions and sinks, as a graph of what users
//! wrote.
//!
//! A node is an object, or a URI that events go to; an edge is a way of events. What is named and not there is a node all
//! the same, for that is what somebody who looks for lost events wants to see.

use std::collections::BTreeMap;

use knoll_api::{
    Kind, Resource,
    conditions::{READY, find},
    duck::{DeliverySpec, Destination, KReference},
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    messaging::ChannelTemplate,
    names,
    status::DuckStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    terms::{key_of, kind_of},
    trigger::broker_of,
};
use crate::{Indexed, Indexer, World};

/// How events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// They are sent on.
    Events,
    /// Answers to them are.
    Replies,
    /// Those that nobody took are.
    DeadLetters,
}

/// An object or a URI.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What edges name it by: `Kind.group/namespace/name`, or the URI.
    pub id: String,
    /// Kind of the object; nothing for a URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is there; nothing where nobody here can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// Status of its condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Why it is not ready: reason and message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A way of events from one node to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    /// Id of the node that they leave.
    pub from: String,
    /// Id of the node that they go to.
    pub to: String,
    /// Which.
    pub way: Way,
    /// Which events, as the object that filters says it; all of them without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// URI relative to the address of the node that they go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Who sends what to whom.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graph {
    /// In order of their ids.
    pub nodes: Vec<Node>,
    /// In order of where they begin and end.
    pub edges: Vec<Edge>,
    /// Objects that were left out because there are more than asked for.
    #[serde(rename = "leftOut")]
    pub left_out: usize,
}

/// The graph of one namespace's objects and of what they lead to, or of all namespaces; of `most` objects at most, with what
/// each leads to. Costs a look at each object of these kinds in the namespace.
pub fn of(world: &World, namespace: Option<&str>, most: usize) -> Graph {
    let mut drawing =
        Drawing { world, namespace, room: most, nodes: BTreeMap::new(), edges: BTreeMap::new(), left_out: 0 };
    drawing.brokers();
    drawing.channels();
    drawing.flows();
    drawing.sources();
    drawing.sinks();
    drawing.finish()
}

struct Drawing<'a> {
    world: &'a World,
    namespace: Option<&'a str>,
    /// Objects that may still be drawn.
    room: usize,
    nodes: BTreeMap<String, Node>,
    edges: BTreeMap<(String, String, Way, String), Edge>,
    left_out: usize,
}

fn id(group: &str, kind: &str, namespace: &str, name: &str) -> String {
    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
    format!("{kind}{group}/{namespace}/{name}")
}

fn node_id(kind: Kind, namespace: &str, name: &str) -> String {
    id(kind.group(), kind.kind(), namespace, name)
}

impl Drawing<'_> {
    /// Every object of a kind that is to be drawn, each with its node.
    fn each<R: Indexed>(
        &mut self,
        all: &Indexer<R>,
        status: fn(&R) -> &DuckStatus,
        mut draw: impl FnMut(&mut Self, &R, String),
    ) {
        let keys: Vec<_> = match self.namespace {
            Some(namespace) => all.keys_in(namespace).collect(),
            None => all.keys().collect(),
        };
        let drawn = keys.len().min(self.room);
        self.left_out += keys.len() - drawn;
        self.room -= drawn;
        for object in keys[..drawn].iter().filter_map(|key| all.get(key)) {
            let from = node_id(R::KIND, object.namespace(), object.name());
            self.put(R::KIND, object.meta(), Some(status(&object)));
            draw(self, &object, from);
        }
    }

    fn put(&mut self, kind: Kind, meta: &ObjectMeta, status: Option<&DuckStatus>) {
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let ready = status.and_then(|status| find(&status.conditions, READY));
        let why = ready.map(|ready| format!("{}: {}", ready.reason, ready.message));
        let node = Node {
            id: node_id(kind, &namespace, &name),
            kind: Some(kind.kind().to_owned()),
            namespace: Some(namespace),
            name: Some(name),
            exists: Some(true),
            ready: ready.map(|ready| ready.status.clone()),
            why: why.filter(|why| why != ": "),
        };
        self.nodes.insert(node.id.clone(), node);
    }

    /// The node that a reference means; made where nobody has drawn it yet.
    fn referent(&mut self, reference: &KReference, namespace: &str) -> String {
        let (key, kind) = (key_of(reference, namespace), kind_of(reference));
        let group = match kind {
            Some(kind) => kind.group(),
            None if reference.api_version.is_empty() => &reference.group,
            None => reference.api_version.rsplit_once('/').map_or("", |(group, _)| group),
        };
        let id = id(group, &reference.kind, &key.namespace, &key.name);
        if !self.nodes.contains_key(&id) {
            let exists = kind.map(|kind| self.world.contains(kind, &key));
            let node = Node {
                id: id.clone(),
                kind: Some(reference.kind.clone()),
                namespace: Some(key.namespace),
                name: Some(key.name),
                exists,
                ready: None,
                why: None,
            };
            self.nodes.insert(id.clone(), node);
        }
        id
    }

    fn edge(&mut self, from: &str, to: String, way: Way, filter: Option<Value>, path: Option<String>) {
        let told = filter.as_ref().map(Value::to_string).unwrap_or_default();
        let edge = Edge { from: from.to_owned(), to, way, filter, path };
        self.edges.insert((edge.from.clone(), edge.to.clone(), way, told), edge);
    }

    /// The way to a Destination.
    fn send(&mut self, from: &str, to: &Destination, namespace: &str, way: Way, filter: Option<Value>) {
        match (&to.ref_, &to.uri) {
            (Some(reference), path) => {
                let to = self.referent(reference, namespace);
                self.edge(from, to, way, filter, path.clone());
            }
            (None, Some(uri)) => {
                let node = Node {
                    id: uri.clone(),
                    kind: None,
                    namespace: None,
                    name: None,
                    exists: None,
                    ready: None,
                    why: None,
                };
                self.nodes.entry(uri.clone()).or_insert(node);
                self.edge(from, uri.clone(), way, filter, None);
            }
            (None, None) => {}
        }
    }

    fn dead_letters(&mut self, from: &str, delivery: Option<&DeliverySpec>, namespace: &str) {
        let sink = delivery.and_then(|delivery| delivery.dead_letter_sink.as_ref());
        sink.into_iter().for_each(|sink| self.send(from, sink, namespace, Way::DeadLetters, None));
    }

    /// The way to an object of a kind and key that may not be drawn.
    fn lead(&mut self, from: &str, kind: Kind, namespace: &str, name: &str, way: Way) {
        let reference = KReference {
            kind: kind.kind().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            api_version: kind.api_version(),
            ..KReference::default()
        };
        let to = self.referent(&reference, namespace);
        self.edge(from, to, way, None, None);
    }

    fn brokers(&mut self) {
        let world = self.world;
        self.each(
            &world.brokers,
            |broker| &broker.status.common,
            |drawing, broker, id| {
                drawing.dead_letters(&id, broker.spec.delivery.as_ref(), broker.namespace());
            },
        );
        self.each(
            &world.triggers,
            |trigger| &trigger.status.common,
            |drawing, trigger, id| {
                let namespace = trigger.namespace();
                let attributes = trigger.spec.filter.as_ref().filter(|filter| !filter.attributes.is_empty());
                let filter = match &trigger.spec.filters[..] {
                    [] => attributes.map(|filter| json!({"attributes": filter.attributes})),
                    filters => Some(json!(filters)),
                };
                let broker = broker_of(world, trigger);
                let of = node_id(Kind::Broker, &broker.namespace, &broker.name);
                drawing.lead(&id, Kind::Broker, &broker.namespace, &broker.name, Way::Replies);
                drawing.edge(&of, id.clone(), Way::Events, filter, None);
                drawing.send(&id, &trigger.spec.subscriber, namespace, Way::Events, None);
                drawing.dead_letters(&id, trigger.spec.delivery.as_ref(), namespace);
            },
        );
        self.each(
            &world.request_replies,
            |replies| &replies.status.common,
            |drawing, replies, id| {
                drawing.lead(&id, Kind::Broker, replies.namespace(), &replies.spec.broker_ref.name, Way::Events);
            },
        );
        self.each(
            &world.event_transforms,
            |transform| &transform.status.source.common,
            |drawing, transform, id| {
                let sink = transform.spec.sink.iter();
                sink.for_each(|sink| drawing.send(&id, sink, transform.namespace(), Way::Events, None));
            },
        );
    }

    fn channels(&mut self) {
        let world = self.world;
        self.each(
            &world.channels,
            |channel| &channel.status.channelable.common,
            |drawing, channel, id| {
                if let Some(behind) = &channel.status.channel {
                    let to = drawing.referent(behind, channel.namespace());
                    drawing.edge(&id, to, Way::Events, None, None);
                }
            },
        );
        self.each(
            &world.in_memory_channels,
            |channel| &channel.status.common,
            |drawing, channel, id| {
                drawing.dead_letters(&id, channel.spec.delivery.as_ref(), channel.namespace());
            },
        );
        self.each(
            &world.subscriptions,
            |subscription| &subscription.status.common,
            |drawing, subscription, id| {
                let (namespace, spec) = (subscription.namespace(), &subscription.spec);
                let channel = drawing.referent(&spec.channel, namespace);
                drawing.edge(&channel, id.clone(), Way::Events, None, None);
                spec.subscriber.iter().for_each(|to| drawing.send(&id, to, namespace, Way::Events, None));
                spec.reply.iter().for_each(|to| drawing.send(&id, to, namespace, Way::Replies, None));
                drawing.dead_letters(&id, spec.delivery.as_ref(), namespace);
            },
        );
    }

    /// A flow leads to its first channel; the rest of it is channels and Subscriptions of its own.
    fn flows(&mut self) {
        let world = self.world;
        self.each(
            &world.sequences,
            |sequence| &sequence.status.common,
            |drawing, sequence, id| {
                let first = names::child(sequence.name(), "-kn-sequence-0");
                drawing.first(&id, sequence.spec.channel_template.as_ref(), sequence.namespace(), &first);
            },
        );
        self.each(
            &world.parallels,
            |parallel| &parallel.status.common,
            |drawing, parallel, id| {
                let first = names::child(parallel.name(), "-kn-parallel");
                drawing.first(&id, parallel.spec.channel_template.as_ref(), parallel.namespace(), &first);
            },
        );
    }

    fn first(&mut self, from: &str, template: Option<&ChannelTemplate>, namespace: &str, name: &str) {
        let Some(template) = template else { return };
        let reference = KReference {
            kind: template.kind.clone(),
            api_version: template.api_version.clone(),
            name: name.to_owned(),
            ..KReference::default()
        };
        let to = self.referent(&reference, namespace);
        self.edge(from, to, Way::Events, None, None);
    }

    fn sources(&mut self) {
        let world = self.world;
        self.each(
            &world.api_server_sources,
            |source| &source.status.source.common,
            |drawing, source, id| {
                let filter = (!source.spec.filters.is_empty()).then(|| json!(source.spec.filters));
                drawing.send(&id, &source.spec.source.sink, source.namespace(), Way::Events, filter);
            },
        );
        self.each(
            &world.ping_sources,
            |source| &source.status.common,
            |drawing, source, id| {
                drawing.send(&id, &source.spec.source.sink, source.namespace(), Way::Events, None);
            },
        );
        self.each(
            &world.container_sources,
            |source| &source.status.common,
            |drawing, source, id| {
                drawing.send(&id, &source.spec.source.sink, source.namespace(), Way::Events, None);
            },
        );
        self.each(
            &world.integration_sources,
            |source| &source.status.common,
            |drawing, source, id| {
                drawing.send(&id, &source.spec.source.sink, source.namespace(), Way::Events, None);
            },
        );
        self.each(
            &world.sink_bindings,
            |binding| &binding.status.source.common,
            |drawing, binding, id| {
                let (subject, namespace) = (&binding.spec.subject, binding.namespace());
                drawing.send(&id, &binding.spec.source.sink, namespace, Way::Events, None);
                if !subject.name.is_empty() {
                    let reference = KReference {
                        kind: subject.kind.clone(),
                        api_version: subject.api_version.clone(),
                        name: subject.name.clone(),
                        ..KReference::default()
                    };
                    let from = drawing.referent(&reference, namespace);
                    drawing.edge(&from, id, Way::Events, None, None);
                }
            },
        );
    }

    /// Sinks that nobody sends to are drawn, too.
    fn sinks(&mut self) {
        let world = self.world;
        self.each(&world.job_sinks, |sink| &sink.status.common, |_, _, _| {});
        self.each(&world.integration_sinks, |sink| &sink.status.common, |_, _, _| {});
    }

    fn finish(self) -> Graph {
        let (nodes, edges) = (self.nodes.into_values().collect(), self.edges.into_values().collect());
        Graph { nodes, edges, left_out: self.left_out }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::cluster;
    use super::*;

    const MESH: &str = r#"
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: b}
spec: {delivery: {deadLetterSink: {uri: 'http://dls'}}}
status: {conditions: [{type: Ready, status: "False", reason: R, message: m}]}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
spec:
  broker: b
  filters: [{exact: {type: x}}]
  subscriber: {ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: app}, uri: /in}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: u}
spec: {broker: gone, filter: {attributes: {type: z}}, subscriber: {ref: {apiVersion: x.dev/v1, kind: Thing, name: x}}}
---
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: p}
spec: {sink: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}}
status: {conditions: [{type: Ready, status: "True"}]}
---
apiVersion: messaging.knative.dev/v1
kind: Subscription
metadata: {name: s}
spec:
  channel: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel, name: c}
  subscriber: {uri: 'http://one'}
  reply: {ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: b}}
---
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: q, namespace: other}
spec: {channelTemplate: {apiVersion: messaging.knative.dev/v1, kind: InMemoryChannel}, steps: [{uri: 'http://one'}]}
"#;

    fn told(graph: &Graph) -> String {
        let nodes = graph.nodes.iter().map(|node| {
            let exists = if node.exists == Some(false) { " is not there" } else { "" };
            let (ready, why) = (node.ready.as_deref().unwrap_or_default(), node.why.as_deref().unwrap_or_default());
            format!("{}{exists} {ready} {why}", node.id).trim_end().to_owned()
        });
        let edges = graph.edges.iter().map(|edge| {
            let filter = edge.filter.as_ref().map(|filter| format!(" {filter}")).unwrap_or_default();
            let path = edge.path.as_deref().unwrap_or_default();
            format!("{} -> {}{path}: {:?}{filter}", edge.from, edge.to, edge.way)
        });
        nodes.chain(edges).map(|line| line + "\n").collect()
    }

    #[test]
    fn a_graph_shows_who_sends_what_to_whom_and_what_is_not_there() {
        let expected = expect![[r#"
            Broker.eventing.knative.dev/default/b False R: m
            Broker.eventing.knative.dev/default/gone is not there
            InMemoryChannel.messaging.knative.dev/default/c is not there
            PingSource.sources.knative.dev/default/p True
            Service.serving.knative.dev/default/app is not there
            Subscription.messaging.knative.dev/default/s
            Thing.x.dev/default/x
            Trigger.eventing.knative.dev/default/t
            Trigger.eventing.knative.dev/default/u
            http://dls
            http://one
            Broker.eventing.knative.dev/default/b -> Trigger.eventing.knative.dev/default/t: Events [{"exact":{"type":"x"}}]
            Broker.eventing.knative.dev/default/b -> http://dls: DeadLetters
            Broker.eventing.knative.dev/default/gone -> Trigger.eventing.knative.dev/default/u: Events {"attributes":{"type":"z"}}
            InMemoryChannel.messaging.knative.dev/default/c -> Subscription.messaging.knative.dev/default/s: Events
            PingSource.sources.knative.dev/default/p -> Broker.eventing.knative.dev/default/b: Events
            Subscription.messaging.knative.dev/default/s -> Broker.eventing.knative.dev/default/b: Replies
            Subscription.messaging.knative.dev/default/s -> http://one: Events
            Trigger.eventing.knative.dev/default/t -> Broker.eventing.knative.dev/default/b: Replies
            Trigger.eventing.knative.dev/default/t -> Service.serving.knative.dev/default/app/in: Events
            Trigger.eventing.knative.dev/default/u -> Broker.eventing.knative.dev/default/gone: Replies
            Trigger.eventing.knative.dev/default/u -> Thing.x.dev/default/x: Events
        "#]];
        expected.assert_eq(&told(&of(&cluster(&[MESH], &[]).world, Some("default"), 100)));
    }

    #[test]
    fn a_graph_is_of_one_namespace_or_of_all_and_never_of_more_than_asked_for() {
        let world = cluster(&[MESH], &[]).world;
        let ids = |graph: &Graph| graph.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
        let other = of(&world, Some("other"), 100);
        let expected =
            ["InMemoryChannel.messaging.knative.dev/other/q-kn-sequence-0", "Sequence.flows.knative.dev/other/q"];
        assert_eq!(ids(&other), expected);
        assert!(ids(&of(&world, None, 100)).len() > 10);
        let few = of(&world, None, 2);
        assert_eq!(few.left_out, 4, "of a Broker, two Triggers, a source, a Subscription and a Sequence");
        assert_eq!(of(&world, None, 0), Graph { left_out: 6, ..Graph::default() });
    }

    #[test]
    fn a_graph_is_json() {
        let text = serde_json::to_value(of(&cluster(&[MESH], &[]).world, Some("other"), 10)).expect("JSON");
        let edge = json!({"from": "Sequence.flows.knative.dev/other/q", "way": "events",
                          "to": "InMemoryChannel.messaging.knative.dev/other/q-kn-sequence-0"});
        assert_eq!((&text["edges"][0], &text["leftOut"]), (&edge, &json!(0)));
    }
}
