//! SinkBinding → the environment of its subjects' containers: where their events go, what is set on them, the certificates to
//! trust, and a token that says who sends.
//!
//! The containers of a Job cannot be changed once it is there: what its pods are told is settled when they are made
//! ([`bind_pod`]). Upstream has a webhook write it into the Job.

use std::sync::Arc;

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, ReplicaSet},
            batch::v1::Job,
            core::v1::{Container, EnvVar, PodSpec},
        },
        apimachinery::pkg::apis::meta::v1::{LabelSelector, Time},
    },
    serving::{Configuration, Service},
    sources::SinkBinding,
};

use super::{Stopped, destination, identity, source::settle_sink, token_secret, trust_bundles};
use crate::{
    Absence, Indexed, Indexer, Mapper, Plan, Row, SystemConfig, Term, World, by_controller, kube::matches,
    status::Reporting, terms::leads_to,
};

/// Variables that are a binding's.
const BOUND: [&str; 3] = ["K_SINK", "K_CA_CERTS", "K_CE_OVERRIDES"];
const FINALIZER: &str = "sinkbindings.sources.knative.dev";
const AVAILABLE: &str = "SinkBindingAvailable";
const TOKEN_SECRET_CREATED: &str = "OIDCTokenSecretCreated";
const TRUST_BUNDLE_PROPAGATED: &str = "TrustBundlePropagated";

const WAKES: [(Kind, Mapper); 23] = destination::wakes([
    (Kind::ServiceAccount, by_controller),
    (Kind::Secret, by_controller),
    (Kind::ConfigMap, by_trust_bundle),
    (Kind::Deployment, destination::by_reference),
    (Kind::Deployment, by_labels),
    (Kind::ReplicaSet, destination::by_reference),
    (Kind::ReplicaSet, by_labels),
    (Kind::Job, destination::by_reference),
    (Kind::Configuration, destination::by_reference),
    (Kind::Service, by_labels),
]);

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "sink-binding",
    of: Kind::SinkBinding,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// Bindings that choose subjects of the object's namespace by their labels.
fn by_labels(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    world.sink_bindings.find_keys(Term::SelectsOtherwise { namespace: &object.key().namespace })
}

/// Every binding, when certificates to trust changed; when a namespace's own did, or a copy, those of the namespace.
fn by_trust_bundle(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let Object::ConfigMap(map) = object else { return Vec::new() };
    if !trust_bundles::is_bundle(map.as_ref()) {
        return Vec::new();
    }
    if map.namespace() == world.settings.eventing_namespace {
        return world.keys(of);
    }
    world.sink_bindings.in_namespace(map.namespace()).map(|binding| binding.key()).collect()
}

/// What containers are told.
#[derive(Clone, Debug, Default)]
struct Told {
    env: Vec<EnvVar>,
    /// Names of ConfigMaps with certificates to trust.
    bundles: Vec<String>,
    /// Name of the Secret with the token that they send.
    token: Option<String>,
}

impl Told {
    fn of(binding: &SinkBinding, bundles: Vec<String>) -> Told {
        let source = &binding.status.source;
        let overrides = binding.spec.source.ce_overrides.as_ref();
        let overrides = overrides
            .map(|overrides| serde_json::to_string(overrides).expect("overrides have string keys and strings only"));
        let one = |name: &str, value: Option<String>| EnvVar { name: name.to_owned(), value, value_from: None };
        let mut told = vec![one(BOUND[0], source.sink_uri.clone())];
        told.extend(source.sink_ca_certs.clone().map(|bundle| one(BOUND[1], Some(bundle))));
        told.push(one(BOUND[2], overrides));
        Told { env: told, bundles, token: binding.status.oidc_token_secret_name.clone() }
    }

    /// Tells the containers of a pod this and nothing older.
    fn tell(&self, pod: &mut PodSpec) {
        for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
            let mut env = without_bound(container);
            env.extend(self.env.iter().cloned());
            container.env = Some(env).filter(|env| !env.is_empty());
        }
        trust_bundles::mount(pod, &self.bundles);
        token_secret::mount(pod, self.token.as_deref());
    }
}

/// Tells the containers of a pod that is made of a Job what the binding of that Job says, where it has one.
pub(crate) fn bind_pod(world: &World, job: &Job, pod: &mut PodSpec) {
    let bindings = bindings_of(world, job).into_iter();
    let knows = |binding: &Arc<SinkBinding>| binding.status.source.sink_uri.is_some();
    if let Some(binding) = bindings.min_by_key(|binding| age(binding)).filter(knows) {
        let bundles = trust_bundles::names_in(world, binding.namespace());
        Told::of(&binding, bundles).tell(pod);
    }
}

/// The environment of a container, but for what a binding put there.
fn without_bound(container: &Container) -> Vec<EnvVar> {
    let env = container.env.iter().flatten();
    env.filter(|variable| !BOUND.contains(&variable.name.as_str())).cloned().collect()
}

/// What a binding put into the environment of a container.
pub(super) fn bound(container: &Container) -> Vec<EnvVar> {
    let env = container.env.iter().flatten();
    env.filter(|variable| BOUND.contains(&variable.name.as_str())).cloned().collect()
}

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(binding) = world.sink_bindings.get(key) else { return plan };
    let finalizers = binding.metadata.finalizers.clone().unwrap_or_default();
    let held = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    if binding.is_deleting() {
        if held {
            release(world, &binding, &mut plan);
        }
        return plan;
    }
    if !held {
        // By itself, for a status written beside it would carry an old resourceVersion.
        let mut next = SinkBinding::clone(&binding);
        next.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
        plan.update(binding.as_ref(), next);
        return plan;
    }
    let mut next = SinkBinding::clone(&binding);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, &mut plan, now).unwrap_or(());
    plan.report(binding.as_ref(), next);
    plan
}

/// Takes out of the subjects what the binding put there, and lets it go.
fn release(world: &World, binding: &SinkBinding, plan: &mut Plan) {
    // Where there is no subject any more, there is nothing to take out.
    bind(world, binding, &Told::default(), plan).unwrap_or_default();
    let mut next = binding.clone();
    next.metadata.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    next.metadata.finalizers = next.metadata.finalizers.filter(|finalizers| !finalizers.is_empty());
    plan.update(binding, next);
}

fn reconcile(world: &World, next: &mut SinkBinding, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let bundles = settle_trust_bundles(world, next, plan, now)?;
    let sink = next.spec.source.sink.clone();
    let failed = |why: String| ("NoAddressable", format!("Addressable could not be extracted from destination: {why}"));
    settle_sink(world, next, &sink, now, failed, |next| &mut next.status.source)?;
    settle_token(world, next, plan, now)?;
    bind(world, next, &Told::of(next, bundles), plan).map_err(|(reason, why)| {
        next.conditions(now).mark_false(AVAILABLE, reason, &why);
        Stopped
    })?;
    next.conditions(now).mark_true(AVAILABLE);
    Ok(())
}

/// Sees to the certificates to trust that are in the binding's namespace. The names of their ConfigMaps.
fn settle_trust_bundles(
    world: &World,
    next: &mut SinkBinding,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<Vec<String>, Stopped> {
    let bundles = trust_bundles::propagate(world, next, plan).map_err(|why| {
        next.conditions(now).mark_false(TRUST_BUNDLE_PROPAGATED, "FailedTrustBundlePropagation", &why);
        Stopped
    })?;
    next.conditions(now).mark_true(TRUST_BUNDLE_PROPAGATED);
    Ok(bundles)
}

/// Sees to a token that containers send, where the sink asks who sends.
fn settle_token(world: &World, next: &mut SinkBinding, plan: &mut Plan, now: Timestamp) -> Result<(), Stopped> {
    let oidc = world.eventing.features.oidc_authentication.is_enabled();
    let Some(audience) = next.status.source.sink_audience.clone().filter(|_| oidc) else {
        let reason = if oidc { "Sink has no audience defined" } else { "authentication-oidc feature disabled" };
        token_secret::remove(world, next, plan);
        next.status.source.auth = None;
        next.status.oidc_token_secret_name = None;
        identity::not_needed(next, reason, now);
        next.conditions(now).mark_true_with_reason(TOKEN_SECRET_CREATED, reason, "");
        return Ok(());
    };
    identity::settle(world, next, plan, now, |next| &mut next.status.source.auth)?;
    let settled = token_secret::settle(world, next, identity::account_name(next), &audience, plan, now);
    let mut conditions = next.conditions(now);
    match &settled {
        Ok(Some(_)) => conditions.mark_true(TOKEN_SECRET_CREATED),
        Ok(None) => conditions.mark_unknown(TOKEN_SECRET_CREATED, "TokenPending", "The token is not issued yet."),
        Err(why) => conditions.mark_false(TOKEN_SECRET_CREATED, "Unable to reconcile OIDC token secret", why),
    };
    next.status.oidc_token_secret_name = settled.ok().flatten();
    if next.status.oidc_token_secret_name.is_some() { Ok(()) } else { Err(Stopped) }
}

/// Tells the containers of every subject; nothing where they know already.
fn bind(world: &World, binding: &SinkBinding, told: &Told, plan: &mut Plan) -> Result<(), (&'static str, String)> {
    let subject = &binding.spec.subject;
    match Kind::from_api(&subject.api_version, &subject.kind) {
        Some(Kind::Deployment) => {
            bind_in(world, &world.deployments, binding, told, plan, |subject: &mut Deployment| {
                subject.spec.as_mut()?.template.spec.as_mut()
            })
        }
        Some(Kind::ReplicaSet) => {
            bind_in(world, &world.replica_sets, binding, told, plan, |subject: &mut ReplicaSet| {
                subject.spec.as_mut()?.template.as_mut()?.spec.as_mut()
            })
        }
        // See `bind_pod`.
        Some(Kind::Job) => subjects(&world.jobs, binding).map(drop),
        Some(Kind::Service) => bind_in(world, &world.services, binding, told, plan, |subject: &mut Service| {
            Some(&mut subject.spec.template.spec.pod_spec)
        }),
        Some(Kind::Configuration) => {
            bind_in(world, &world.configurations, binding, told, plan, |subject: &mut Configuration| {
                Some(&mut subject.spec.template.spec.pod_spec)
            })
        }
        _ => {
            let (kind, api_version) = (&subject.kind, &subject.api_version);
            let text = format!(
                "nothing of kind {kind} ({api_version}) can be bound here; name a Deployment, a ReplicaSet, a Job, a Service \
                 or a Configuration of Serving"
            );
            Err(("SubjectUnavailable", text))
        }
    }
}

fn bind_in<R: Indexed + Into<Object>>(
    world: &World,
    all: &Indexer<R>,
    binding: &SinkBinding,
    told: &Told,
    plan: &mut Plan,
    pod: fn(&mut R) -> Option<&mut PodSpec>,
) -> Result<(), (&'static str, String)> {
    let mut outcome = Ok(());
    for one in subjects(all, binding)?.iter().filter(|one| !one.is_deleting()) {
        if let Err(why) = may_bind(world, binding, &**one) {
            outcome = Err(why);
            continue;
        }
        let mut next = R::clone(one);
        pod(&mut next).into_iter().for_each(|pod| told.tell(pod));
        plan.update(one.as_ref(), next);
    }
    outcome
}

/// The objects that a binding means.
fn subjects<R: Indexed>(all: &Indexer<R>, binding: &SinkBinding) -> Result<Vec<Arc<R>>, (&'static str, String)> {
    let subject = &binding.spec.subject;
    if subject.name.is_empty() {
        let nothing = LabelSelector::default();
        let selector = subject.selector.as_ref().unwrap_or(&nothing);
        let of_namespace = all.in_namespace(binding.namespace());
        return Ok(of_namespace.filter(|one| matches(selector, one.meta().labels.as_ref())).collect());
    }
    let missing = || ("SubjectMissing", destination::not_found(R::KIND, &subject.name));
    Ok(vec![all.get(&binding.key().sibling(subject.name.clone())).ok_or_else(missing)?])
}

/// Whether a binding may write to a subject. Two writers that each put back what the other wrote never end: what a controller
/// here makes of something else is bound by that, and of several bindings the oldest counts.
fn may_bind<R: Resource>(world: &World, binding: &SinkBinding, subject: &R) -> Result<(), (&'static str, String)> {
    let kind = R::KIND.kind();
    let controller = subject.controller().filter(|owner| Kind::from_api(&owner.api_version, &owner.kind).is_some());
    let is_of_the_same = |uid: &str| binding.controller().is_some_and(|owner| owner.uid == uid);
    if let Some(owner) = controller.filter(|owner| !is_of_the_same(&owner.uid)) {
        let (owner_kind, owner) = (&owner.kind, &owner.name);
        let text = format!("{kind} {} is made of {owner_kind} {owner}: bind that", subject.name());
        return Err(("SubjectUnavailable", text));
    }
    match bindings_of(world, subject).into_iter().find(|other| age(other) < age(binding)) {
        Some(older) => {
            let text = format!("{kind} {} is bound by SinkBinding {}, which is older", subject.name(), older.name());
            Err(("SubjectTaken", text))
        }
        None => Ok(()),
    }
}

/// The bindings that mean this object.
fn bindings_of<R: Resource>(world: &World, subject: &R) -> Vec<Arc<SinkBinding>> {
    let naming = world.sink_bindings.find(leads_to(R::KIND, &subject.key()));
    let choosing = world.sink_bindings.find(Term::SelectsOtherwise { namespace: subject.namespace() });
    let all = naming.into_iter().chain(choosing);
    all.filter(|binding| !binding.is_deleting() && chooses(binding, subject)).collect()
}

/// By what the oldest of several bindings is found.
fn age(binding: &SinkBinding) -> (Option<Time>, Key) {
    (binding.metadata.creation_timestamp.clone(), binding.key())
}

/// Whether a binding means this object.
fn chooses<R: Resource>(binding: &SinkBinding, object: &R) -> bool {
    let subject = &binding.spec.subject;
    let is_kind = Kind::from_api(&subject.api_version, &subject.kind) == Some(R::KIND);
    let is_named = match subject.name.as_str() {
        "" => subject.selector.as_ref().is_some_and(|selector| matches(selector, object.meta().labels.as_ref())),
        name => name == object.name(),
    };
    is_kind && is_named && binding.namespace() == object.namespace()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, unhappy};
    use super::*;
    use crate::{
        Want,
        check::{Cluster, NOW, check_in, planned, shown},
    };

    const BINDING: &str = r#"
apiVersion: sources.knative.dev/v1
kind: SinkBinding
metadata: {name: b, finalizers: [sinkbindings.sources.knative.dev]}
spec:
  sink: {uri: 'https://sink', CACerts: PEM}
  ceOverrides: {extensions: {a: b}}
  subject: {apiVersion: apps/v1, kind: Deployment, namespace: default, name: d}
"#;

    fn deployment(name: &str, env: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, labels: {{team: a}}}}\nspec: {{selector: {{}}, \
             template: {{spec: {{initContainers: [{{name: i}}], containers: [{{name: c, env: [{env}]}}], restartPolicy: \
             Always, dnsPolicy: ClusterFirst}}}}}}\n"
        )
    }

    #[test]
    fn containers_of_the_subject_are_told_where_events_go() {
        check_in(
            &ROW,
            "default/b",
            cluster(&[BINDING, &deployment("d", "{name: X, value: z}, {name: K_SINK, value: 'http://old'}")], &[]),
            expect![[r#"
                update Deployment default/d
                  spec/template/spec/containers [{"env":[{"name":"X","value":"z"},{"name":"K_SINK","value":"http://old"}],"name":"c"}] -> [{"env":[{"name":"X","value":"z"},{"name":"K_SINK","value":"https://sink"},{"name":"K_CA_CERTS","value":"PEM"},{"name":"K_CE_OVERRIDES","value":"{\"extensions\":{\"a\":\"b\"}}"}],"name":"c"}]
                  spec/template/spec/initContainers [{"name":"i"}] -> [{"env":[{"name":"K_SINK","value":"https://sink"},{"name":"K_CA_CERTS","value":"PEM"},{"name":"K_CE_OVERRIDES","value":"{\"extensions\":{\"a\":\"b\"}}"}],"name":"i"}]
                status SinkBinding default/b
                  observedGeneration 1
                  sinkCACerts "PEM"
                  sinkUri "https://sink"
                  OIDCIdentityCreated=True authentication-oidc feature disabled
                  OIDCTokenSecretCreated=True authentication-oidc feature disabled
                  Ready=True
                  SinkBindingAvailable=True
                  SinkProvided=True
                  TrustBundlePropagated=True
            "#]],
        );
    }

    const BUNDLE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: trust, namespace: knative-eventing, labels: \
                          {networking.knative.dev/trust-bundle: 'true'}}\ndata: {a.pem: \"-----BEGIN CERTIFICATE-----\\nAAAA\\n\
                          -----END CERTIFICATE-----\\n\"}\n";

    fn maps(cluster: &crate::check::Cluster) -> Vec<String> {
        let maps = cluster.world.config_maps.in_namespace("default");
        maps.map(|map| format!("{} {}", map.name(), map.metadata.owner_references.iter().flatten().count())).collect()
    }

    fn settle(cluster: &mut crate::check::Cluster, name: &str) {
        for _ in 0..4 {
            let plan = planned(&ROW, &format!("default/{name}"), cluster);
            plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        }
        assert!(planned(&ROW, &format!("default/{name}"), cluster).is_empty(), "it is settled");
    }

    #[test]
    fn bundles_of_the_system_come_to_a_bindings_namespace_and_its_subjects_and_go_with_it() {
        let mut cluster = cluster(&[BINDING, &deployment("d", ""), BUNDLE], &[]);
        settle(&mut cluster, "b");
        assert_eq!(maps(&cluster), ["kn-combined-kne-bundlekne-bundle 1", "trustkne-bundle 1"]);
        let subject = cluster.world.deployments.get(&Key::new("default", "d")).expect("it is there");
        let pod = subject.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a pod");
        let shown = serde_json::to_string(&pod.volumes).expect("JSON");
        let both = r#""sources":[{"configMap":{"name":"kn-combined-kne-bundlekne-bundle"}},{"configMap":{"name":"trustkne-bundle"}}]"#;
        assert!(shown.contains(both), "{shown}");
        // Another binding is an owner, too; what the system has no more goes.
        cluster.add(&BINDING.replace("name: b,", "name: other,").replace("uri: 'https://sink'", "uri: 'https://x'"));
        let plan = planned(&ROW, "default/other", &cluster);
        plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert_eq!(maps(&cluster), ["kn-combined-kne-bundlekne-bundle 2", "trustkne-bundle 2"]);
        cluster.delete(Kind::ConfigMap, &Key::new("knative-eventing", "trust"));
        let plan = planned(&ROW, "default/b", &cluster);
        plan.wants.iter().for_each(|want| cluster.carry_out(want, NOW));
        assert_eq!(maps(&cluster), [""; 0]);
    }

    #[test]
    fn a_namespaces_own_bundles_are_mounted_where_the_system_has_none_and_are_nobodys_to_delete() {
        let own = BUNDLE.replace("name: trust, namespace: knative-eventing", "name: own");
        let mut cluster = cluster(&[BINDING, &deployment("d", ""), &own], &[]);
        settle(&mut cluster, "b");
        assert_eq!(maps(&cluster), ["own 0"]);
        let subject = cluster.world.deployments.get(&Key::new("default", "d")).expect("it is there");
        let shown = serde_json::to_string(&subject.spec).expect("JSON");
        assert!(shown.contains(r#""sources":[{"configMap":{"name":"own"}}]"#), "{shown}");
    }

    #[test]
    fn a_binding_is_held_until_its_subjects_are_as_they_were() {
        let free = BINDING.replace(", finalizers: [sinkbindings.sources.knative.dev]", "");
        let plan = planned(&ROW, "default/b", &cluster(&[&free, &deployment("d", "")], &[]));
        let Want::Update(first) = &plan.wants[0] else { panic!("{plan:?}") };
        assert_eq!((first.kind(), plan.wants.len()), (Kind::SinkBinding, 1));

        let mut bound = cluster(&[BINDING, &deployment("d", "{name: X, value: z}")], &[]);
        planned(&ROW, "default/b", &bound).wants.iter().for_each(|want| bound.carry_out(want, NOW));
        bound.delete(Kind::SinkBinding, &Key::new("default", "b"));
        let plan = planned(&ROW, "default/b", &bound);
        let Want::Update(Object::Deployment(subject)) = &plan.wants[0] else { panic!("{plan:?}") };
        let pod = subject.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a pod");
        assert_eq!(pod.containers[0].env.as_ref().map(Vec::len), Some(1));
        assert!(pod.init_containers.as_ref().expect("one")[0].env.is_none());
        assert!(matches!(&plan.wants[1], Want::Update(Object::SinkBinding(_))), "{plan:?}");
    }

    #[test]
    fn subjects_are_chosen_by_labels_and_of_every_kind_with_a_pod() {
        let chosen = BINDING.replace(", name: d}", ", selector: {matchLabels: {team: a}}}");
        let plan = planned(&ROW, "default/b", &cluster(&[&chosen, &deployment("d", ""), &deployment("e", "")], &[]));
        let updated = plan.wants.iter().filter(|want| matches!(want, Want::Update(Object::Deployment(_)))).count();
        assert_eq!(updated, 2);
        let serving = BINDING.replace("apps/v1, kind: Deployment", "serving.knative.dev/v1, kind: Service");
        let service = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: c}]}}}\n";
        let plan = planned(&ROW, "default/b", &cluster(&[&serving, service], &[]));
        assert!(matches!(&plan.wants[0], Want::Update(Object::Service(_))), "{plan:?}");
    }

    #[test]
    fn what_keeps_a_binding_from_being_ready_is_told() {
        let d = deployment("d", "");
        let made = d.replace("{name: d", "{name: d, owner: Revision/r");
        let older = BINDING.replace("{name: b", "{name: a");
        let taken = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: trustkne-bundle}\n";
        let kind = BINDING.replace("kind: Deployment", "kind: Thing");
        let sink = BINDING.replace("https://sink", "sink");
        for (fixtures, expected) in [
            (vec![BINDING], "SinkBindingAvailable=False SubjectMissing deployments.apps \"d\" not found\n"),
            (
                vec![&kind],
                "SinkBindingAvailable=False SubjectUnavailable nothing of kind Thing (apps/v1) can be bound here",
            ),
            (
                vec![BINDING, &made],
                "SinkBindingAvailable=False SubjectUnavailable Deployment d is made of Revision r: bind that\n",
            ),
            (
                vec![BINDING, &d, &older],
                "SinkBindingAvailable=False SubjectTaken Deployment d is bound by SinkBinding a, which is older\n",
            ),
            (
                vec![&sink, &d],
                "SinkProvided=False NoAddressable Addressable could not be extracted from destination: URI is not absolute",
            ),
            (
                vec![BINDING, &d, BUNDLE, taken],
                "TrustBundlePropagated=False FailedTrustBundlePropagation ConfigMap default/trustkne-bundle is no bundle",
            ),
        ] {
            let told = unhappy(&ROW, "default/b", &cluster(&fixtures, &[]));
            assert!(told.contains(expected), "{told}");
        }
        let theirs = "apiVersion: v1\nkind: Secret\nmetadata: {name: b-oidc-token}\n";
        let told = unhappy(&ROW, "default/b", &asked(&[theirs]));
        let expected =
            "OIDCTokenSecretCreated=False Unable to reconcile OIDC token secret Secret b-oidc-token is not of";
        assert!(told.contains(expected), "{told}");
    }

    /// A binding whose sink asks who sends.
    fn asked(fixtures: &[&str]) -> Cluster {
        let asked = BINDING.replace("CACerts: PEM", "audience: me");
        let mut cluster = cluster(&[&asked, &deployment("d", "")], &[]);
        fixtures.iter().for_each(|fixture| cluster.add(fixture));
        feature(&mut cluster, "authentication-oidc", "enabled");
        cluster
    }

    fn carry_out(cluster: &mut Cluster, now: Timestamp) -> String {
        let plan = (ROW.plan)(&cluster.world, &Key::new("default", "b"), now);
        let text = shown(cluster, &plan);
        plan.wants.iter().for_each(|want| cluster.carry_out(want, now));
        text
    }

    #[test]
    fn containers_of_the_subject_have_a_token_where_the_sink_asks_who_sends() {
        let mut cluster = asked(&[]);
        let first = carry_out(&mut cluster, NOW);
        let issued = "issue a token of default/b-oidc-sources.knative.dev-sinkbinding for me\n";
        assert!(first.contains(issued) && !first.contains("update Deployment"), "{first}");
        assert!(first.contains("OIDCTokenSecretCreated=Unknown TokenPending The token is not issued yet."), "{first}");
        let second = carry_out(&mut cluster, NOW);
        let mounted = r#""volumeMounts":[{"mountPath":"/oidc","name":"oidc-token"}]"#;
        let volume =
            r#"[{"name":"oidc-token","projected":{"defaultMode":420,"sources":[{"secret":{"name":"b-oidc-token"}}]}}]"#;
        for expected in [mounted, volume, "oidcTokenSecretName \"b-oidc-token\"", "Ready=True", "recheck after 3000s"] {
            assert!(second.contains(expected), "{expected}: {second}");
        }
        let after = |minutes: i64| NOW + jiff::SignedDuration::from_mins(minutes);
        assert!(!carry_out(&mut cluster, after(49)).contains("issue"));
        assert!(carry_out(&mut cluster, after(51)).contains("issue"), "it is renewed before it ends");
        assert!(!carry_out(&mut cluster, after(51)).contains("issue"));
        assert!(carry_out(&mut cluster, after(-60)).contains("issue"), "the clock was set back");
        // Nobody asks any more.
        feature(&mut cluster, "authentication-oidc", "disabled");
        let last = carry_out(&mut cluster, after(0));
        assert!(last.contains("delete Secret default/b-oidc-token") && last.contains("update Deployment"), "{last}");
        assert!(!last.contains("oidcTokenSecretName"), "{last}");
    }

    #[test]
    fn pods_of_a_job_are_told_when_they_are_made() {
        let job = |labels: &str| -> Job {
            let text = format!(r#"{{"metadata": {{"name": "j", "namespace": "default", "labels": {{{labels}}}}}}}"#);
            serde_json::from_str(&text).expect("a Job")
        };
        let pod = || -> PodSpec { serde_json::from_str(r#"{"containers": [{"name": "c"}]}"#).expect("a pod") };
        let binding = BINDING
            .replace("apps/v1, kind: Deployment", "batch/v1, kind: Job")
            .replace(", name: d}", ", selector: {matchLabels: {team: a}}}");
        let mut cluster = cluster(&[&binding], &[]);
        let told = |cluster: &Cluster, labels: &str| {
            let mut pod = pod();
            bind_pod(&cluster.world, &job(labels), &mut pod);
            pod.containers[0].env.iter().flatten().map(|one| one.name.clone()).collect::<Vec<_>>()
        };
        assert!(told(&cluster, r#""team": "a""#).is_empty(), "it does not know yet");
        assert!(carry_out(&mut cluster, NOW).contains("Ready=True"));
        assert_eq!(told(&cluster, r#""team": "a""#), BOUND);
        assert!(told(&cluster, r#""team": "b""#).is_empty());
        // A Job may be made of a CronJob, and the binding is as ready.
        let made = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, labels: {team: a}, owner: CronJob/c}\n\
                    spec: {template: {spec: {containers: [{name: c}]}}}\n";
        cluster.add(made);
        assert!(planned(&ROW, "default/b", &cluster).is_empty());
        let named = binding.replace(", selector: {matchLabels: {team: a}}}", ", name: none}");
        let told = unhappy(&ROW, "default/b", &super::super::fixture::cluster(&[&named], &[]));
        assert!(told.contains("SinkBindingAvailable=False SubjectMissing jobs.batch \"none\" not found"), "{told}");
    }
}
