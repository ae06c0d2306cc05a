//! As whom an object sends events: a ServiceAccount of its own, where senders are to say who they are.

use knoll_api::{Resource, Timestamp, duck::AuthStatus, k8s_openapi::api::core::v1::ServiceAccount, names};

use crate::{
    Plan, World,
    children::{child_of, map},
    status::Reporting,
};

const OIDC_IDENTITY_CREATED: &str = "OIDCIdentityCreated";
/// Label of the accounts.
pub(super) const LABEL: &str = "eventing.knative.dev/oidc";

/// Name of the account of an object.
pub(super) fn account_name<R: Resource>(object: &R) -> String {
    names::child(object.name(), &format!("-oidc-{}-{}", R::KIND.group(), R::KIND.kind())).to_lowercase()
}

/// Name of the account in the object's namespace that its events are sent as, while senders are to say who they are. Statuses
/// name it, too, but whoever may write one could name any other.
pub fn sender_account<R: Resource>(world: &World, object: &R) -> Option<String> {
    world.eventing.features.oidc_authentication.is_enabled().then(|| account_name(object))
}

/// What tokens for the object are made out to.
pub(super) fn audience<R: Resource>(object: &R) -> String {
    let (group, kind) = (R::KIND.group(), R::KIND.kind());
    format!("{group}/{kind}/{}/{}", object.namespace(), object.name()).to_lowercase()
}

/// Sees to the account and says how it stands. `auth` is where the status names it.
///
/// # Errors
/// When the account's name is taken; the status says so.
pub(super) fn settle<R: Reporting>(
    world: &World,
    next: &mut R,
    plan: &mut Plan,
    now: Timestamp,
    auth: fn(&mut R) -> &mut Option<AuthStatus>,
) -> Result<(), super::Stopped> {
    let name = account_name(next);
    let existing = world.service_accounts.get(&next.key().sibling(name.clone()));
    if !world.eventing.features.oidc_authentication.is_enabled() {
        existing.iter().filter(|account| account.is_controlled_by(next)).for_each(|account| plan.delete(&**account));
        *auth(next) = None;
        next.conditions(now).mark_true_with_reason(OIDC_IDENTITY_CREATED, "authentication-oidc feature disabled", "");
        return Ok(());
    }
    *auth(next) = Some(AuthStatus { service_account_name: Some(name.clone()), ..AuthStatus::default() });
    let Some(existing) = existing else {
        plan.create(account(next, name));
        next.conditions(now).mark_true(OIDC_IDENTITY_CREATED);
        return Ok(());
    };
    if !existing.is_controlled_by(next) {
        let text = format!("service account {name} not owned by {} {}", R::KIND.kind(), next.name());
        let reason = "Unable to resolve service account for OIDC authentication";
        next.conditions(now).mark_false(OIDC_IDENTITY_CREATED, reason, &text);
        return Err(super::Stopped);
    }
    next.conditions(now).mark_true(OIDC_IDENTITY_CREATED);
    Ok(())
}

/// Says that nothing is sent under a name of the object's own, before anybody has looked.
pub(super) fn not_supported<R: Reporting>(next: &mut R, now: Timestamp) {
    let reason = "authentication-oidc feature not yet supported for this Broker class";
    not_needed(next, reason, now);
}

/// Says that the object needs no account, and why.
pub(super) fn not_needed<R: Reporting>(next: &mut R, reason: &str, now: Timestamp) {
    next.conditions(now).mark_true_with_reason(OIDC_IDENTITY_CREATED, reason, "");
}

fn account<R: Resource>(owner: &R, name: String) -> ServiceAccount {
    let kind = R::KIND.kind();
    let text = format!("Service Account for OIDC Authentication for {kind} \"{}\"", owner.name());
    let annotations = map([("description", text.as_str())]);
    let mut metadata = child_of(owner, name, map([(LABEL, "enabled")]), annotations);
    metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.block_owner_deletion = Some(false));
    ServiceAccount { metadata, ..ServiceAccount::default() }
}
