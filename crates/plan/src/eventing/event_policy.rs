//! EventPolicy: who may send, as subjects of tokens.

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    duck::AuthStatus,
    eventing::{EventPolicy, EventPolicySender},
};

use super::{
    Stopped,
    destination::{by_reference, not_found},
    terms::is_decidable,
};
use crate::{Absence, Mapper, Plan, Row, SystemConfig, World, status::Reporting};

const AUTHENTICATION_ENABLED: &str = "AuthenticationEnabled";
const SUBJECTS_RESOLVED: &str = "SubjectsResolved";

/// Kinds whose objects send under a name of their own.
const SENDERS: [Kind; 10] = [
    Kind::Trigger,
    Kind::Subscription,
    Kind::Sequence,
    Kind::Parallel,
    Kind::EventTransform,
    Kind::ApiServerSource,
    Kind::ContainerSource,
    Kind::PingSource,
    Kind::SinkBinding,
    Kind::IntegrationSource,
];

const WAKES: [(Kind, Mapper); SENDERS.len()] = {
    let mut wakes: [(Kind, Mapper); SENDERS.len()] = [(Kind::Trigger, by_reference); SENDERS.len()];
    let mut at = 0;
    while at < SENDERS.len() {
        wakes[at].0 = SENDERS[at];
        at += 1;
    }
    wakes
};

/// The controller.
pub(crate) const ROW: Row = Row {
    name: "event-policy",
    of: Kind::EventPolicy,
    wakes: &WAKES,
    configs: &[SystemConfig::Eventing("config-features")],
    reads: &[],
    absence: Absence::IsEmpty,
    plan,
};

fn plan(world: &World, key: &Key, now: Timestamp) -> Plan {
    let mut plan = Plan::nothing();
    let Some(policy) = world.event_policies.get(key).filter(|policy| is_decidable(world, policy.as_ref())) else {
        return plan;
    };
    let mut next = EventPolicy::clone(&policy);
    next.conditions(now).initialize();
    // A stop is a result like any other here: what there is to say is in the status.
    reconcile(world, &mut next, now).unwrap_or(());
    plan.report(policy.as_ref(), next);
    plan
}

fn reconcile(world: &World, next: &mut EventPolicy, now: Timestamp) -> Result<(), Stopped> {
    if !world.eventing.features.oidc_authentication.is_enabled() {
        next.conditions(now).mark_false(AUTHENTICATION_ENABLED, "OIDCAuthenticationDisabled", "");
        return Err(Stopped);
    }
    next.conditions(now).mark_true(AUTHENTICATION_ENABLED);
    match subjects(world, next) {
        Ok(subjects) => {
            next.status.from = subjects;
            next.conditions(now).mark_true(SUBJECTS_RESOLVED);
            Ok(())
        }
        Err(why) => {
            let text = format!("could not resolve subjects from reference: could not resolve auth status: {why}");
            next.conditions(now).mark_false(SUBJECTS_RESOLVED, "SubjectsNotResolved", &text);
            Err(Stopped)
        }
    }
}

/// Everybody who may send.
fn subjects(world: &World, policy: &EventPolicy) -> Result<Vec<String>, String> {
    let mut subjects = Vec::new();
    for from in &policy.spec.from {
        match (&from.ref_, &from.sub) {
            (Some(sender), _) => subjects.extend(accounts(world, sender, policy.namespace())?),
            (None, Some(subject)) => subjects.push(subject.clone()),
            (None, None) => {}
        }
    }
    Ok(subjects)
}

/// The accounts under whose names an object sends.
fn accounts(world: &World, sender: &EventPolicySender, namespace: &str) -> Result<Vec<String>, String> {
    let namespace = if sender.namespace.is_empty() { namespace } else { &sender.namespace };
    let key = Key::new(namespace, sender.name.clone());
    let failed = |why: String| format!("failed to get authenticatable {key}: {why}");
    let kind = Kind::from_api(&sender.api_version, &sender.kind).filter(|kind| SENDERS.contains(kind));
    let kind = kind.ok_or_else(|| {
        failed(format!("nothing of kind {} ({}) sends under a name of its own", sender.kind, sender.api_version))
    })?;
    let object = world.object(kind, &key);
    let object = object.ok_or_else(|| failed(format!("failed to get object {key}: {}", not_found(kind, &key.name))))?;
    let auth = auth(&object).ok_or_else(|| format!(".status.auth is missing in object {key}"))?;
    let names = auth.service_account_names.into_iter().chain(auth.service_account_name);
    Ok(names.map(|name| format!("system:serviceaccount:{namespace}:{name}")).collect())
}

fn auth(object: &Object) -> Option<AuthStatus> {
    match object {
        Object::Trigger(object) => object.status.auth.clone(),
        Object::Subscription(object) => object.status.auth.clone(),
        Object::Sequence(object) => object.status.auth.clone(),
        Object::Parallel(object) => object.status.auth.clone(),
        Object::EventTransform(object) => object.status.source.auth.clone(),
        Object::ApiServerSource(object) => object.status.source.auth.clone(),
        Object::ContainerSource(object) => object.status.auth.clone(),
        Object::PingSource(object) => object.status.auth.clone(),
        Object::SinkBinding(object) => object.status.source.auth.clone(),
        Object::IntegrationSource(object) => object.status.auth.clone(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::fixture::{cluster, feature, unhappy};
    use super::*;
    use crate::check::{Cluster, check_in};

    const SENDERS: &str = r#"
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: p, namespace: other}
status: {auth: {serviceAccountName: one}}
---
apiVersion: flows.knative.dev/v1
kind: Sequence
metadata: {name: s}
status: {auth: {serviceAccountNames: [two, three]}}
---
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: t}
"#;

    fn of(from: &str) -> Cluster {
        let policy = format!(
            "apiVersion: eventing.knative.dev/v1alpha1\nkind: EventPolicy\nmetadata: {{name: e}}\nspec: {{from: [{from}]}}\n"
        );
        let mut cluster = cluster(&[SENDERS, &policy], &[]);
        feature(&mut cluster, "authentication-oidc", "enabled");
        cluster
    }

    #[test]
    fn senders_are_the_accounts_that_objects_send_as_and_subjects_that_are_named() {
        let ping = "{ref: {apiVersion: sources.knative.dev/v1, kind: PingSource, name: p, namespace: other}}";
        let sequence = "{ref: {apiVersion: flows.knative.dev/v1, kind: Sequence, name: s}}";
        check_in(
            &ROW,
            "default/e",
            of(&format!("{ping}, {sequence}, {{sub: 'system:serviceaccount:a:*'}}")),
            expect![[r#"
                status EventPolicy default/e
                  from ["system:serviceaccount:other:one","system:serviceaccount:default:two","system:serviceaccount:default:three","system:serviceaccount:a:*"]
                  observedGeneration 1
                  AuthenticationEnabled=True
                  Ready=True
                  SubjectsResolved=True
            "#]],
        );
    }

    #[test]
    fn a_policy_says_whom_it_cannot_find_and_that_nobody_asks() {
        let why = "SubjectsResolved=False SubjectsNotResolved could not resolve subjects from reference: could not resolve \
                   auth status: ";
        for (from, expected) in [
            (
                "{ref: {apiVersion: eventing.knative.dev/v1, kind: Trigger, name: x}}",
                "failed to get authenticatable default/x: failed to get object default/x: \
                 triggers.eventing.knative.dev \"x\" not found\n",
            ),
            (
                "{ref: {apiVersion: eventing.knative.dev/v1, kind: Trigger, name: t}}",
                ".status.auth is missing in object default/t\n",
            ),
            (
                "{ref: {apiVersion: v1, kind: Pod, name: t}}",
                "failed to get authenticatable default/t: nothing of kind Pod (v1) sends under a name of its own\n",
            ),
        ] {
            let told = unhappy(&ROW, "default/e", &of(from));
            assert!(told.contains(&format!("{why}{expected}")), "{told}");
        }
        let mut off = of("{sub: a}");
        feature(&mut off, "authentication-oidc", "disabled");
        let told = unhappy(&ROW, "default/e", &off);
        assert!(told.starts_with("AuthenticationEnabled=False OIDCAuthenticationDisabled\n"), "{told}");
    }
}
