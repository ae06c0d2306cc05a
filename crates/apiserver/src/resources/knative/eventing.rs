//! Eventing's kinds.

use knoll_api::{
    Kind,
    sources::{API_SERVER_EVENT_TYPES, PING_EVENT_TYPES},
};

use super::{
    ADDRESSABLE, ColumnOf, Definition, READY, REASON, Version,
    versions::{EVENT_TYPE_V1BETA1, EVENT_TYPE_V1BETA3, PING_SOURCE_V1BETA2},
};

const URL: ColumnOf = ("URL", ".status.address.url", "string");
const AGE: ColumnOf = ("Age", ".metadata.creationTimestamp", "date");
const SINK: ColumnOf = ("Sink", ".status.sinkUri", "string");
const REFERENCE_NAME: ColumnOf = ("Reference Name", ".spec.reference.name", "string");
const REFERENCE_KIND: ColumnOf = ("Reference Kind", ".spec.reference.kind", "string");
const DESCRIPTION: ColumnOf = ("Description", ".spec.description", "string");

const ADDRESS: &[ColumnOf] = &[URL, AGE, READY, REASON];
const SENDER: &[ColumnOf] = &[SINK, AGE, READY, REASON];
const PING: &[ColumnOf] = &[SINK, ("Schedule", ".spec.schedule", "string"), AGE, READY, REASON];
const TYPE: &[ColumnOf] = &[
    ("Type", ".spec.type", "string"),
    ("Source", ".spec.source", "string"),
    ("Schema", ".spec.schema", "string"),
    REFERENCE_NAME,
    REFERENCE_KIND,
    DESCRIPTION,
    READY,
    REASON,
];
const ATTRIBUTES: &[ColumnOf] = &[
    ("Type", ".spec.attributes[?(@.name=='type')].value", "string"),
    ("Source", ".spec.attributes[?(@.name=='source')].value", "string"),
    REFERENCE_NAME,
    REFERENCE_KIND,
    DESCRIPTION,
    READY,
    REASON,
];

const EVENTING: &[&str] = &["all", "knative", "eventing"];
const CHANNEL: &[&str] = &["all", "knative", "messaging", "channel"];
const FLOWS: &[&str] = &["all", "knative", "flows"];
const SOURCES: &[&str] = &["all", "knative", "sources"];
const SINKS: &[&str] = &["all", "knative", "eventing", "sink"];

const SUBSCRIBABLE: &[(&str, &str)] = &[ADDRESSABLE, ("messaging.knative.dev/subscribable", "true")];
const SOURCE: &[(&str, &str)] = &[("duck.knative.dev/source", "true"), ("eventing.knative.dev/source", "true")];
const BINDING: &[(&str, &str)] = &[
    ("duck.knative.dev/source", "true"),
    ("eventing.knative.dev/source", "true"),
    ("duck.knative.dev/binding", "true"),
];

/// Annotation: what types of events a source sends.
const EVENT_TYPES: &str = "registry.knative.dev/eventTypes";

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        categories: EVENTING,
        columns: ADDRESS,
        labels: &[ADDRESSABLE],
        wide: &[("Class", r".metadata.annotations['eventing\.knative\.dev/broker\.class']", "string")],
        ..Definition::of(Kind::Broker)
    },
    Definition {
        categories: EVENTING,
        columns: &[
            ("Broker", ".spec.broker", "string"),
            ("Subscriber_URI", ".status.subscriberUri", "string"),
            AGE,
            READY,
            REASON,
        ],
        ..Definition::of(Kind::Trigger)
    },
    Definition { categories: EVENTING, columns: &[READY, REASON], ..Definition::of(Kind::EventPolicy) },
    Definition {
        categories: EVENTING,
        columns: &[URL, SINK, READY, REASON],
        labels: &[ADDRESSABLE],
        ..Definition::of(Kind::EventTransform)
    },
    Definition {
        categories: EVENTING,
        columns: TYPE,
        others: &[
            Version { name: "v1beta3", columns: ATTRIBUTES, conversion: EVENT_TYPE_V1BETA3, is_deprecated: false },
            Version { name: "v1beta1", columns: TYPE, conversion: EVENT_TYPE_V1BETA1, is_deprecated: true },
        ],
        ..Definition::of(Kind::EventType)
    },
    Definition {
        short: &["rr"],
        categories: EVENTING,
        columns: &[URL, READY, REASON],
        ..Definition::of(Kind::RequestReply)
    },
    Definition {
        short: &["ch"],
        categories: CHANNEL,
        columns: ADDRESS,
        labels: SUBSCRIBABLE,
        ..Definition::of(Kind::Channel)
    },
    Definition {
        short: &["imc"],
        categories: CHANNEL,
        columns: ADDRESS,
        labels: SUBSCRIBABLE,
        ..Definition::of(Kind::InMemoryChannel)
    },
    Definition {
        short: &["sub"],
        categories: &["all", "knative", "messaging"],
        columns: &[AGE, READY, REASON],
        ..Definition::of(Kind::Subscription)
    },
    Definition { categories: FLOWS, columns: ADDRESS, labels: &[ADDRESSABLE], ..Definition::of(Kind::Sequence) },
    Definition { categories: FLOWS, columns: ADDRESS, labels: &[ADDRESSABLE], ..Definition::of(Kind::Parallel) },
    Definition {
        categories: SOURCES,
        columns: SENDER,
        labels: SOURCE,
        annotations: &[(EVENT_TYPES, API_SERVER_EVENT_TYPES)],
        ..Definition::of(Kind::ApiServerSource)
    },
    Definition { categories: SOURCES, columns: SENDER, labels: SOURCE, ..Definition::of(Kind::ContainerSource) },
    Definition {
        categories: SOURCES,
        columns: PING,
        labels: SOURCE,
        annotations: &[(EVENT_TYPES, PING_EVENT_TYPES)],
        others: &[Version { name: "v1beta2", columns: PING, conversion: PING_SOURCE_V1BETA2, is_deprecated: true }],
        ..Definition::of(Kind::PingSource)
    },
    Definition {
        categories: &["all", "knative", "sources", "bindings"],
        columns: SENDER,
        labels: BINDING,
        ..Definition::of(Kind::SinkBinding)
    },
    Definition { categories: SOURCES, columns: SENDER, labels: SOURCE, ..Definition::of(Kind::IntegrationSource) },
    Definition { categories: SINKS, columns: ADDRESS, labels: &[ADDRESSABLE], ..Definition::of(Kind::JobSink) },
    Definition { categories: SINKS, columns: ADDRESS, labels: &[ADDRESSABLE], ..Definition::of(Kind::IntegrationSink) },
];
