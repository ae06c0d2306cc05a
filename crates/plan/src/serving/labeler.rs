//! Route → what its Revisions and Configurations know of it: annotation `routes`, label `routingState`.
//!
//! Reachability follows from it, and with it the floor of the scale. Marks are taken back only once the Route
//! has settled, so that a Revision stays awake while traffic is still moving away from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    labels::serving as keys,
    serving::{Configuration, Revision, Route, TrafficTarget},
};

use super::configuration::rfc3339;
use crate::{
    Absence, Indexed, Indexer, Plan, Row, Term, World,
    children::{listed, some},
    status::Reporting,
    terms::leads_to,
};

/// What other control planes hold a deleted Route with.
const FINALIZER: &str = "routes.serving.knative.dev";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "labeler",
    of: Kind::Route,
    wakes: &[(Kind::Configuration, by_reference), (Kind::Revision, by_reference)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// Routes that name the object, are marked on it, or belong to the same Service.
pub(super) fn by_reference(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    let (name, configuration) = match object {
        Object::Configuration(configuration) => (configuration.name(), Some(configuration.name())),
        Object::Revision(revision) => (revision.name(), revision.label(keys::CONFIGURATION)),
        _ => return Vec::new(),
    };
    let meta = object.meta();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let marks = meta.annotations.as_ref().and_then(|annotations| annotations.get(keys::ROUTES));
    let marked = marks.into_iter().flat_map(|list| list.split(',')).filter(|route| !route.is_empty());
    let service = meta.labels.as_ref().and_then(|labels| labels.get(keys::SERVICE)).map(String::as_str);
    let mut routes: BTreeSet<Key> = marked.chain(service).map(|route| Key::new(namespace, route)).collect();
    // A Route of a Service names only what belongs to the Service; the few others are found by what they name.
    let names = |target: &TrafficTarget| {
        target.revision_name == name || configuration.is_some_and(|c| target.configuration_name == c)
    };
    let key = Key::new(namespace, name);
    let by_name = leads_to(object.kind(), &key);
    let of = configuration.map(|configuration| Key::new(namespace, configuration));
    let by_configuration = of.as_ref().map(|key| leads_to(Kind::Configuration, key));
    for term in by_configuration.into_iter().chain([by_name]) {
        let others = world.routes.find(term).into_iter().filter(|route| route.namespace() == namespace);
        let others = others.filter(|route| route.controller().is_none() && route.spec.traffic.iter().any(names));
        routes.extend(others.map(|route| route.key()));
    }
    routes.into_iter().collect()
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let found = world.routes.get(key);
    let route = found.as_deref().filter(|route| !route.is_deleting());
    let (revisions, configurations) = route.map(|route| targets(world, route)).unwrap_or_default();
    let settled = route.is_none_or(|route| route.is_ready() || route.is_failed());
    for revision in candidates(&world.revisions, key, route, &revisions) {
        if let Some(next) = relabel(&revision, key, revisions.contains(revision.name()), settled, now) {
            plan.update(revision.as_ref(), next);
        }
    }
    for configuration in candidates(&world.configurations, key, route, &configurations) {
        let is_target = configurations.contains(configuration.name());
        if let Some(routes) = next_routes(configuration.as_ref(), &key.name, is_target, settled) {
            let mut next = Configuration::clone(&configuration);
            set_routes(&mut next, &routes);
            plan.update(configuration.as_ref(), next);
        }
    }
    if let Some(deleting) = found.as_deref().filter(|route| route.is_deleting()) {
        release(deleting, &mut plan);
    }
    plan
}

/// Names of the Revisions and Configurations that a Route leads to.
fn targets(world: &World, route: &Route) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut revisions, mut configurations) = (BTreeSet::new(), BTreeSet::new());
    for target in route.status.traffic.iter().chain(&route.spec.traffic) {
        let mut name = Some(target.configuration_name.clone()).filter(|name| !name.is_empty());
        if !target.revision_name.is_empty() {
            let Some(revision) = world.revisions.get(&route.key().sibling(&target.revision_name)) else { continue };
            revisions.insert(target.revision_name.clone());
            let owner = revision.controller().filter(|owner| owner.kind == Kind::Configuration.kind());
            name = owner.map(|owner| owner.name.clone()).or(name);
        }
        let Some(configuration) = name.and_then(|name| world.configurations.get(&route.key().sibling(name))) else {
            continue;
        };
        configurations.insert(configuration.name().to_owned());
        // The newest one too, so that it is awake when traffic comes over.
        if target.latest_revision == Some(true) {
            revisions.extend(configuration.status.latest_created_revision_name.clone());
        }
    }
    (revisions, configurations)
}

/// What may carry, or is to carry, the mark of the Route.
fn candidates<R: Indexed>(
    indexer: &Indexer<R>,
    key: &Key,
    route: Option<&Route>,
    targets: &BTreeSet<String>,
) -> Vec<Arc<R>> {
    if let Some(service) = route.and_then(|route| route.label(keys::SERVICE)) {
        return indexer.labelled(&key.namespace, keys::SERVICE, service);
    }
    let marked = indexer.find(Term::Marked { namespace: &key.namespace, route: &key.name }).into_iter();
    let marked = marked.filter(|object| {
        object.namespace() == key.namespace && listed(object.as_ref(), keys::ROUTES).contains(key.name.as_str())
    });
    let named = targets.iter().filter_map(|name| indexer.get(&key.sibling(name)));
    let by_name: BTreeMap<String, Arc<R>> =
        marked.chain(named).map(|object| (object.name().to_owned(), object)).collect();
    by_name.into_values().collect()
}

/// The routes to mark on `object`, if they differ from those it carries.
fn next_routes<R: Resource>(object: &R, route: &str, is_target: bool, settled: bool) -> Option<String> {
    let mut routes = listed(object, keys::ROUTES);
    let changed = match is_target {
        true => routes.insert(route),
        false => settled && routes.remove(route),
    };
    changed.then(|| routes.into_iter().collect::<Vec<_>>().join(","))
}

fn relabel(revision: &Revision, route: &Key, is_target: bool, settled: bool, now: Timestamp) -> Option<Revision> {
    let routes = next_routes(revision, &route.name, is_target, settled);
    if routes.is_none() && !is_target {
        return None;
    }
    let mut next = revision.clone();
    if let Some(routes) = routes {
        set_routes(&mut next, &routes);
    }
    let state = if next.annotation(keys::ROUTES).is_some() { "active" } else { "reserve" };
    if next.label(keys::ROUTING_STATE) != Some(state) {
        let meta = &mut next.metadata;
        meta.labels.get_or_insert_default().insert(keys::ROUTING_STATE.to_owned(), state.to_owned());
        meta.annotations.get_or_insert_default().insert(keys::ROUTING_STATE_MODIFIED.to_owned(), rfc3339(now));
    }
    Some(next)
}

fn set_routes<R: Resource>(object: &mut R, routes: &str) {
    let mut annotations = object.meta_mut().annotations.take().unwrap_or_default();
    if routes.is_empty() {
        annotations.remove(keys::ROUTES);
    } else {
        annotations.insert(keys::ROUTES.to_owned(), routes.to_owned());
    }
    object.meta_mut().annotations = some(annotations);
}

/// Other control planes hold a Route until its marks are gone; here a vanished Route is noticed by its marks, so
/// the finalizer is never set, only lifted.
fn release(route: &Route, plan: &mut Plan) {
    let mut next = route.clone();
    if let Some(finalizers) = &mut next.metadata.finalizers {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    plan.update(route, next);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::ROW;
    use crate::check::check;

    fn fixture(route_ready: &str) -> String {
        format!(
            r#"
apiVersion: serving.knative.dev/v1
kind: Route
metadata: {{name: hello, labels: {{serving.knative.dev/service: hello}}}}
spec: {{traffic: [{{percent: 100, latestRevision: true, configurationName: hello}}]}}
status:
  observedGeneration: 1
  traffic: [{{percent: 100, latestRevision: true, revisionName: hello-00002}}]
  conditions: [{{type: Ready, status: "{route_ready}"}}]
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {{name: hello, labels: {{serving.knative.dev/service: hello}}}}
spec: {{}}
status: {{latestCreatedRevisionName: hello-00003}}
---
apiVersion: serving.knative.dev/v1
kind: Revision
metadata:
  name: hello-00001
  owner: Configuration/hello
  labels: {{serving.knative.dev/service: hello, serving.knative.dev/routingState: active}}
  annotations: {{serving.knative.dev/routes: hello}}
spec: {{containers: []}}
---
apiVersion: serving.knative.dev/v1
kind: Revision
metadata:
  name: hello-00002
  owner: Configuration/hello
  labels: {{serving.knative.dev/service: hello, serving.knative.dev/routingState: active}}
  annotations: {{serving.knative.dev/routes: "hello,other"}}
spec: {{containers: []}}
---
apiVersion: serving.knative.dev/v1
kind: Revision
metadata:
  name: hello-00003
  owner: Configuration/hello
  labels: {{serving.knative.dev/service: hello, serving.knative.dev/routingState: pending}}
spec: {{containers: []}}
"#
        )
    }

    #[test]
    fn while_traffic_moves_marks_are_only_added() {
        check(
            &ROW,
            "default/hello",
            &fixture("Unknown"),
            expect![[r#"
            update Revision default/hello-00003
              metadata/labels/serving.knative.dev/routingState "pending" -> "active"
              metadata/annotations null -> {"serving.knative.dev/routes":"hello","serving.knative.dev/routingStateModified":"2026-01-01T12:00:00Z"}
            update Configuration default/hello
              metadata/annotations null -> {"serving.knative.dev/routes":"hello"}
        "#]],
        );
    }

    #[test]
    fn once_traffic_has_moved_marks_are_taken_back() {
        check(
            &ROW,
            "default/hello",
            &fixture("True"),
            expect![[r#"
            update Revision default/hello-00001
              metadata/annotations/serving.knative.dev/routes "hello" -> null
              metadata/annotations/serving.knative.dev/routingStateModified null -> "2026-01-01T12:00:00Z"
              metadata/labels/serving.knative.dev/routingState "active" -> "reserve"
            update Revision default/hello-00003
              metadata/labels/serving.knative.dev/routingState "pending" -> "active"
              metadata/annotations null -> {"serving.knative.dev/routes":"hello","serving.knative.dev/routingStateModified":"2026-01-01T12:00:00Z"}
            update Configuration default/hello
              metadata/annotations null -> {"serving.knative.dev/routes":"hello"}
        "#]],
        );
    }

    #[test]
    fn a_route_that_is_gone_leads_nowhere() {
        let fixture = fixture("True");
        let (_, rest) = fixture.split_once("---").expect("several documents");
        check(
            &ROW,
            "default/hello",
            rest,
            expect![[r#"
            update Revision default/hello-00001
              metadata/annotations/serving.knative.dev/routes "hello" -> null
              metadata/annotations/serving.knative.dev/routingStateModified null -> "2026-01-01T12:00:00Z"
              metadata/labels/serving.knative.dev/routingState "active" -> "reserve"
            update Revision default/hello-00002
              metadata/annotations/serving.knative.dev/routes "hello,other" -> "other"
        "#]],
        );
    }
}
