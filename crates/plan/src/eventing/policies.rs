//! EventPolicies that apply to an object, and what its status says of them.

use std::{collections::BTreeMap, sync::Arc};

use knoll_api::{
    Key, Kind, Object, Resource, Timestamp,
    conditions::{READY, is_true},
    config::eventing::DefaultAuthorizationMode,
    duck::{AppliedEventPoliciesStatus, AppliedEventPolicy},
    eventing::EventPolicy,
};

use crate::{Term, World, kube::matches, status::Reporting, terms::leads_to};

const EVENT_POLICIES_READY: &str = "EventPoliciesReady";

/// The kind that a policy means: its version does not count, nor do upper and lower case.
pub(super) fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let same = |known: &&Kind| known.group().eq_ignore_ascii_case(group) && known.kind().eq_ignore_ascii_case(kind);
    Kind::ALL.iter().find(same).copied()
}

/// Objects of the row's kind that a policy may speak of.
pub(super) fn by_policy(world: &World, object: &Object, of: Kind) -> Vec<Key> {
    let Object::EventPolicy(policy) = object else { return Vec::new() };
    let named = policy.spec.to.iter().filter_map(|to| to.ref_.as_ref());
    let named = named.filter(|to| kind_of(&to.api_version, &to.kind) == Some(of));
    let mut keys: Vec<Key> = named.map(|to| policy.key().sibling(to.name.to_lowercase())).collect();
    let picks = policy.spec.to.iter().filter_map(|to| to.selector.as_ref());
    let picks = picks.into_iter().any(|selector| kind_of(&selector.api_version, &selector.kind) == Some(of));
    if picks || policy.spec.to.is_empty() {
        keys = world.keys_in(of, policy.namespace());
    }
    keys
}

/// The policies that apply to an object, by name.
pub(super) fn applying<R: Resource>(world: &World, object: &R) -> Vec<Arc<EventPolicy>> {
    let (key, namespace) = (object.key(), object.namespace());
    let named = world.event_policies.find(leads_to(R::KIND, &key));
    let others = world.event_policies.find(Term::SelectsOtherwise { namespace });
    let found = named.into_iter().chain(others).filter(|policy| applies(policy, object));
    let by_name: BTreeMap<String, _> = found.map(|policy| (policy.name().to_owned(), policy)).collect();
    by_name.into_values().collect()
}

fn applies<R: Resource>(policy: &EventPolicy, object: &R) -> bool {
    let same_kind = |api_version: &str, kind: &str| kind_of(api_version, kind) == Some(R::KIND);
    let one = |to: &knoll_api::eventing::EventPolicyTo| {
        let named = to
            .ref_
            .as_ref()
            .is_some_and(|to| same_kind(&to.api_version, &to.kind) && to.name.eq_ignore_ascii_case(object.name()));
        let picked = to.selector.as_ref().is_some_and(|to| {
            same_kind(&to.api_version, &to.kind) && matches(&to.labels, object.meta().labels.as_ref())
        });
        named || picked
    };
    policy.namespace() == object.namespace() && (policy.spec.to.is_empty() || policy.spec.to.iter().any(one))
}

/// Writes which policies apply, of which only those that are ready count, and whether all are.
pub(super) fn report<R: Reporting>(
    world: &World,
    next: &mut R,
    now: Timestamp,
    status: fn(&mut R) -> &mut AppliedEventPoliciesStatus,
) {
    let applying = applying(world, next);
    let (ready, others): (Vec<_>, Vec<_>) =
        applying.iter().partition(|policy| policy.condition(READY).is_some_and(is_true));
    let listed = ready.into_iter().map(|policy| AppliedEventPolicy {
        api_version: Kind::EventPolicy.api_version(),
        name: policy.name().to_owned(),
    });
    status(next).policies = listed.collect();
    let features = &world.eventing.features;
    let mut conditions = next.conditions(now);
    if !others.is_empty() {
        let names: Vec<&str> = others.into_iter().map(|policy| policy.name()).collect();
        let text = format!("event policies {} are not ready", names.join(", "));
        conditions.mark_false(EVENT_POLICIES_READY, "EventPoliciesNotReady", &text);
    } else if !applying.is_empty() {
        conditions.mark_true(EVENT_POLICIES_READY);
    } else if features.oidc_authentication.is_enabled() {
        let mode = match features.default_authorization_mode {
            DefaultAuthorizationMode::AllowAll => "allow-all",
            DefaultAuthorizationMode::DenyAll => "deny-all",
            DefaultAuthorizationMode::AllowSameNamespace => "allow-same-namespace",
        };
        let text = format!("Default authz mode is \"{mode}\"");
        conditions.mark_true_with_reason(EVENT_POLICIES_READY, "DefaultAuthorizationMode", &text);
    } else {
        let text = "Feature \"authentication-oidc\" must be enabled to support Authorization";
        conditions.mark_true_with_reason(EVENT_POLICIES_READY, "OIDCDisabled", text);
    }
}
