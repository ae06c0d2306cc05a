//! Knative's kinds: custom resources on a cluster, compiled in here, with their definitions visible all the same.

use std::sync::Arc;

use knoll_api::{Kind, kind::Scope};
use knoll_schema::crd::definition_of;
use knoll_store::Durability;
use serde_json::{Value, json};

use super::{Custom, Resource, Subresource};
use crate::tables::{PathColumn, Printer};

/// What the definition of a kind says besides its names.
struct Definition {
    kind: Kind,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    /// Name, JSON path, type.
    columns: &'static [(&'static str, &'static str, &'static str)],
    labels: &'static [(&'static str, &'static str)],
}

const URL: (&str, &str, &str) = ("URL", ".status.url", "string");
const CREATED: (&str, &str, &str) = ("LatestCreated", ".status.latestCreatedRevisionName", "string");
const LATEST: (&str, &str, &str) = ("LatestReady", ".status.latestReadyRevisionName", "string");
const READY: (&str, &str, &str) = ("Ready", ".status.conditions[?(@.type=='Ready')].status", "string");
const REASON: (&str, &str, &str) = ("Reason", ".status.conditions[?(@.type=='Ready')].reason", "string");

const SERVING: &[&str] = &["all", "knative", "serving"];
const AUTOSCALING: &[&str] = &["knative-internal", "autoscaling"];
const NETWORKING: &[&str] = &["knative-internal", "networking"];
const ADDRESSABLE: (&str, &str) = ("duck.knative.dev/addressable", "true");
const POD_SPECABLE: (&str, &str) = ("duck.knative.dev/podspecable", "true");

const DEFINITIONS: &[Definition] = &[
    Definition {
        kind: Kind::Service,
        short: &["kservice", "ksvc"],
        categories: SERVING,
        columns: &[URL, CREATED, LATEST, READY, REASON],
        labels: &[ADDRESSABLE, POD_SPECABLE],
    },
    Definition {
        kind: Kind::Configuration,
        short: &["config", "cfg"],
        categories: SERVING,
        columns: &[CREATED, LATEST, READY, REASON],
        labels: &[POD_SPECABLE],
    },
    Definition {
        kind: Kind::Revision,
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
        labels: &[],
    },
    Definition {
        kind: Kind::Route,
        short: &["rt"],
        categories: SERVING,
        columns: &[URL, READY, REASON],
        labels: &[ADDRESSABLE],
    },
    Definition {
        kind: Kind::DomainMapping,
        short: &["dm"],
        categories: SERVING,
        columns: &[URL, READY, REASON],
        labels: &[],
    },
    Definition {
        kind: Kind::PodAutoscaler,
        short: &["kpa", "pa"],
        categories: AUTOSCALING,
        columns: &[
            ("DesiredScale", ".status.desiredScale", "integer"),
            ("ActualScale", ".status.actualScale", "integer"),
            READY,
            REASON,
        ],
        labels: &[],
    },
    Definition { kind: Kind::Metric, short: &[], categories: AUTOSCALING, columns: &[READY, REASON], labels: &[] },
    Definition {
        kind: Kind::Ingress,
        short: &["kingress", "king"],
        categories: NETWORKING,
        columns: &[READY, REASON],
        labels: &[],
    },
    Definition {
        kind: Kind::ServerlessService,
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
        labels: &[],
    },
    Definition {
        kind: Kind::Certificate,
        short: &["kcert"],
        categories: NETWORKING,
        columns: &[READY, REASON],
        labels: &[],
    },
    Definition { kind: Kind::ClusterDomainClaim, short: &["cdc"], categories: NETWORKING, columns: &[], labels: &[] },
    Definition {
        kind: Kind::Image,
        short: &[],
        categories: &["knative-internal", "caching"],
        columns: &[("Image", ".spec.image", "string")],
        labels: &[],
    },
];

pub(super) fn rows() -> Vec<Resource> {
    DEFINITIONS.iter().map(row).collect()
}

fn row(definition: &Definition) -> Resource {
    let kind = definition.kind;
    let mut row = Resource::new(kind.group(), kind.version(), kind.plural(), kind.kind())
        .short(definition.short)
        .category(definition.categories)
        .conditional();
    row.namespaced = kind.scope() == Scope::Namespaced;
    row.durability = Durability::Durable;
    row.subresources.push(Subresource::Status);
    row.printer = Printer::Paths(Arc::new(PathColumn::list(definition.columns)));
    row.custom = Some(Arc::new(Custom { knative: true, ..Custom::default() }));
    row
}

/// The CustomResourceDefinition objects of Knative's kinds, as writers would send them.
pub fn definitions() -> Vec<Value> {
    DEFINITIONS.iter().map(definition_object).collect()
}

fn definition_object(definition: &Definition) -> Value {
    let kind = definition.kind;
    let columns: Vec<Value> = definition
        .columns
        .iter()
        .map(|(name, path, kind)| json!({"name": name, "jsonPath": path, "type": kind}))
        .collect();
    let mut labels = json!({"app.kubernetes.io/name": "knative-serving", "knative.dev/crd-install": "true"});
    for (key, value) in definition.labels {
        labels[*key] = (*value).into();
    }
    let schema = knoll_schema::lookup(kind.group(), kind.version(), kind.kind()).map(definition_of);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural(), kind.group()), "labels": labels},
        "spec": {
            "group": kind.group(),
            "names": {
                "kind": kind.kind(),
                "listKind": format!("{}List", kind.kind()),
                "plural": kind.plural(),
                "singular": kind.kind().to_lowercase(),
                "shortNames": definition.short,
                "categories": definition.categories,
            },
            "scope": if kind.scope() == Scope::Namespaced { "Namespaced" } else { "Cluster" },
            "conversion": {"strategy": "None"},
            "versions": [{
                "name": kind.version(),
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns,
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}
