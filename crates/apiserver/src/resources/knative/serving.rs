//! Serving's kinds, and the ones that Knative keeps for itself.

use knoll_api::Kind;

use super::{ADDRESSABLE, Definition, POD_SPECABLE, READY, REASON};

const URL: (&str, &str, &str) = ("URL", ".status.url", "string");
const CREATED: (&str, &str, &str) = ("LatestCreated", ".status.latestCreatedRevisionName", "string");
const LATEST: (&str, &str, &str) = ("LatestReady", ".status.latestReadyRevisionName", "string");

const SERVING: &[&str] = &["all", "knative", "serving"];
const AUTOSCALING: &[&str] = &["knative-internal", "autoscaling"];
const NETWORKING: &[&str] = &["knative-internal", "networking"];

pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        short: &["kservice", "ksvc"],
        categories: SERVING,
        columns: &[URL, CREATED, LATEST, READY, REASON],
        labels: &[ADDRESSABLE, POD_SPECABLE],
        ..Definition::of(Kind::Service)
    },
    Definition {
        short: &["config", "cfg"],
        categories: SERVING,
        columns: &[CREATED, LATEST, READY, REASON],
        labels: &[POD_SPECABLE],
        ..Definition::of(Kind::Configuration)
    },
    Definition {
        short: &["rev"],
        categories: SERVING,
        columns: &[
            ("Config Name", r".metadata.labels['serving\.knative\.dev/configuration']", "string"),
            ("Generation", r".metadata.labels['serving\.knative\.dev/configurationGeneration']", "string"),
            READY,
            REASON,
            ("Actual Replicas", ".status.actualReplicas", "integer"),
            ("Desired Replicas", ".status.desiredReplicas", "integer"),
        ],
        ..Definition::of(Kind::Revision)
    },
    Definition {
        short: &["rt"],
        categories: SERVING,
        columns: &[URL, READY, REASON],
        labels: &[ADDRESSABLE],
        ..Definition::of(Kind::Route)
    },
    Definition {
        short: &["dm"],
        categories: SERVING,
        columns: &[URL, READY, REASON],
        ..Definition::of(Kind::DomainMapping)
    },
    Definition {
        short: &["kpa", "pa"],
        categories: AUTOSCALING,
        columns: &[
            ("DesiredScale", ".status.desiredScale", "integer"),
            ("ActualScale", ".status.actualScale", "integer"),
            READY,
            REASON,
        ],
        ..Definition::of(Kind::PodAutoscaler)
    },
    Definition { categories: AUTOSCALING, columns: &[READY, REASON], ..Definition::of(Kind::Metric) },
    Definition {
        short: &["kingress", "king"],
        categories: NETWORKING,
        columns: &[READY, REASON],
        ..Definition::of(Kind::Ingress)
    },
    Definition {
        short: &["sks"],
        categories: NETWORKING,
        columns: &[
            ("Mode", ".spec.mode", "string"),
            ("Activators", ".spec.numActivators", "integer"),
            ("ServiceName", ".status.serviceName", "string"),
            ("PrivateServiceName", ".status.privateServiceName", "string"),
            READY,
            REASON,
        ],
        ..Definition::of(Kind::ServerlessService)
    },
    Definition {
        short: &["kcert"],
        categories: NETWORKING,
        columns: &[READY, REASON],
        ..Definition::of(Kind::Certificate)
    },
    Definition { short: &["cdc"], categories: NETWORKING, ..Definition::of(Kind::ClusterDomainClaim) },
    Definition {
        categories: &["knative-internal", "caching"],
        columns: &[("Image", ".spec.image", "string")],
        ..Definition::of(Kind::Image)
    },
];
