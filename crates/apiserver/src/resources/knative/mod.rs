//! Knative's kinds: custom resources on a cluster, compiled in here, with their definitions visible all the same. One file
//! for each part of Knative.

mod eventing;
mod serving;
mod versions;

use std::sync::Arc;

use knoll_api::{Kind, admission, conversion, kind::Scope};
use knoll_schema::crd::definition_of;
use serde_json::{Value, json};

use super::{Conversion, Custom, Resource, Subresource};
use crate::tables::{PathColumn, Printer};

/// Name, JSON path and type of a column.
type ColumnOf = (&'static str, &'static str, &'static str);

/// What the definition of a kind says besides its names.
struct Definition {
    kind: Kind,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    columns: &'static [ColumnOf],
    /// Columns of wide output.
    wide: &'static [ColumnOf],
    labels: &'static [(&'static str, &'static str)],
    annotations: &'static [(&'static str, &'static str)],
    /// Versions besides the one that is stored.
    others: &'static [Version],
}

/// A version that is served and not stored.
struct Version {
    name: &'static str,
    columns: &'static [ColumnOf],
    conversion: Conversion,
    is_deprecated: bool,
}

impl Version {
    /// What clients are told of it, if they should use the stored version.
    fn deprecation(&self, kind: Kind) -> Option<String> {
        let what = super::custom::deprecation(kind.group(), self.name, kind.kind());
        self.is_deprecated.then(|| format!("{what}; use {} {}", kind.api_version(), kind.kind()))
    }
}

impl Definition {
    /// One that says nothing but its kind.
    const fn of(kind: Kind) -> Definition {
        Definition {
            kind,
            short: &[],
            categories: &[],
            columns: &[],
            wide: &[],
            labels: &[],
            annotations: &[],
            others: &[],
        }
    }
}

const READY: ColumnOf = ("Ready", ".status.conditions[?(@.type=='Ready')].status", "string");
const REASON: ColumnOf = ("Reason", ".status.conditions[?(@.type=='Ready')].reason", "string");

const ADDRESSABLE: (&str, &str) = ("duck.knative.dev/addressable", "true");
const POD_SPECABLE: (&str, &str) = ("duck.knative.dev/podspecable", "true");

fn all() -> impl Iterator<Item = &'static Definition> {
    serving::DEFINITIONS.iter().chain(eventing::DEFINITIONS)
}

pub(super) fn rows() -> Vec<Resource> {
    all().flat_map(rows_of).collect()
}

fn rows_of(definition: &Definition) -> Vec<Resource> {
    let mut rows = vec![row(definition, definition.kind.version(), definition.columns)];
    for version in definition.others {
        let mut other = row(definition, version.name, version.columns);
        other.conversion = Some(version.conversion);
        let deprecation = version.deprecation(definition.kind);
        other.custom = Some(Arc::new(Custom { knative: true, deprecation, ..Custom::default() }));
        rows.push(other);
    }
    rows
}

fn row(definition: &Definition, version: &str, columns: &[ColumnOf]) -> Resource {
    let kind = definition.kind;
    let mut row = Resource::new(kind.group(), version, kind.plural(), kind.kind())
        .short(definition.short)
        .category(definition.categories)
        .conditional();
    row.namespaced = kind.scope() == Scope::Namespaced;
    row.subresources.push(Subresource::Status);
    let mut printed = PathColumn::list(columns, 0);
    printed.extend(PathColumn::list(definition.wide, 1));
    row.printer = Printer::Paths(Arc::new(printed));
    row.custom = Some(Arc::new(Custom { knative: true, ..Custom::default() }));
    row
}

/// The CustomResourceDefinition objects of Knative's kinds, as writers would send them.
pub(crate) fn definitions() -> Vec<Value> {
    all().map(definition_object).collect()
}

/// The same for an API server that is not this one: without the versions that only this one converts.
pub fn portable_definitions() -> Vec<Value> {
    let portable = |definition: &Definition| {
        let mut object = definition_object(definition);
        if let Some(versions) = object["spec"]["versions"].as_array_mut() {
            let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
            versions.retain(|version| conversion::is_stored_form(definition.kind, &name(version)));
        }
        object
    };
    all().map(portable).collect()
}

fn definition_object(definition: &Definition) -> Value {
    let kind = definition.kind;
    let part = if admission::is_eventing(kind) { "knative-eventing" } else { "knative-serving" };
    let mut metadata = json!({
        "name": format!("{}.{}", kind.plural(), kind.group()),
        "labels": {"app.kubernetes.io/name": part, "knative.dev/crd-install": "true"},
    });
    for (key, value) in definition.labels {
        metadata["labels"][*key] = (*value).into();
    }
    for (key, value) in definition.annotations {
        metadata["annotations"][*key] = (*value).into();
    }
    let mut versions = vec![version_object(definition, kind.version(), definition.columns, true)];
    for other in definition.others {
        let mut version = version_object(definition, other.name, other.columns, false);
        if let Some(deprecation) = other.deprecation(kind) {
            version["deprecated"] = true.into();
            version["deprecationWarning"] = deprecation.into();
        }
        versions.push(version);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
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
            // Compiled in: nobody is asked.
            "conversion": {"strategy": "None"},
            "versions": versions,
        },
    })
}

fn version_object(definition: &Definition, version: &str, columns: &[ColumnOf], storage: bool) -> Value {
    let kind = definition.kind;
    let column = |(name, path, of): &ColumnOf, priority: u8| {
        let mut column = json!({"name": name, "jsonPath": path, "type": of});
        if priority > 0 {
            column["priority"] = priority.into();
        }
        column
    };
    let shown = columns.iter().map(|of| column(of, 0)).chain(definition.wide.iter().map(|of| column(of, 1)));
    let schema = knoll_schema::lookup(kind.group(), version, kind.kind()).map(definition_of);
    json!({
        "name": version,
        "served": true,
        "storage": storage,
        "subresources": {"status": {}},
        "additionalPrinterColumns": shown.collect::<Value>(),
        "schema": {"openAPIV3Schema": schema},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_a_kind_is_served_and_has_its_schema() {
        for definition in all() {
            let names: Vec<&str> = definition.others.iter().map(|version| version.name).collect();
            assert_eq!(names, knoll_api::conversion::other_versions(definition.kind), "{:?}", definition.kind);
            for version in definition_object(definition)["spec"]["versions"].as_array().expect("versions") {
                assert_eq!(version["schema"]["openAPIV3Schema"]["type"], "object", "{:?}", definition.kind);
            }
        }
    }

    #[test]
    fn elsewhere_there_are_no_versions_that_nobody_converts() {
        let found = portable_definitions();
        let versions = |kind: &str| -> Vec<&str> {
            let definition = found.iter().find(|definition| definition["spec"]["names"]["kind"] == kind);
            let versions = definition.and_then(|definition| definition["spec"]["versions"].as_array());
            versions.into_iter().flatten().filter_map(|version| version["name"].as_str()).collect()
        };
        assert_eq!(found.len(), all().count());
        assert_eq!(versions("EventType"), ["v1beta2"]);
        assert_eq!(versions("PingSource"), ["v1", "v1beta2"]);
        assert_eq!(versions("Broker"), ["v1"]);
    }

    #[test]
    fn definitions_say_what_a_kind_is_good_for() {
        let labels = |kind: Kind| {
            let found = all().find(|definition| definition.kind == kind).expect("defined");
            definition_object(found)["metadata"].clone()
        };
        for kind in [Kind::Broker, Kind::Channel, Kind::InMemoryChannel, Kind::Sequence, Kind::JobSink] {
            assert_eq!(labels(kind)["labels"]["duck.knative.dev/addressable"], "true", "{kind:?}");
        }
        assert_eq!(labels(Kind::InMemoryChannel)["labels"]["messaging.knative.dev/subscribable"], "true");
        assert_eq!(labels(Kind::SinkBinding)["labels"]["duck.knative.dev/binding"], "true");
        assert!(labels(Kind::RequestReply)["labels"].get("duck.knative.dev/addressable").is_none());
        for kind in [Kind::ApiServerSource, Kind::PingSource] {
            let text = labels(kind)["annotations"]["registry.knative.dev/eventTypes"].as_str().map(str::to_owned);
            let types: Value = serde_json::from_str(&text.expect("an annotation")).expect("JSON");
            assert!(types[0]["type"].is_string(), "{kind:?}");
        }
    }
}
