//! Service → Configuration and Route of the same name. Reports what the two report.
//!
//! With a revision name in the template the Route waits until the Configuration has taken the template in, so
//! that traffic never moves to a name that turns out to be taken.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Resource, Timestamp,
    conditions::{FALSE, READY, TRUE},
    labels,
    serving::{Configuration, ConfigurationSpec, Route, RouteSpec, Service, TrafficTarget},
    status::Condition,
};

use super::{
    configuration::{NameCheck, check_name},
    filled,
    route::REVISION_MISSING,
};
use crate::{
    Absence, EventType, Plan, Row, World, by_controller,
    children::{annotations, child_of, labels as labels_of, listed, map, not_owned, some, union, without},
    status::Reporting,
};

const CONFIGURATIONS_READY: &str = "ConfigurationsReady";
const ROUTES_READY: &str = "RoutesReady";
/// The spelling of the rollout annotation that older clients use.
const ROLLOUT_DURATION_OLD: &str = "serving.knative.dev/rolloutDuration";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "service",
    of: Kind::Service,
    wakes: &[(Kind::Configuration, by_controller), (Kind::Route, by_controller), (Kind::Revision, by_service_label)],
    configs: &[],
    reads: &[],
    absence: Absence::TurnsOff,
    plan,
};

/// A revision's name may be taken, so revisions wake the Service they are labelled with.
fn by_service_label(_: &World, object: &knoll_api::Object, _: Kind) -> Vec<Key> {
    let meta = object.meta();
    let service = meta.labels.as_ref().and_then(|labels| labels.get(labels::serving::SERVICE));
    service.map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name)).into_iter().collect()
}

/// A child as the plan leaves it.
enum Child<T> {
    /// As the World has it.
    Settled(Arc<T>),
    /// Created or changed by this plan, so not observed yet.
    Moving,
    /// The name is taken.
    Foreign,
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let Some(service) = world.services.get(key) else { return Plan::nothing() };
    if service.is_deleting() {
        return Plan::nothing();
    }
    let mut plan = Plan::nothing();
    let mut next = Service::clone(&service);
    next.conditions(now).initialize();
    reconcile(world, &service, &mut next, &mut plan, now);
    plan.report(service.as_ref(), next);
    plan
}

fn reconcile(world: &World, service: &Service, next: &mut Service, plan: &mut Plan, now: Timestamp) {
    let configuration = match configuration(world, service, plan) {
        Child::Foreign => {
            let message = not_owned("Configuration", service.name());
            next.conditions(now).mark_false(CONFIGURATIONS_READY, "NotOwned", &message);
            return;
        }
        Child::Settled(configuration) if configuration.is_observed() => {
            follow_configuration(next, &configuration, now);
            Some(configuration)
        }
        Child::Settled(_) | Child::Moving => {
            next.conditions(now).mark_unknown(
                CONFIGURATIONS_READY,
                "OutOfDate",
                "The Configuration is still working to reflect the latest desired specification.",
            );
            if service.spec.template.metadata.name.is_some() {
                return;
            }
            None
        }
    };
    if let Some(configuration) = &configuration
        && matches!(check_name(world, configuration), NameCheck::Taken(_))
    {
        let name = configuration.spec.template.metadata.name.clone().unwrap_or_default();
        next.conditions(now).mark_false(
            ROUTES_READY,
            "RevisionNameTaken",
            &format!(
                "The revision name \"{name}\" is taken by a conflicting Revision, so traffic will not be migrated"
            ),
        );
        return;
    }
    match route(world, service, plan, now) {
        Child::Foreign => {
            next.conditions(now).mark_false(ROUTES_READY, "NotOwned", &not_owned("Route", service.name()));
        }
        Child::Settled(route) if route.is_observed() => {
            follow_route(next, &route, now);
            tell_the_cause(next, configuration.as_deref(), now);
            check_migrated(next, &route, configuration.as_deref(), now);
        }
        Child::Settled(_) | Child::Moving => {
            next.conditions(now).mark_unknown(
                ROUTES_READY,
                "OutOfDate",
                "The Route is still working to reflect the latest desired specification.",
            );
        }
    }
}

fn configuration(world: &World, service: &Service, plan: &mut Plan) -> Child<Configuration> {
    let Some(existing) = world.configurations.get(&service.key()) else {
        plan.create(make_configuration(service, None));
        plan.event(service, EventType::Normal, "Created", format!("Created Configuration \"{}\"", service.name()));
        return Child::Moving;
    };
    if !existing.is_controlled_by(service) {
        return Child::Foreign;
    }
    let wanted = make_configuration(service, Some(&existing));
    let moves = wanted.spec != existing.spec;
    plan.update(existing.as_ref(), wanted);
    if moves { Child::Moving } else { Child::Settled(existing.clone()) }
}

fn route(world: &World, service: &Service, plan: &mut Plan, now: Timestamp) -> Child<Route> {
    let traffic = filled::traffic(world, service, now);
    let Some(existing) = world.routes.get(&service.key()) else {
        plan.create(make_route(service, &traffic, None));
        plan.event(service, EventType::Normal, "Created", format!("Created Route \"{}\"", service.name()));
        return Child::Moving;
    };
    if !existing.is_controlled_by(service) {
        return Child::Foreign;
    }
    let wanted = make_route(service, &traffic, Some(&existing));
    let moves = wanted.spec != existing.spec;
    plan.update(existing.as_ref(), wanted);
    if moves { Child::Moving } else { Child::Settled(existing.clone()) }
}

/// The Configuration that `service` wants, over what `existing` holds beside it.
fn make_configuration(service: &Service, existing: Option<&Configuration>) -> Configuration {
    let dropped = [labels::LAST_APPLIED, labels::serving::ROLLOUT_DURATION, ROLLOUT_DURATION_OLD];
    let mut routes = existing.map(|c| listed(c, labels::serving::ROUTES)).unwrap_or_default();
    routes.insert(service.name());
    let routes = routes.into_iter().collect::<Vec<_>>().join(",");
    let annotations = union(
        without(annotations(service), |key| dropped.contains(&key)),
        [(labels::serving::ROUTES.to_owned(), routes)],
    );
    let own = map([(labels::serving::SERVICE, service.name()), (labels::serving::SERVICE_UID, service.uid())]);
    let labels = union(labels_of(service), own);
    let mut wanted = existing.cloned().unwrap_or_else(|| Configuration {
        metadata: child_of(service, service.name(), Default::default(), Default::default()),
        ..Configuration::default()
    });
    wanted.metadata.labels = some(labels);
    wanted.metadata.annotations = some(annotations);
    wanted.spec = ConfigurationSpec { template: service.spec.template.clone() };
    wanted
}

/// The Route that `service` wants for this traffic, over what `existing` holds beside it.
fn make_route(service: &Service, traffic: &[TrafficTarget], existing: Option<&Route>) -> Route {
    let traffic = traffic.iter().map(|target| TrafficTarget {
        configuration_name: if target.revision_name.is_empty() { service.name().to_owned() } else { String::new() },
        ..target.clone()
    });
    let mut wanted = existing.cloned().unwrap_or_else(|| Route {
        metadata: child_of(service, service.name(), Default::default(), Default::default()),
        ..Route::default()
    });
    wanted.metadata.labels = some(union(labels_of(service), map([(labels::serving::SERVICE, service.name())])));
    wanted.metadata.annotations = some(without(annotations(service), |key| key == labels::LAST_APPLIED));
    wanted.spec = RouteSpec { traffic: traffic.collect() };
    wanted
}

fn follow_configuration(next: &mut Service, configuration: &Configuration, now: Timestamp) {
    next.status.latest_created_revision_name = configuration.status.latest_created_revision_name.clone();
    next.status.latest_ready_revision_name = configuration.status.latest_ready_revision_name.clone();
    copy(next, CONFIGURATIONS_READY, configuration.condition(READY), now);
}

fn follow_route(next: &mut Service, route: &Route, now: Timestamp) {
    next.status.url = route.status.url.clone();
    next.status.address = route.status.address.clone();
    next.status.traffic = route.status.traffic.clone();
    copy(next, ROUTES_READY, route.condition(READY), now);
}

/// A Route without a Revision only repeats that the Configuration failed. Upstream's `Ready` speaks of whichever was
/// copied last; ours of the cause, whatever the order in which the two were heard of, for a client that waits shows
/// `Ready`'s words.
fn tell_the_cause(next: &mut Service, configuration: Option<&Configuration>, now: Timestamp) {
    let repeats = |ready: &Condition| ready.status == FALSE && ready.reason == REVISION_MISSING;
    let Some(failed) = configuration.and_then(|c| c.condition(READY)).filter(|ready| ready.status == FALSE) else {
        return;
    };
    if next.condition(ROUTES_READY).is_some_and(repeats) {
        next.conditions(now).mark_false(CONFIGURATIONS_READY, &failed.reason, &failed.message);
    }
}

fn copy(next: &mut Service, type_: &str, ready: Option<&Condition>, now: Timestamp) {
    let Some(ready) = ready else { return };
    let mut conditions = next.conditions(now);
    match ready.status.as_str() {
        TRUE => conditions.mark_true(type_),
        FALSE => conditions.mark_false(type_, &ready.reason, &ready.message),
        _ => conditions.mark_unknown(type_, &ready.reason, &ready.message),
    };
}

/// A Route may be ready with the traffic of a moment ago.
fn check_migrated(next: &mut Service, route: &Route, configuration: Option<&Configuration>, now: Timestamp) {
    if next.condition(ROUTES_READY).is_none_or(|ready| ready.status != TRUE) {
        return;
    }
    let latest = configuration.and_then(|c| c.status.latest_ready_revision_name.clone()).unwrap_or_default();
    let wanted = route.spec.traffic.iter().map(|target| {
        let revision = if target.configuration_name == route.name() { &latest } else { &target.revision_name };
        (target.tag.as_str(), revision.as_str(), target.percent.unwrap_or_default())
    });
    let routed =
        route.status.traffic.iter().map(|t| (t.tag.as_str(), t.revision_name.as_str(), t.percent.unwrap_or_default()));
    if !wanted.eq(routed) {
        next.conditions(now).mark_unknown(
            ROUTES_READY,
            "TrafficNotMigrated",
            "Traffic is not yet migrated to the latest revision.",
        );
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::ROW;
    use crate::check::check;

    const SERVICE: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  labels: {team: a}
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/rollout-duration: 60s, kubectl.kubernetes.io/last-applied-configuration: "{}"}
spec:
  template: {spec: {containers: [{name: user-container, image: "img:1"}]}}
  traffic: [{percent: 100, latestRevision: true}]
"#;

    #[test]
    fn a_new_service_gets_a_configuration_and_a_route_of_its_name() {
        check(
            &ROW,
            "default/hello",
            SERVICE,
            expect![[r#"
            create Configuration default/hello
              labels serving.knative.dev/service="hello" serving.knative.dev/serviceUID="uid-Service-hello" team="a"
              annotations serving.knative.dev/creator="me" serving.knative.dev/routes="hello"
              template {"metadata":{},"spec":{"containers":[{"image":"img:1","name":"user-container"}]}}
            note Created: Created Configuration "hello"
            create Route default/hello
              labels serving.knative.dev/service="hello" team="a"
              annotations serving.knative.dev/creator="me" serving.knative.dev/rollout-duration="60s"
              traffic [{"configurationName":"hello","latestRevision":true,"percent":100}]
            note Created: Created Route "hello"
            status Service default/hello
              observedGeneration 1
              ConfigurationsReady=Unknown OutOfDate The Configuration is still working to reflect the latest desired specification.
              Ready=Unknown OutOfDate The Route is still working to reflect the latest desired specification.
              RoutesReady=Unknown OutOfDate The Route is still working to reflect the latest desired specification.
        "#]],
        );
    }

    #[test]
    fn children_that_follow_are_copied_and_metadata_that_went_goes() {
        let fixture = format!(
            "{SERVICE}{}",
            r#"
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata:
  name: hello
  owner: Service/hello
  labels: {team: a, gone: b, serving.knative.dev/service: hello, serving.knative.dev/serviceUID: uid-Service-hello}
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/routes: "hello,other"}
spec: {template: {spec: {containers: [{name: user-container, image: "img:1"}]}}}
status:
  observedGeneration: 1
  latestCreatedRevisionName: hello-00002
  latestReadyRevisionName: hello-00001
  conditions: [{type: Ready, status: "Unknown"}]
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata:
  name: hello
  owner: Service/hello
  labels: {team: a, serving.knative.dev/service: hello}
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/rollout-duration: 60s}
spec: {traffic: [{percent: 100, latestRevision: true, configurationName: hello}]}
status:
  observedGeneration: 1
  url: http://hello.default.example.com
  traffic: [{percent: 100, latestRevision: true, revisionName: hello-00000}]
  conditions: [{type: Ready, status: "True"}]
"#
        );
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            update Configuration default/hello
              metadata/labels/gone "b" -> null
            status Service default/hello
              latestCreatedRevisionName "hello-00002"
              latestReadyRevisionName "hello-00001"
              observedGeneration 1
              traffic [{"latestRevision":true,"percent":100,"revisionName":"hello-00000"}]
              url "http://hello.default.example.com"
              ConfigurationsReady=Unknown
              Ready=Unknown TrafficNotMigrated Traffic is not yet migrated to the latest revision.
              RoutesReady=Unknown TrafficNotMigrated Traffic is not yet migrated to the latest revision.
        "#]],
        );
    }

    #[test]
    fn a_named_revision_holds_the_route_back_until_the_configuration_has_it() {
        let fixture = SERVICE.replace("template: {spec", "template: {metadata: {name: hello-v1}, spec");
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            create Configuration default/hello
              labels serving.knative.dev/service="hello" serving.knative.dev/serviceUID="uid-Service-hello" team="a"
              annotations serving.knative.dev/creator="me" serving.knative.dev/routes="hello"
              template {"metadata":{"name":"hello-v1"},"spec":{"containers":[{"image":"img:1","name":"user-container"}]}}
            note Created: Created Configuration "hello"
            status Service default/hello
              observedGeneration 1
              ConfigurationsReady=Unknown OutOfDate The Configuration is still working to reflect the latest desired specification.
              Ready=Unknown OutOfDate The Configuration is still working to reflect the latest desired specification.
              RoutesReady=Unknown
        "#]],
        );
    }

    #[test]
    fn ready_tells_why_the_configuration_failed_and_not_that_the_route_has_no_revision() {
        let fixture = format!(
            "{SERVICE}{}",
            r#"
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata:
  name: hello
  owner: Service/hello
  labels: {team: a, serving.knative.dev/service: hello, serving.knative.dev/serviceUID: uid-Service-hello}
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/routes: hello}
spec: {template: {spec: {containers: [{name: user-container, image: "img:1"}]}}}
status:
  observedGeneration: 1
  latestCreatedRevisionName: hello-00001
  conditions: [{type: Ready, status: "False", reason: RevisionFailed, message: no such image}]
---
apiVersion: serving.knative.dev/v1
kind: Route
metadata:
  name: hello
  owner: Service/hello
  labels: {team: a, serving.knative.dev/service: hello}
  annotations: {serving.knative.dev/creator: me, serving.knative.dev/rollout-duration: 60s}
spec: {traffic: [{percent: 100, latestRevision: true, configurationName: hello}]}
status:
  observedGeneration: 1
  conditions: [{type: Ready, status: "False", reason: RevisionMissing, message: no Revision}]
"#
        );
        check(
            &ROW,
            "default/hello",
            &fixture,
            expect![[r#"
            status Service default/hello
              latestCreatedRevisionName "hello-00001"
              observedGeneration 1
              ConfigurationsReady=False RevisionFailed no such image
              Ready=False RevisionFailed no such image
              RoutesReady=False RevisionMissing no Revision
        "#]],
        );
    }

    #[test]
    fn a_configuration_of_someone_else_is_not_touched() {
        let foreign = "
---
apiVersion: serving.knative.dev/v1
kind: Configuration
metadata: {name: hello}
spec: {}
";
        check(
            &ROW,
            "default/hello",
            &format!("{SERVICE}{foreign}"),
            expect![[r#"
            status Service default/hello
              observedGeneration 1
              ConfigurationsReady=False NotOwned There is an existing Configuration "hello" that we do not own.
              Ready=False NotOwned There is an existing Configuration "hello" that we do not own.
              RoutesReady=Unknown
        "#]],
        );
    }
}
