//! SinkBinding → the environment of its subjects' containers: where their events go, what is set on them, the
//! certificates to trust, and a token that says who sends. What is written while there is a binding, the API server binds at once; here that follows which was
//! there before, and every change of the binding.

mod ducks;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    k8s_openapi::{
        api::{
            apps::v1::{Deployment, ReplicaSet},
            batch::v1::{CronJob, Job},
            core::v1::PodSpec,
        },
        apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time},
    },
    serving::{Configuration, Service},
    sources::{
        SinkBinding,
        bound::{Bound, may_bind},
    },
};

use super::{Stopped, destination, identity, source::settle_sink, terms::is_in_doubt, token_secret, trust_bundles};
use crate::{
    Absence, DuckKind, Indexed, Indexer, Mapper, Plan, Row, SystemConfig, Term, World, by_controller,
    kube::matches,
    status::Reporting,
    terms::{leads_to, selectors_of},
};

/// Kinds that no controller here looks after: the API server binds them when they are written.
const BOUND_WHEN_WRITTEN: [(&str, &str); 2] = [("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet")];
/// Objects that a selector may mean, looked at in one plan.
const MOST_LOOKED_AT: usize = 1024;
const FINALIZER: &str = "sinkbindings.sources.knative.dev";
const AVAILABLE: &str = "SinkBindingAvailable";
const TOKEN_SECRET_CREATED: &str = "OIDCTokenSecretCreated";
const TRUST_BUNDLE_PROPAGATED: &str = "TrustBundlePropagated";

const WAKES: [(Kind, Mapper); 25] = destination::wakes([
    (Kind::ServiceAccount, by_controller),
    (Kind::Secret, by_controller),
    (Kind::ConfigMap, by_trust_bundle),
    (Kind::Deployment, destination::by_reference),
    (Kind::Deployment, by_labels),
    (Kind::ReplicaSet, destination::by_reference),
    (Kind::ReplicaSet, by_labels),
    (Kind::Configuration, destination::by_reference),
    (Kind::CronJob, destination::by_reference),
    (Kind::CronJob, by_labels),
    (Kind::Job, destination::by_reference),
    (Kind::Service, by_labels),
]);

/// The controller's name.
pub(crate) const NAME: &str = "sink-binding";

/// The controller.
pub(crate) const ROW: Row = Row {
    name: NAME,
    of: Kind::SinkBinding,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features"), SystemConfig::Eventing("config-kreference-mapping")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

/// The binding that counts of those that choose the object by its labels. What the others say of it, they say when it is next
/// their turn.
fn by_labels(world: &World, object: &Object, _: Kind) -> Vec<Key> {
    let (kind, meta) = (object.kind(), object.meta());
    let found = choosing_by_labels(world, meta).into_iter().filter_map(|key| world.sink_bindings.get(&key));
    let oldest = found.filter(|binding| !binding.is_deleting() && chooses(binding, kind, meta)).min_by_key(age);
    oldest.iter().map(|binding| binding.key()).collect()
}

/// Keys of bindings that may choose an object by its labels. Reads none.
fn choosing_by_labels(world: &World, meta: &ObjectMeta) -> BTreeSet<Key> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    selectors_of(namespace, meta.labels.as_ref()).flat_map(|term| world.sink_bindings.find_keys(term)).collect()
}

/// By which the oldest of several counts.
fn age(binding: &Arc<SinkBinding>) -> (Option<Time>, Key) {
    (binding.metadata.creation_timestamp.clone(), binding.key())
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
    if is_in_doubt(world, binding.as_ref()) {
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
    bind(world, binding, &Bound::default(), plan).unwrap_or_default();
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
    bind(world, next, &Bound::of(next, bundles), plan).map_err(|(reason, why)| {
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
fn bind(world: &World, binding: &SinkBinding, bound: &Bound, plan: &mut Plan) -> Result<(), (&'static str, String)> {
    let subject = &binding.spec.subject;
    match Kind::from_api(&subject.api_version, &subject.kind) {
        Some(Kind::Deployment) => {
            bind_in(world, &world.deployments, binding, bound, plan, |subject: &mut Deployment| {
                subject.spec.as_mut()?.template.spec.as_mut()
            })
        }
        Some(Kind::ReplicaSet) => {
            bind_in(world, &world.replica_sets, binding, bound, plan, |subject: &mut ReplicaSet| {
                subject.spec.as_mut()?.template.as_mut()?.spec.as_mut()
            })
        }
        Some(Kind::Service) => bind_in(world, &world.services, binding, bound, plan, |subject: &mut Service| {
            Some(&mut subject.spec.template.spec.pod_spec)
        }),
        Some(Kind::Configuration) => {
            bind_in(world, &world.configurations, binding, bound, plan, |subject: &mut Configuration| {
                Some(&mut subject.spec.template.spec.pod_spec)
            })
        }
        Some(Kind::CronJob) => bind_in(world, &world.cron_jobs, binding, bound, plan, |subject: &mut CronJob| {
            subject.spec.as_mut()?.job_template.spec.as_mut()?.template.spec.as_mut()
        }),
        Some(Kind::Job) => check_job(world, binding, bound),
        _ if BOUND_WHEN_WRITTEN.contains(&(subject.api_version.as_str(), subject.kind.as_str())) => Ok(()),
        _ => match DuckKind::of(&subject.api_version, &subject.kind) {
            Some(kind) => ducks::bind(world, &kind, binding, bound, plan),
            None => {
                let (kind, api_version) = (&subject.kind, &subject.api_version);
                let text = format!(
                    "nothing of kind {kind} ({api_version}) can be bound here; name a Deployment, a ReplicaSet, a Job, a \
                     CronJob, a StatefulSet, a DaemonSet, a Service or Configuration of Serving, or a kind of your own"
                );
                Err(("SubjectUnavailable", text))
            }
        },
    }
}

/// Whether a binding may write to a subject, by its kind and name, what makes it, and an older binding that means it, too. Two
/// writers that each put back what the other wrote never end: what a controller here makes of something else is bound by
/// that, and of several bindings the oldest counts.
fn may_write(
    binding: &SinkBinding,
    (kind, name): (&str, &str),
    controller: Option<&OwnerReference>,
    older: Option<&str>,
) -> Result<(), (&'static str, String)> {
    if let Some(owner) = controller.filter(|owner| !may_bind(owner, binding)) {
        let text = format!("{kind} {name} is made of {} {}: bind that", owner.kind, owner.name);
        return Err(("SubjectUnavailable", text));
    }
    match older {
        Some(older) => Err(("SubjectTaken", format!("{kind} {name} is bound by SinkBinding {older}, which is older"))),
        None => Ok(()),
    }
}

/// That a selector may mean more than are looked at.
fn too_many(kind: &str) -> (&'static str, String) {
    let text = format!(
        "the selector may mean more than {MOST_LOOKED_AT} objects of kind {kind}: the others are bound when they are next \
         written; use matchLabels that few have, or name them"
    );
    ("SubjectUnavailable", text)
}

/// The template of a Job does not change: the API server binds it when the Job is made.
fn check_job(world: &World, binding: &SinkBinding, bound: &Bound) -> Result<(), (&'static str, String)> {
    let name = &binding.spec.subject.name;
    if name.is_empty() {
        return Ok(());
    }
    let missing = || ("SubjectMissing", destination::not_found(Kind::Job, name));
    let job = world.jobs.get(&binding.key().sibling(name.clone())).ok_or_else(missing)?;
    let pod = |job: &Job| job.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    let mut wanted = pod(&job);
    wanted.iter_mut().for_each(|pod| bound.put(pod));
    if wanted == pod(&job) {
        return Ok(());
    }
    let text = format!("Job {name} was made before it could be bound as it is to be: make it again");
    Err(("SubjectUnavailable", text))
}

fn bind_in<R: Indexed + Into<Object>>(
    world: &World,
    all: &Indexer<R>,
    binding: &SinkBinding,
    bound: &Bound,
    plan: &mut Plan,
    pod: fn(&mut R) -> Option<&mut PodSpec>,
) -> Result<(), (&'static str, String)> {
    let subject = &binding.spec.subject;
    let (found, is_all) = match subject.name.as_str() {
        "" => selected(all, binding.namespace(), subject.selector.as_ref().unwrap_or(&LabelSelector::default())),
        name => {
            let missing = || ("SubjectMissing", destination::not_found(R::KIND, name));
            (vec![all.get(&binding.key().sibling(name.to_owned())).ok_or_else(missing)?], true)
        }
    };
    let (mut outcome, mut older) = (Ok(()), Older::than(binding));
    for one in found.iter().filter(|one| !one.is_deleting()) {
        if let Err(why) = older.may_bind(world, &**one) {
            outcome = Err(why);
            continue;
        }
        let mut next = R::clone(one);
        pod(&mut next).into_iter().for_each(|pod| bound.put(pod));
        plan.update(one.as_ref(), next);
    }
    if is_all { outcome } else { Err(too_many(R::KIND.kind())) }
}

/// Objects of a namespace that a selector means, and whether those are all.
fn selected<R: Indexed + Into<Object>>(
    all: &Indexer<R>,
    namespace: &str,
    selector: &LabelSelector,
) -> (Vec<Arc<R>>, bool) {
    let by_value = selector.match_labels.as_ref().and_then(|labels| labels.last_key_value());
    let mut keys = match by_value {
        Some((label, value)) => all.keys_labelled(namespace, label, value),
        None => all.keys_in(namespace).collect(),
    };
    let is_all = keys.len() <= MOST_LOOKED_AT;
    keys.truncate(MOST_LOOKED_AT);
    let found = keys.iter().filter_map(|key| all.get(key));
    (found.filter(|one| matches(selector, one.meta().labels.as_ref())).collect(), is_all)
}

/// The bindings that count before one. Those that are found by a label are read once, however many subjects carry it.
struct Older<'a> {
    binding: &'a SinkBinding,
    /// By the label and its value, or by none.
    choosing: BTreeMap<Option<(String, String)>, Vec<Arc<SinkBinding>>>,
}

impl<'a> Older<'a> {
    fn than(binding: &'a SinkBinding) -> Self {
        Self { binding, choosing: BTreeMap::new() }
    }

    /// Whether the binding may write to a subject.
    fn may_bind<R: Resource>(&mut self, world: &World, subject: &R) -> Result<(), (&'static str, String)> {
        let older = self.of(world, subject);
        may_write(self.binding, (R::KIND.kind(), subject.name()), subject.controller(), older.as_deref())
    }

    /// Name of one that means the subject, too.
    fn of<R: Resource>(&mut self, world: &World, subject: &R) -> Option<String> {
        let means = |other: &&Arc<SinkBinding>| chooses(other, R::KIND, subject.meta());
        let named = self.counting(world, leads_to(R::KIND, &subject.key()));
        let mut found = named.iter().find(means).map(|other| other.name().to_owned());
        for term in selectors_of(subject.namespace(), subject.meta().labels.as_ref()) {
            if found.is_some() {
                break;
            }
            let label = match term {
                Term::Selects { label, value, .. } => Some((label.to_owned(), value.to_owned())),
                _ => None,
            };
            if !self.choosing.contains_key(&label) {
                self.choosing.insert(label.clone(), self.counting(world, term));
            }
            found = self.choosing[&label].iter().find(means).map(|other| other.name().to_owned());
        }
        found
    }

    fn counting(&self, world: &World, term: Term<'_>) -> Vec<Arc<SinkBinding>> {
        let mine = (self.binding.metadata.creation_timestamp.clone(), self.binding.key());
        let mut found = world.sink_bindings.find(term);
        found.retain(|other| !other.is_deleting() && age(other) < mine);
        found
    }
}

/// Whether a binding means this object.
fn chooses(binding: &SinkBinding, kind: Kind, object: &ObjectMeta) -> bool {
    let subject = &binding.spec.subject;
    let is_kind = Kind::from_api(&subject.api_version, &subject.kind) == Some(kind);
    let is_named = match subject.name.as_str() {
        "" => subject.selector.as_ref().is_some_and(|selector| matches(selector, object.labels.as_ref())),
        name => object.name.as_deref() == Some(name),
    };
    is_kind && is_named && Some(binding.namespace()) == object.namespace.as_deref()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::super::fixture::{cluster, feature, unhappy};
    use super::*;
    use crate::{
        DuckObject, DuckSeen, Want,
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

    #[test]
    fn what_a_user_defined_is_bound_where_it_has_a_template_of_pods() {
        let kind = DuckKind::of("example.com/v1", "Runner").expect("somebody's own");
        let binding = BINDING.replace("apps/v1, kind: Deployment", "example.com/v1, kind: Runner");
        let mut cluster = cluster(&[&binding], &[]);
        let see = |cluster: &mut Cluster, seen| drop(cluster.world.see_duck(kind.clone(), seen));
        // Nobody carries it out.
        let wants = |cluster: &Cluster| (ROW.plan)(&cluster.world, &Key::new("default", "b"), NOW).wants;
        let told = |cluster: &Cluster| unhappy(&ROW, "default/b", cluster);
        see(&mut cluster, DuckSeen::Unknown("example.com/v1 is not served".into()));
        assert!(told(&cluster).contains("SubjectUnavailable nothing is known of Runner: example.com/v1 is not served"));
        see(&mut cluster, DuckSeen::Begins("runners".into()));
        see(&mut cluster, DuckSeen::Listed);
        assert!(told(&cluster).contains("SubjectMissing runners.example.com \"d\" not found"));
        let meta = json!({"name": "d", "uid": "u", "resourceVersion": "7", "labels": {"team": "a"}});
        let key = Key::new("default", "d");
        let put = |spec: Value| DuckSeen::Put(key.clone(), DuckObject::read(&json!({"metadata": meta, "spec": spec})));
        see(&mut cluster, put(json!({"template": {}})));
        assert!(told(&cluster).contains("SubjectUnavailable Runner d has no containers in spec.template.spec"));
        let pod = json!({"containers": [{"name": "c", "mine": 1, "env": [{"name": "X"}]}], "own": {"x": 1}});
        see(&mut cluster, put(json!({"template": {"spec": pod}})));
        let wanted = wants(&cluster);
        let [Want::Patch { path, patch }, Want::Status(_)] = wanted.as_slice() else { panic!("{wanted:?}") };
        assert_eq!(path, "/apis/example.com/v1/namespaces/default/runners/d");
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let bound = &patch["spec"]["template"]["spec"];
        assert_eq!(bound["containers"][0]["mine"], 1, "what is its own stays");
        assert_eq!(bound["containers"][0]["env"][1], json!({"name": "K_SINK", "value": "https://sink"}));
        let mut there = pod.clone();
        there["containers"] = bound["containers"].clone();
        see(&mut cluster, put(json!({"template": {"spec": there}})));
        let wanted = wants(&cluster);
        assert!(matches!(wanted.as_slice(), [Want::Status(_)]), "{wanted:?}");
        // By its labels it is bound as by its name.
        let choosing = BINDING.replace(
            "apps/v1, kind: Deployment, namespace: default, name: d",
            "example.com/v1, kind: Runner, namespace: default, selector: {matchLabels: {team: a}}",
        );
        cluster.add(&choosing.replace("name: b,", "name: a,"));
        assert!(unhappy(&ROW, "default/a", &cluster).is_empty());
        let named = cluster.world.leading_to_duck(Kind::SinkBinding, &kind, Some(&key));
        assert_eq!(named, [Key::new("default", "b"), Key::new("default", "a")], "both are told of it");
        // Of two the older counts; what Knoll makes of something else is that something's to bind, as at admission.
        cluster.add(&choosing.replace("name: b,", "name: c,"));
        assert!(unhappy(&ROW, "default/c", &cluster).contains("SubjectTaken Runner d is bound by SinkBinding a"));
        for (owner, is_bound) in [("apps/v1 Deployment", false), ("example.com/v1 Fleet", true)] {
            let (api_version, kind) = owner.split_once(' ').expect("both");
            let mut made = json!({"metadata": meta, "spec": {"template": {"spec": pod}}});
            made["metadata"]["ownerReferences"] =
                json!([{"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o", "controller": true}]);
            see(&mut cluster, DuckSeen::Put(key.clone(), DuckObject::read(&made)));
            let plan = plan(&cluster.world, &Key::new("default", "a"), NOW);
            assert_eq!(plan.wants.iter().any(|want| matches!(want, Want::Patch { .. })), is_bound, "{owner}");
        }
        for at in 0..MOST_LOOKED_AT {
            let another =
                json!({"metadata": {"uid": "u", "labels": {"team": "a"}}, "spec": {"template": {"spec": pod}}});
            let key = Key::new("default", format!("e-{at:04}"));
            see(&mut cluster, DuckSeen::Put(key, DuckObject::read(&another)));
        }
        let plan = plan(&cluster.world, &Key::new("default", "a"), NOW);
        assert!(format!("{:?}", plan.wants).contains("may mean more than 1024 objects of kind Runner"));
        assert_eq!(plan.wants.iter().filter(|want| matches!(want, Want::Patch { .. })).count(), MOST_LOOKED_AT);
    }

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

    /// One namespace may have as many of both as it likes.
    #[test]
    fn what_a_change_of_a_subject_costs_is_the_number_of_bindings_and_of_subjects_and_not_their_product() {
        let many = 100;
        let binding = |at: usize, team: &str| {
            let subject = format!(", selector: {{matchLabels: {{team: {team}}}}}}}");
            BINDING.replace(", name: d}", &subject).replace("{name: b", &format!("{{name: b-{at:03}"))
        };
        let texts: Vec<String> = (0..many)
            .flat_map(|at| [binding(at, "a"), binding(many + at, "b"), deployment(&format!("d-{at:03}"), "")])
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let cluster = cluster(&texts, &[]);
        let world = &cluster.world;
        let changed = world.object(Kind::Deployment, &Key::new("default", "d-007")).expect("it is there");
        let before = world.visits();
        assert_eq!(by_labels(world, &changed, Kind::SinkBinding), [Key::new("default", "b-000")]);
        plan(world, &Key::new("default", "b-000"), NOW);
        let cost = world.visits() - before;
        assert!(cost < 6 * many as u64, "{cost} objects were read");
        let younger = format!("{:?}", plan(world, &Key::new("default", "b-001"), NOW));
        assert!(younger.contains("is bound by SinkBinding b-000, which is older"), "{younger}");
    }

    #[test]
    fn what_a_selector_may_mean_is_looked_at_to_a_bound_and_said_beyond() {
        let chosen = BINDING.replace(", name: d}", ", selector: {matchLabels: {team: a}}}");
        let mut texts: Vec<String> = (0..=MOST_LOOKED_AT).map(|at| deployment(&format!("d-{at:04}"), "")).collect();
        texts.push(chosen);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let plan = plan(&cluster(&texts, &[]).world, &Key::new("default", "b"), NOW);
        let told = plan.wants.iter().find(|want| matches!(want, Want::Status(_)));
        assert!(format!("{told:?}").contains("may mean more than 1024 objects of kind Deployment"));
        let updates = plan.wants.iter().filter(|want| matches!(want, Want::Update(Object::Deployment(_)))).count();
        assert_eq!(updates, MOST_LOOKED_AT);
    }

    #[test]
    fn what_another_controller_makes_is_bound_and_what_ours_make_is_not() {
        for (owner, expected) in [("apps/v1, kind: Deployment", 0), ("x.io/v1, kind: X", 1)] {
            let owner =
                format!("ownerReferences: [{{apiVersion: {owner}, name: o, uid: o, controller: true}}], labels");
            let made = deployment("d", "").replacen("labels", &owner, 1);
            let wants = planned(&ROW, "default/b", &cluster(&[BINDING, &made], &[])).wants;
            let updates = wants.iter().filter(|want| matches!(want, Want::Update(Object::Deployment(_)))).count();
            assert_eq!(updates, expected, "{owner}");
        }
    }

    #[test]
    fn what_the_api_server_binds_when_it_is_written_is_bound_and_a_job_from_before_is_told() {
        let of = |subject: &str| BINDING.replace("apps/v1, kind: Deployment, namespace: default, name: d", subject);
        let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: d}\nspec: {template: {spec: {containers: [{name: c}]}}}\n";
        let chosen = of("batch/v1, kind: Job, namespace: default, selector: {matchLabels: {team: a}}");
        let written = of("apps/v1, kind: StatefulSet, namespace: default, name: d");
        for fixtures in [vec![chosen.as_str(), job], vec![&chosen], vec![&written]] {
            assert_eq!(unhappy(&ROW, "default/b", &cluster(&fixtures, &[])), "");
        }
        let named = of("batch/v1, kind: Job, namespace: default, name: d");
        let bound = job.replace(
            "{name: c}",
            "{name: c, env: [{name: K_SINK, value: 'https://sink'}, {name: K_CA_CERTS, value: PEM}, \
                                 {name: K_CE_OVERRIDES, value: '{\"extensions\":{\"a\":\"b\"}}'}]}",
        );
        assert_eq!(unhappy(&ROW, "default/b", &cluster(&[&named, &bound], &[])), "");
        for (fixtures, expected) in [
            (vec![named.as_str()], "SubjectMissing jobs.batch \"d\" not found\n"),
            (vec![&named, job], "SubjectUnavailable Job d was made before it could be bound"),
        ] {
            let told = unhappy(&ROW, "default/b", &cluster(&fixtures, &[]));
            assert!(told.contains(expected), "{told}");
        }
        let cron = of("batch/v1, kind: CronJob, namespace: default, name: d");
        let object = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: d}\nspec: {schedule: '* * * * *', jobTemplate: {spec: \
                      {template: {spec: {containers: [{name: c}]}}}}}\n";
        let plan = planned(&ROW, "default/b", &cluster(&[&cron, object], &[]));
        assert!(matches!(&plan.wants[0], Want::Update(Object::CronJob(_))), "{plan:?}");
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
        let account = carry_out(&mut cluster, NOW);
        assert!(account.contains("create ServiceAccount") && !account.contains("issue a token"), "{account}");
        let first = carry_out(&mut cluster, NOW);
        let issued = "issue a token of default/b-oidc-sources.knative.dev-sinkbinding for me\n";
        assert!(first.contains(issued) && !first.contains("update Deployment"), "{first}");
        assert!(
            account.contains("OIDCTokenSecretCreated=Unknown TokenPending The token is not issued yet."),
            "{account}"
        );
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
        // Somebody deleted the account, and it is made again: nobody takes the old one's token.
        let account = Key::new("default", "b-oidc-sources.knative.dev-sinkbinding");
        cluster.edit(Kind::ServiceAccount, &account, |account| account["metadata"]["uid"] = "another".into());
        assert!(carry_out(&mut cluster, after(-60)).contains("issue"), "it is another account's");
        assert!(!carry_out(&mut cluster, after(-60)).contains("issue"));
        // Nobody asks any more.
        feature(&mut cluster, "authentication-oidc", "disabled");
        let last = carry_out(&mut cluster, after(0));
        assert!(last.contains("delete Secret default/b-oidc-token") && last.contains("update Deployment"), "{last}");
        assert!(!last.contains("oidcTokenSecretName"), "{last}");
    }
}
