//! ApiServerSource: where its events go, which namespaces it watches, whether it may, and whether it does.
//!
//! Upstream runs a Deployment for each. Here the data plane watches in process, as the source's ServiceAccount, and the
//! rights of that one are asked for before ([`crate::access`]). Upstream asks about the user alone; here its groups count,
//! as they do when it watches.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    duck::CloudEventAttributes,
    k8s_openapi::api::core::v1::Namespace,
    sources::{ApiServerSource, RESOURCE_MODE},
};

use super::{
    Stopped,
    destination::{self, plural},
    hindrance, identity, is_carried,
    source::settle_sink,
    terms::is_decidable,
};
use crate::{
    Absence, AccessOutcome, AccessRequest, Denial, Mapper, Plan, Row, SystemConfig, World, access, by_controller,
    kube::matches, status::Reporting, terms::selectors_of,
};

/// Annotation: `true` where rights are not asked for before.
const SKIP_PERMISSIONS: &str = "features.knative.dev/apiserversource-skip-permissions-check";
/// What is needed to watch.
const VERBS: &[&str] = &["get", "list", "watch"];
/// ServiceAccount of a source that names none.
const DEFAULT_ACCOUNT: &str = "default";
/// The API server's Service.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
const DEPLOYED: &str = "Deployed";
pub(super) const SUFFICIENT_PERMISSIONS: &str = "SufficientPermissions";

const WAKES: [(Kind, Mapper); 20] = destination::wakes([
    (Kind::ServiceAccount, by_controller),
    (Kind::Namespace, by_namespace),
    (Kind::CoreService, by_api_server),
    (Kind::Role, access::by_rule),
    (Kind::RoleBinding, access::by_rule),
    (Kind::ClusterRole, access::by_rule),
    (Kind::ClusterRoleBinding, access::by_rule),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "api-server-source",
    of: Kind::ApiServerSource,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// Sources that may choose the namespace by its labels, those it has or had.
fn by_namespace(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    let found =
        selectors_of("", object.meta().labels.as_ref()).flat_map(|term| world.api_server_sources.find_keys(term));
    found.collect()
}

/// Every source, when the address of the API server changed.
fn by_api_server(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    if object.key() == Key::new(API_SERVER.0, API_SERVER.1) { world.keys(of) } else { Vec::new() }
}

/// Name of the ServiceAccount that a source watches as.
pub(super) fn account_of(source: &ApiServerSource) -> &str {
    let name = source.spec.service_account_name.as_str();
    if name.is_empty() { DEFAULT_ACCOUNT } else { name }
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(source) = world.api_server_sources.get(key).filter(|source| is_decidable(world, source.as_ref())) else {
        return plan;
    };
    let mut next = ApiServerSource::clone(&source);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(source.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut ApiServerSource, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    identity::settle(world, next, plan, now, |next| &mut next.status.source.auth)?;
    let sink = next.spec.source.sink.clone();
    settle_sink(world, next, &sink, now, |why| ("NotFound", why), |next| &mut next.status.source)?;
    next.status.namespaces = namespaces(world, next);
    check_permissions(world, next, plan, now)?;
    let source = api_server(world);
    let types = event_types(next).map(|type_| CloudEventAttributes { type_, source: source.clone() });
    next.status.source.ce_attributes = types.collect();
    if is_carried(world, next) {
        next.conditions(now).mark_true(DEPLOYED);
    } else if let Some(why) = hindrance(world, next) {
        // What upstream's Deployment says of an adapter that ends at this, and why it does.
        let text = format!("Deployment does not have minimum availability: {why}");
        next.conditions(now).mark_false(DEPLOYED, "MinimumReplicasUnavailable", &text);
    } else {
        next.conditions(now).mark_unknown(DEPLOYED, "DeploymentUnavailable", "The objects are not watched yet.");
    }
    Ok(())
}

/// The namespaces that are watched, in order: the source's own where it chooses none. Where it chooses, this costs what
/// has the label it asks for, or all namespaces where it asks for none by value.
fn namespaces(world: &World, source: &ApiServerSource) -> Vec<String> {
    let Some(selector) = &source.spec.namespace_selector else { return vec![source.namespace().to_owned()] };
    let is_chosen = |one: &Arc<Namespace>| matches(selector, one.metadata.labels.as_ref());
    let by_value = selector.match_labels.as_ref().and_then(|labels| labels.last_key_value());
    let mut names: Vec<String> = match by_value {
        Some((label, value)) => {
            let found = world.namespaces.labelled("", label, value).into_iter();
            found.filter(is_chosen).map(|one| one.name().to_owned()).collect()
        }
        None if selector.match_expressions.as_ref().is_none_or(Vec::is_empty) => {
            world.namespaces.keys().map(|key| key.name).collect()
        }
        None => {
            let all = world.namespaces.iter();
            all.filter(is_chosen).map(|one| one.name().to_owned()).collect()
        }
    };
    names.sort();
    names
}

/// Says whether the source's ServiceAccount may watch all that is to be watched.
fn check_permissions(
    world: &World,
    next: &mut ApiServerSource,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), Stopped> {
    let is_skipped = next.annotation(SKIP_PERMISSIONS) == Some("true");
    if is_skipped || next.spec.resources.is_empty() || next.status.namespaces.is_empty() {
        next.conditions(now).mark_true(SUFFICIENT_PERMISSIONS);
        return Ok(());
    }
    let request = request(next);
    let user = request.user();
    let outcome: Option<&AccessOutcome> = access::ask(world, next, request, plan, now);
    let mut conditions = next.conditions(now);
    match outcome {
        Some(Ok(denials)) if denials.is_empty() => {
            conditions.mark_true(SUFFICIENT_PERMISSIONS);
            return Ok(());
        }
        Some(Ok(denials)) => {
            let text = format!("User {user} cannot {}", told(denials));
            conditions.mark_false(SUFFICIENT_PERMISSIONS, "", &text)
        }
        Some(Err(why)) => conditions.mark_false(SUFFICIENT_PERMISSIONS, "AccessReviewFailed", why),
        None => {
            let text = format!("It is not known yet what user {user} may do.");
            conditions.mark_unknown(SUFFICIENT_PERMISSIONS, "AccessReviewPending", &text)
        }
    };
    Err(Stopped)
}

fn request(source: &ApiServerSource) -> AccessRequest {
    let mut resources: Vec<(String, String)> = Vec::new();
    for watched in &source.spec.resources {
        let group = watched.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let known = Kind::in_any_version(group, &watched.kind).map(|kind| kind.plural().to_owned());
        let resource = (group.to_owned(), known.unwrap_or_else(|| plural(&watched.kind)));
        if !resources.contains(&resource) {
            resources.push(resource);
        }
    }
    AccessRequest {
        account: source.key().sibling(account_of(source).to_owned()),
        verbs: VERBS,
        resources,
        namespaces: source.status.namespaces.clone(),
    }
}

fn told(denials: &[Denial]) -> String {
    let one = |denial: &Denial| {
        let (group, plural) = &denial.resource;
        let verbs = denial.verbs.join(", ");
        format!("{verbs} resource {plural:?} in API group {group:?} in Namespace {:?}", denial.namespace)
    };
    denials.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Types of the events that the source makes.
fn event_types(source: &ApiServerSource) -> impl Iterator<Item = String> {
    let part = if source.spec.mode == RESOURCE_MODE { "resource" } else { "ref" };
    ["add", "delete", "update"].into_iter().map(move |what| format!("dev.knative.apiserver.{part}.{what}"))
}

/// The API server's URL as pods know it: `source` of the events.
fn api_server(world: &World) -> String {
    let service = world.core_services.get(&Key::new(API_SERVER.0, API_SERVER.1));
    let spec = service.as_ref().and_then(|service| service.spec.as_ref());
    let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).filter(|address| !address.is_empty());
    let port = spec.and_then(|spec| spec.ports.as_ref()?.first().map(|port| port.port));
    match (address, port) {
        (Some(address), Some(port)) if address.contains(':') => format!("https://[{address}]:{port}"),
        (Some(address), Some(port)) => format!("https://{address}:{port}"),
        _ => format!("https://{}", destination::service_host(world, &Key::new(API_SERVER.0, API_SERVER.1))),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{carry, cluster, status, unhappy};
    use super::*;
    use crate::{
        Observation, Want,
        check::{Cluster, NOW, check_in, planned},
    };

    const SOURCE: &str = r#"
apiVersion: sources.knative.dev/v1
kind: ApiServerSource
metadata: {name: s}
spec:
  mode: Reference
  serviceAccountName: watcher
  resources: [{apiVersion: v1, kind: Event}, {apiVersion: apps/v1, kind: Deployment}]
  sink: {uri: 'http://sink'}
"#;
    const API: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 443}]}\n";
    const NAMESPACES: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: b, labels: {team: x, env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {team: x}}
---
apiVersion: v1
kind: Namespace
metadata: {name: c}
"#;

    /// A cluster in which what the source asks has been answered.
    fn answered(fixtures: &[&str], forbidden: &[(&str, &str)]) -> Cluster {
        let mut cluster = cluster(fixtures, &[]);
        cluster.forbidden = forbidden.iter().map(|(verb, place)| ((*verb).to_owned(), (*place).to_owned())).collect();
        let plan = (ROW.plan)(&cluster.world, &Key::new("default", "s"), NOW);
        let asks = |want: &&Want| matches!(want, Want::ReviewAccess { .. });
        plan.wants.iter().filter(asks).for_each(|want| cluster.carry_out(want, NOW));
        cluster
    }

    fn asks(cluster: &Cluster) -> Vec<AccessRequest> {
        let plan = (ROW.plan)(&cluster.world, &Key::new("default", "s"), NOW);
        let asked = plan.wants.into_iter().filter_map(|want| match want {
            Want::ReviewAccess { request, .. } => Some(request),
            _ => None,
        });
        asked.collect()
    }

    #[test]
    fn a_source_asks_first_whether_it_may_watch() {
        check_in(
            &ROW,
            "default/s",
            cluster(&[SOURCE, API], &[]),
            expect![[r#"
            ask whether default/watcher may get,list,watch events.,deployments.apps in default
            status ApiServerSource default/s
              namespaces ["default"]
              observedGeneration 1
              sinkUri "http://sink"
              Deployed=Unknown
              OIDCIdentityCreated=True authentication-oidc feature disabled
              Ready=Unknown AccessReviewPending It is not known yet what user system:serviceaccount:default:watcher may do.
              SinkProvided=True
              SufficientPermissions=Unknown AccessReviewPending It is not known yet what user system:serviceaccount:default:watcher may do.
        "#]],
        );
    }

    #[test]
    fn a_source_is_ready_once_it_may_watch_and_does() {
        let mut cluster = answered(&[SOURCE, API], &[]);
        let told = unhappy(&ROW, "default/s", &cluster);
        assert!(
            told.starts_with("Deployed=Unknown DeploymentUnavailable The objects are not watched yet.\n"),
            "{told}"
        );
        carry(&mut cluster, Kind::ApiServerSource, "s");
        check_in(
            &ROW,
            "default/s",
            cluster,
            expect![[r#"
            status ApiServerSource default/s
              ceAttributes [{"source":"https://10.96.0.1:443","type":"dev.knative.apiserver.ref.add"},{"source":"https://10.96.0.1:443","type":"dev.knative.apiserver.ref.delete"},{"source":"https://10.96.0.1:443","type":"dev.knative.apiserver.ref.update"}]
              namespaces ["default"]
              observedGeneration 1
              sinkUri "http://sink"
              Deployed=True
              OIDCIdentityCreated=True authentication-oidc feature disabled
              Ready=True
              SinkProvided=True
              SufficientPermissions=True
            recheck after 3600s
        "#]],
        );
    }

    #[test]
    fn what_a_source_may_not_do_is_told_by_verb_kind_and_namespace() {
        let chosen = format!("{SOURCE}  namespaceSelector: {{matchLabels: {{team: x}}}}\n");
        let forbidden = [("watch", "a/events"), ("get", "b/deployments"), ("list", "b/deployments")];
        let cluster = answered(&[&chosen, NAMESPACES], &forbidden);
        let told = unhappy(&ROW, "default/s", &cluster);
        let text = "User system:serviceaccount:default:watcher cannot watch resource \"events\" in API group \"\" in \
                    Namespace \"a\", get, list resource \"deployments\" in API group \"apps\" in Namespace \"b\"\n";
        assert!(told.contains(&format!("SufficientPermissions=False  {text}")), "{told}");
        assert!(told.contains("Deployed=Unknown\n"), "{told}");
    }

    #[test]
    fn rights_are_not_asked_for_where_that_is_not_wanted() {
        let skipping =
            SOURCE.replace("{name: s}", &format!("{{name: s, annotations: {{{SKIP_PERMISSIONS}: 'true'}}}}"));
        let cluster = cluster(&[&skipping, API], &[]);
        assert!(asks(&cluster).is_empty());
        assert!(!unhappy(&ROW, "default/s", &cluster).contains("SufficientPermissions"));
    }

    #[test]
    fn a_source_that_is_refused_what_it_lists_says_why_until_it_is_not() {
        let skipping =
            SOURCE.replace("{name: s}", &format!("{{name: s, annotations: {{{SKIP_PERMISSIONS}: 'true'}}}}"));
        let mut cluster = cluster(&[&skipping, API], &[]);
        let object = (Kind::ApiServerSource, Key::new("default", "s"));
        let uid = cluster.world.meta(object.0, &object.1).and_then(|meta| meta.uid.clone()).expect("it has one");
        let hindered = |cluster: &mut Cluster, uid: &str| {
            let why = Some((uid.to_owned(), "events is forbidden".to_owned()));
            cluster.world.observe(Observation::Hindered([(object.clone(), why)].into()));
        };
        hindered(&mut cluster, "another");
        assert!(unhappy(&ROW, "default/s", &cluster).contains("Ready=Unknown DeploymentUnavailable"));
        hindered(&mut cluster, &uid);
        let told = unhappy(&ROW, "default/s", &cluster);
        let why = "MinimumReplicasUnavailable Deployment does not have minimum availability: events is forbidden\n";
        assert!(
            told.contains(&format!("Deployed=False {why}")) && told.contains(&format!("Ready=False {why}")),
            "{told}"
        );
        cluster.world.observe(Observation::Hindered([(object, None)].into()));
        carry(&mut cluster, Kind::ApiServerSource, "s");
        assert_eq!(unhappy(&ROW, "default/s", &cluster), "");
    }

    #[test]
    fn rights_are_asked_for_again_when_they_may_have_changed() {
        let mut cluster = answered(&[SOURCE, API], &[]);
        assert!(asks(&cluster).is_empty());
        let binding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: b}\n\
                       roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}\n";
        cluster.add(binding);
        assert_eq!(asks(&cluster).len(), 1, "after a change of rules");
        let told = unhappy(&ROW, "default/s", &cluster);
        assert!(!told.contains("SufficientPermissions"), "until then the last answer holds: {told}");

        let mut cluster = answered(&[SOURCE, API], &[]);
        cluster.edit(Kind::ApiServerSource, &Key::new("default", "s"), |value| {
            value["spec"]["serviceAccountName"] = "other".into();
        });
        assert_eq!(asks(&cluster)[0].user(), "system:serviceaccount:default:other");
        assert!(unhappy(&ROW, "default/s", &cluster).contains("SufficientPermissions=Unknown AccessReviewPending"));

        let cluster = answered(&[SOURCE, API], &[]);
        let asks_after = |cluster: &Cluster, seconds| {
            let later = NOW + jiff::SignedDuration::from_secs(seconds);
            let plan = (ROW.plan)(&cluster.world, &Key::new("default", "s"), later);
            plan.wants.iter().any(|want| matches!(want, Want::ReviewAccess { .. }))
        };
        assert!(!asks_after(&cluster, 60) && asks_after(&cluster, 7200));
        let cluster = answered(&[SOURCE, API], &[("watch", "default/events")]);
        assert!(!asks_after(&cluster, 10) && asks_after(&cluster, 60), "a server may hear of a right later");
    }

    #[test]
    fn a_source_is_woken_by_rules_of_its_account_and_by_namespaces_it_may_choose() {
        let others = SOURCE.replace("name: s}", "name: t}").replace("watcher", "other");
        let chosen =
            format!("{others}  namespaceSelector: {{matchLabels: {{team: x}}}}\n").replace("name: t}", "name: u}");
        let world = cluster(&[SOURCE, &others, &chosen, NAMESPACES], &[]).world;
        let woken = |fixture: &str| {
            let mut cluster = Cluster::new();
            cluster.world = world.clone();
            cluster.add(fixture);
            let rows = crate::Rows::new(vec![ROW]);
            let woken = cluster.changes.iter().flat_map(|change| rows.woken(&cluster.world, change).keys);
            woken.map(|(_, key)| key.name).collect::<Vec<_>>()
        };
        let binding = |kind: &str, subjects: &str| {
            format!(
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata: {{name: b}}\n\
                 roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}}\nsubjects: [{subjects}]\n"
            )
        };
        let watcher = "{kind: ServiceAccount, name: watcher, namespace: default}";
        let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\nrules: []\n";
        let group = |name: &str| format!("{{kind: Group, name: '{name}'}}");
        for (fixture, expected) in [
            (binding("RoleBinding", watcher), vec!["s"]),
            (binding("ClusterRoleBinding", watcher), vec!["s"]),
            (format!("{}---\n{role}", binding("ClusterRoleBinding", watcher)), vec!["s", "s"]),
            (role.to_owned(), vec![]),
            (binding("RoleBinding", "{kind: User, name: 'system:serviceaccount:default:watcher'}"), vec!["s"]),
            (binding("RoleBinding", "{kind: User, name: jane}"), vec![]),
            (binding("RoleBinding", &group("system:serviceaccounts:default")), vec!["s", "t", "u"]),
            (binding("RoleBinding", &group("system:serviceaccounts:kube-system")), vec![]),
            (binding("RoleBinding", &group("system:authenticated")), vec!["s", "t", "u"]),
            (binding("RoleBinding", &group("devs")), vec![]),
            ("apiVersion: v1\nkind: Namespace\nmetadata: {name: d, labels: {team: x}}\n".to_owned(), vec!["u"]),
            ("apiVersion: v1\nkind: Namespace\nmetadata: {name: d, labels: {team: z}}\n".to_owned(), vec![]),
        ] {
            assert_eq!(woken(&fixture), expected, "{fixture}");
        }
    }

    #[test]
    fn namespaces_are_the_own_one_or_those_that_are_chosen() {
        let watched = |selector: &str| {
            let source = format!("{SOURCE}{selector}");
            let cluster = answered(&[&source, NAMESPACES], &[]);
            status(&planned(&ROW, "default/s", &cluster))["namespaces"].to_string()
        };
        assert_eq!(watched(""), r#"["default"]"#);
        assert_eq!(watched("  namespaceSelector: {}\n"), r#"["a","b","c"]"#);
        assert_eq!(watched("  namespaceSelector: {matchLabels: {team: x}}\n"), r#"["a","b"]"#);
        assert_eq!(watched("  namespaceSelector: {matchLabels: {team: x, env: prod}}\n"), r#"["b"]"#);
        let none = "  namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}\n";
        assert_eq!(watched(none), r#"["c"]"#);
        assert_eq!(watched("  namespaceSelector: {matchLabels: {team: z}}\n"), "[]");
    }

    #[test]
    fn the_types_of_events_follow_the_mode() {
        let whole = SOURCE.replace("mode: Reference", "mode: Resource");
        let status = status(&planned(&ROW, "default/s", &answered(&[&whole], &[])));
        let source = "https://kubernetes.default.svc.cluster.local";
        let types = ["add", "delete", "update"].map(|what| format!("dev.knative.apiserver.resource.{what}"));
        let expected = types.map(|type_| serde_json::json!({"type": type_, "source": source}));
        assert_eq!(status["ceAttributes"], serde_json::json!(expected));
    }
}
